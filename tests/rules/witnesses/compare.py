"""Replayed, walked and dumped state of one machine, compared subsection by subsection.

    python -m tests.rules.witnesses.compare CAPTURES...

takes directories that hold captures (``<boot>/<moment>/``, crash dumps beside them) and says where witnesses disagree.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from analyzer.audit import audit
from analyzer.sources.read import Request
from parsers.arm64 import PMD, PTE
from rules.model.memory.regions import LinearMap, Vmemmap
from rules.model.memory.sections import SectionTable
from rules.model.memory.snapshots import ListedSections, PrintedTables
from rules.model.replay.behaviour import Leaf
from rules.model.replay.extents import PMD_BYTES
from rules.model.replay.state import NO, UNKNOWN, YES
from rules.model.replay.timeline import Timeline


def disagreements(facts):
    """{what: PFNs on which the trace, the section table and the page tables do not say the same}; agreed ones left out.

    A trace that lost events speaks of nothing.
    """
    timeline, found = facts.get(Timeline), {}
    if timeline is None or timeline.undecided:
        return found
    state = timeline.state
    sections = facts.get(SectionTable)
    if sections is not None:
        found["valid"] = timeline.where(state.valid == YES) - sections.valid
        found["gone"] = timeline.where(state.valid == NO) & sections.valid
        found["online"] = timeline.where(state.online == YES) - sections.online
        found["offline"] = timeline.where((state.online == NO) & (state.valid == YES)) & sections.online
    told = (state.valid != UNKNOWN) & ~_in_two_leaves(timeline)
    for region, column in ((facts.get(Vmemmap), state.mapped), (facts.get(LinearMap), state.linear)):
        if region is not None:
            found[f"{region.name} mapped"] = timeline.where(told & (column == YES)) - region.pfns(region.pages_mapped)
            touched = region.pfns(region.pages_touched(region.mapped))
            found[f"{region.name} unmapped"] = timeline.where(told & (column == NO)) & touched
    vmemmap = facts.get(Vmemmap)
    for leaf, level in ((Leaf.PMD, PMD), (Leaf.PTE, PTE)) if vmemmap is not None else ():
        seen = vmemmap.pfns(vmemmap.pages_touched(vmemmap.where(vmemmap.valid & (vmemmap.level == level))))
        mine = timeline.where((state.mapped == YES) & (state.leaf == leaf) & told)
        found[f"vmemmap by {leaf.name}"] = mine - seen
    return {what: pfns for what, pfns in found.items() if pfns}


def _in_two_leaves(timeline):
    """Subsections whose struct pages begin in one block and end in the next: 80 bytes do not divide one."""
    size, pages = timeline.calibration.struct_page_size, timeline.extents.pages
    first = timeline.state.start_pfn * size + (timeline.calibration.vmemmap or 0) % PMD_BYTES
    return first // PMD_BYTES != (first + pages * size - 1) // PMD_BYTES


def differing_tables(facts):
    """{what: byte offsets that the printed and the walked tables map differently}, level by level."""
    printed, found = facts.get(PrintedTables), {}
    for mine, other in ((printed.linear, facts.get(LinearMap)), (printed.vmemmap, facts.get(Vmemmap))):
        for level in np.unique(np.concatenate((mine.level, other.level))).tolist():
            here, there = (one.where(one.valid & (one.level == level)) for one in (mine, other))
            found[f"{mine.name} level {level}"] = (here - there) | (there - here)
    return {what: offsets for what, offsets in found.items() if offsets}


def differing_lists(facts):
    """{what: PFNs that iomem and sysfs list otherwise than mem_section}."""
    listed, exact = facts.get(ListedSections).table, facts.get(SectionTable)
    found = {"valid": (listed.valid - exact.valid) | (exact.valid - listed.possible)}
    if listed.blocks_known:
        found["online"] = (listed.online - exact.online) | (exact.online - listed.online)
    return {what: pfns for what, pfns in found.items() if pfns}


def moments(root):
    """Capture directories below ``root`` with at least two witnesses: a trace, page tables, a crash dump."""
    for path in sorted(root.glob("**/kernel_page_tables")):
        moment = path.parent
        dumps = [*moment.parent.glob(f"{moment.name}.elf.zst"), *moment.glob("*.elf.zst")]
        if dumps or (moment / "trace").exists():
            yield moment, dumps[:1]


def compared(moment, dumps):
    """{what: where} for everything that disagrees about one moment."""
    facts = audit(Request((moment, *dumps)), only=("WIT",)).facts
    found = {f"trace: {what}": where for what, where in disagreements(facts).items()}
    for kind, compare in ((PrintedTables, differing_tables), (ListedSections, differing_lists)):
        if facts.get(kind) is not None:
            found |= {f"{kind.__name__}: {what}": where for what, where in compare(facts).items()}
    return found


def main():
    """Compare every moment of every directory; exit status 1 if any disagrees."""
    failed = 0
    for root in map(Path, sys.argv[1:]):
        for moment, dumps in moments(root):
            found = compared(moment, dumps)
            failed += bool(found)
            sys.stdout.write(f"{moment}{' with crash dump' if dumps else ''}: {found or 'agree'}\n")
    return int(failed > 0)


__all__ = ["compared", "differing_lists", "differing_tables", "disagreements", "moments"]

if __name__ == "__main__":
    sys.exit(main())

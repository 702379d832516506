"""VMM-07: struct pages of a whole hot-added section mapped with base pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import PTE, Attr
from parsers.cmdline import CommandLine
from parsers.kconfig import Kconfig
from parsers.ranges import Ranges, distinct
from rules.finding import Hit, Impact, Severity
from rules.hvo.evidence import HvoEvidence
from rules.model.memory.regions import Vmemmap
from rules.model.memory.sections import SectionTable
from rules.model.replay.behaviour import Leaf
from rules.model.replay.state import YES
from rules.model.replay.timeline import Timeline
from rules.rule import NotApplicableError, UndecidedError, rule
from rules.trace.leaves import hit_of_state

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="VMM-07",
    name="mixed-granularity",
    severity=Severity.MEDIUM,
    impact=Impact.PERFORMANCE,
    references=("Linux commit 9f84f39f5515 (v5.11): arm64/mm: validate hotplug range / fall back to base pages",),
)
def mixed_granularity(
    vmemmap: Vmemmap, sections: SectionTable, *, kconfig: Kconfig | None, command_line: CommandLine | None
) -> Iterator[Hit]:
    """Hot-added sections have their struct pages in base pages instead of a 2 MiB block.

    What it means:
    When no free 2 MiB page was left at hot-add time, the kernel fell back to 512 base pages: 512
    entries and a table page in place of one entry, and more TLB misses in every walk of page frames.

    How it is detected:
    Hot-added memory blocks whose struct pages are mapped at the last level.

    When it is not a problem:
    16K and 64K kernels always use base pages. Sections that were added in parts use base pages by
    design since d4234d131b0a. Boot memory may have been laid out that way by memblock. HugeTLB vmemmap
    optimisation splits blocks.

    What to do:
    Plug memory early after boot, or compact memory before plugging, or use memmap_on_memory.
    """
    if vmemmap.layout.page_size != 4096:
        raise NotApplicableError(f"{vmemmap.layout.granule.name} pages: base pages are the only way")
    if HvoEvidence.of(kconfig, command_line).enabled:
        raise NotApplicableError("HugeTLB vmemmap optimisation splits blocks on purpose")
    base = vmemmap.valid & (vmemmap.level == PTE) & ~vmemmap.has(Attr.RDONLY)
    in_pages = vmemmap.pfns(vmemmap.pages_touched(vmemmap.where(base)))
    blocks = Ranges.of(sections.block_units.start_pfn, sections.block_units.end_pfn)
    affected = (in_pages & blocks).divide(sections.pages_per_section, outward=True)
    if affected:
        pfns = affected.scale(sections.pages_per_section)
        offsets = vmemmap.of_pfns(pfns)
        rows = offsets.touches(vmemmap.start, vmemmap.end) & base
        yield Hit(
            title=f"Struct pages of {affected.total} hot-added sections are mapped with base pages",
            message=(
                f"{affected.total} of {blocks.total // sections.pages_per_section} hot-added sections have their "
                f"struct pages in base pages: {affected.total * 4} KiB of extra tables."
            ),
            claim=sections.claim,
            pfns=pfns,
            vas=vmemmap.va_ranges(offsets),
            evidence=vmemmap.quote(np.flatnonzero(rows)),
        )
    elif in_pages & sections.early_unknown:
        raise UndecidedError("whether sections with base-page struct pages were hot-added is not known", "dmesg")


@mixed_granularity.fallback
def predicted_by_trace(timeline: Timeline) -> Iterator[Hit]:
    """Whole sections that were seen to fall back to pages."""
    if timeline.calibration.page_size != 4096:
        return
    state = timeline.state
    units = timeline.calibration.pages_per_section // timeline.extents.pages
    sections = (state.valid.size // units, units)
    owner = state.added_by.reshape(sections)
    in_pages = ((state.valid == YES) & (state.leaf == Leaf.PTE) & (state.added_by >= 0)).reshape(sections).all(axis=1)
    in_pages &= (owner == owner[:, :1]).all(axis=1)
    if in_pages.any():
        mine = np.repeat(in_pages, units)
        owners = distinct(state.added_by[mine]).tolist()
        yield hit_of_state(
            timeline, np.flatnonzero(mine), owners,
            f"Struct pages of {int(in_pages.sum())} whole sections were populated page by page",
            "no block could be allocated",
        )  # fmt: skip

"""The `Machine` that evidence describes: page tables as they were read, or as this kernel would have made them.

Where something is not known that decides what the kernel does, there is one machine for each possibility: an
answer counts only if all of them give it.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import PMD, PTE, Attr
from parsers.ftrace.functions import Kind
from parsers.image.code import KernelCode
from parsers.layout import KernelLayout, Precision
from parsers.memmap_on_memory import MemmapOnMemory, MemmapOnMemoryMode
from parsers.ranges import EMPTY, Ranges
from parsers.records import dataclass
from parsers.uname import KernelRelease
from parsers.vmcore.rows import BlockRows
from rules.finding import Claim, UndecidedError
from rules.model.bugs import bug
from rules.model.code import shown_by_code
from rules.model.memory.quotes import block_pfns
from rules.model.memory.regions import LinearMap, Vmemmap
from rules.model.memory.sections import SectionTable
from rules.model.memory.units import Inventory, UnitKind
from rules.model.memory.walk import Outputs, PageWalk
from rules.model.replay.behaviour import Behaviour
from rules.model.replay.calibration import Calibration
from rules.model.replay.entries import Entries, Look
from rules.model.replay.forward import Call, Machine, run_forward
from rules.model.replay.state import NO, YES
from rules.model.replay.timeline import Timeline

if TYPE_CHECKING:
    from rules.facts import Facts

__all__ = ["CODE", "SEEN", "Known", "known_machines"]

SEEN = "the page tables"
"""`Behaviour.source` where parts of sections show how this kernel maps struct pages."""
CODE = "the kernel's code"
"""The same where the code of vmemmap_populate() shows it."""

_PMD_BYTES = 2 << 20
_TOP = 1 << 48
"""Bytes of physical memory of an imagined machine."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Known:
    """The machines that the evidence allows, and how far an answer that all of them give can go."""

    machines: tuple[Machine, ...]
    inventory: Inventory
    layout: KernelLayout
    claim: Claim
    read: bool
    """The page tables were read, not imagined."""
    assumptions: tuple[str, ...] = ()
    collect: str = ""
    """What would leave one machine."""
    stored: Outputs | None = None
    """Where struct pages are stored: known from a dump."""
    seen_added: Ranges = EMPTY
    """PFNs whose history is known although no page tables were read: a trace saw them added."""


def known_machines(facts: Facts) -> Known:
    """The machines that the facts describe.

    Raises UndecidedError, with what to collect, where not even the page size or what memory there is, is known.
    """
    layout, sections = facts.get(KernelLayout), facts.get(SectionTable)
    if layout is None or not layout.knows("page_size", "section_size_bits"):
        raise UndecidedError("the page size is not known", "config")
    if sections is None:
        raise UndecidedError(f"what memory there is, is not known: {facts.why_missing(SectionTable)}", SectionTable)
    inventory = Inventory.of(facts, layout)
    linear, vmemmap = facts.get(LinearMap), facts.get(Vmemmap)
    if linear is not None and vmemmap is not None and layout.knows("phys_offset"):
        return _read(facts, layout, sections, inventory, linear, vmemmap)
    return _imagined(facts, layout, sections, inventory)


def _read(
    facts: Facts,
    layout: KernelLayout,
    sections: SectionTable,
    inventory: Inventory,
    linear: LinearMap,
    vmemmap: Vmemmap,
) -> Known:
    release, code, walk = facts.get(KernelRelease), facts.get(KernelCode), facts.get(PageWalk)
    entries, struct_pages = Entries.of(linear), Entries.of(vmemmap)
    seen = _seen_behaviour(sections, inventory, struct_pages, layout)
    behaviours = _behaviours(layout, release, code, seen)
    calibration = Calibration(
        layout.page_size,
        layout.struct_page_size,
        (layout.vmemmap_start - layout.start_pfn * layout.struct_page_size) & (2**64 - 1),
        layout.pages_per_section,
        "the layout",
    )
    mapped = entries.present & (entries.attrs & np.uint16(Attr.VALID) != 0)
    early = (sections.early | sections.early_unknown & sections.ram_sections | inventory.boot) - sections.hotadded
    machine = Machine(
        calibration=calibration,
        behaviour=behaviours[0],
        vmemmap=struct_pages,
        linear=entries,
        valid=sections.valid | _left_behind(facts, sections, vmemmap),
        online=_online(sections),
        early=early,
        hosted=_hosted(facts, layout, sections, inventory),
        blocks=bool((mapped & (entries.level < PTE)).any()),
        runs=bool((mapped & (entries.attrs & np.uint16(Attr.CONT) != 0)).any()),
        tagged=release is None or not bug("mte-hotplug").possible_in(release),
        table_is_done=_table_is_done(release, code),
    )
    return Known(
        machines=tuple(replace(machine, behaviour=one) for one in behaviours),
        inventory=inventory,
        layout=layout,
        claim=sections.claim,
        read=True,
        stored=None if walk is None or vmemmap.pa is None else Outputs.of(vmemmap, walk),
        collect="uname -a" if len(behaviours) > 1 else "",
    )


def _left_behind(facts: Facts, sections: SectionTable, vmemmap: Vmemmap) -> Ranges:
    """Sections that a failed add left valid (VMM-14): no list has them, but the trace and the vmemmap do."""
    timeline = facts.get(Timeline)
    if timeline is None or timeline.undecided or sections.precision is Precision.EXACT:
        return EMPTY
    half = timeline.where((timeline.state.valid == YES) & (timeline.state.linear == NO))
    return half & vmemmap.pfns(vmemmap.pages_mapped)


def _online(sections: SectionTable) -> Ranges:
    """What is online; all RAM where no list says what is offline."""
    if sections.blocks_known or sections.precision is Precision.EXACT:
        return sections.online
    return sections.online | sections.ram


def _behaviours(
    layout: KernelLayout, release: KernelRelease | None, code: KernelCode | None, seen: bool | None
) -> tuple[Behaviour, ...]:
    """The one that is known, or both: by the kernel's code, else by what maps struct pages now, else by the release."""
    shown = None if code is None else shown_by_code("partial-section-pmd", code)
    known = seen if shown is None else shown.fixed
    found = Behaviour.of(layout.page_size, layout.pages_per_section, release, known)
    if known is not None:
        found = replace(found, source=SEEN if shown is None else CODE)
    if found.page_size != 4096 or found.whole_sections_only is not None:
        return (found,)
    return tuple(replace(found, whole_sections_only=one) for one in (False, True))


def _table_is_done(release: KernelRelease | None, code: KernelCode | None) -> bool:
    """Whether a populate mistakes a table for a block that is already there (9ab2601dc4c1 is missing, or may be)."""
    shown = None if code is None else shown_by_code("vmemmap-check-pmd", code)
    if shown is not None:
        return not shown.fixed
    return release is None or bug("vmemmap-check-pmd").possible_in(release)


def _seen_behaviour(
    sections: SectionTable, inventory: Inventory, vmemmap: Entries, layout: KernelLayout
) -> bool | None:
    """Whether struct pages of parts of sections are mapped by pages (True) or by a block (False).

    A block over part of a section shows a kernel without d4234d131b0a.  Pages show one that has it: without it,
    they are used only where no block could be allocated.
    """
    if layout.page_size != 4096:
        return None
    size = layout.pages_per_section
    parts: list[tuple[int, int]] = []
    for unit in inventory.devices:
        inner, outer = -(-unit.start_pfn // size) * size, unit.end_pfn // size * size
        if inner > outer:
            parts.append((unit.start_pfn, unit.end_pfn))
        else:
            parts += [(unit.start_pfn, inner), (outer, unit.end_pfn)]
    partial = Ranges.pairs(pair for pair in parts if pair[0] < pair[1]) - sections.ram_sections
    by_level = {}
    for level in (PMD, PTE):
        at = vmemmap.present & (vmemmap.level == level)
        by_level[level] = Ranges.of(vmemmap.start[at], vmemmap.end[at]) & vmemmap.offsets(partial)
    if by_level[PMD]:
        return False
    return True if by_level[PTE] else None


def _hosted(facts: Facts, layout: KernelLayout, sections: SectionTable, inventory: Inventory) -> Ranges:
    """Blocks that hold their own struct pages: as a dump has them, or as the parameter and the kernel make them.

    mm/memory_hotplug.c mhp_supports_memmap_on_memory(): single blocks until 6.7, every block of an add since 6.8
    (6b8f0798b85a); dax/kmem asks for it since 6.8, virtio-mem never.
    """
    rows, parameter, release = facts.get(BlockRows), facts.get(MemmapOnMemory), facts.get(KernelRelease)
    if rows is not None:
        start, end = block_pfns(rows, sections.pages_per_section)
        mine = rows.nr_vmemmap_pages != 0
        return Ranges.of(start[mine], end[mine])
    if parameter is None or parameter.mode is MemmapOnMemoryMode.OFF:
        return EMPTY
    block = layout.get("block_size")
    if layout.page_size != 4096 or block is None:
        return EMPTY
    if block // layout.page_size * layout.struct_page_size % _PMD_BYTES:
        return EMPTY
    if release is not None and release.series < (5, 13):
        return EMPTY
    every = release is None or release.series >= (6, 8)
    found = EMPTY
    for unit in inventory.ram:
        single = (unit.end_pfn - unit.start_pfn) * layout.page_size == block
        if unit.driver == "virtio_mem" or not (every or (single and not unit.driver)) or unit.boot is not False:
            continue
        found = found | unit.pfns
    return found


def _imagined(facts: Facts, layout: KernelLayout, sections: SectionTable, inventory: Inventory) -> Known:
    """Page tables as the kernel would have made them: boot memory, then every unit, added one after the other."""
    release, code, timeline = facts.get(KernelRelease), facts.get(KernelCode), facts.get(Timeline)
    struct_page = layout.get("struct_page_size") or 64
    behaviours = _behaviours(layout, release, code, None)
    calibration = Calibration(layout.page_size, struct_page, 0, layout.pages_per_section, "assumed")
    boot = (sections.valid & sections.ram_sections - sections.hotadded).widen(layout.pages_per_section)
    machines: list[Machine] = []
    for behaviour, large in product(behaviours, (False, True)):
        vmemmap = Entries.empty("vmemmap", layout.granule, struct_page, _TOP // layout.page_size * struct_page)
        linear = Entries.empty("linear", layout.granule, layout.page_size, _TOP)
        level = PMD if layout.page_size == 4096 else PTE
        for low, high in boot.tuples():
            at = vmemmap.offsets(Ranges.one(low, high))
            vmemmap.populate(int(at.start[0]), int(at.end[0]), level, Look(), table_is_done=True)
        for low, high in linear.offsets(sections.ram & boot).tuples():
            linear.map_linear(low, high, Look(), blocks=large, runs=large)
        empty = Machine(
            calibration=calibration,
            behaviour=behaviour,
            vmemmap=vmemmap,
            linear=linear,
            valid=boot,
            online=_online(sections),
            early=boot,
            hosted=_hosted(facts, layout, sections, inventory),
            blocks=large,
            runs=large,
        )
        added = [unit for unit in (*inventory.devices, *inventory.ram) if not boot & unit.pfns]
        calls = [Call(Kind.ARCH_ADD_MEMORY, unit.start_pfn, unit.end_pfn) for unit in added]
        ram = Ranges.pairs((unit.start_pfn, unit.end_pfn) for unit in added if unit.kind is UnitKind.RAM)
        machine = run_forward(empty, calls, ram=ram).after if calls else empty
        if timeline is not None:
            machine.vmemmap.lose(machine.vmemmap.offsets(timeline.lost))
        machines.append(replace(machine, valid=machine.valid | sections.valid, online=_online(sections)))
    reason = facts.why_missing(LinearMap) if facts.get(LinearMap) is None else "PHYS_OFFSET is not known"
    return Known(
        machines=tuple(machines),
        inventory=inventory,
        layout=layout,
        claim=Claim.SUSPECTED,
        read=False,
        assumptions=(f"page tables as {behaviours[0].source} would make them ({reason})",),
        collect="the page tables: " + facts.collect(LinearMap)[0],
        seen_added=_seen_added(timeline),
    )


def _seen_added(timeline: Timeline | None) -> Ranges:
    """PFNs that the trace saw added, if it lost nothing."""
    if timeline is None or timeline.undecided:
        return EMPTY
    return timeline.where(timeline.state.added_by >= 0)

"""Whether all that the vmemmap area describes is known: a rule about devices cannot pass on what it cannot see."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.ranges import EMPTY, Ranges, distinct
from rules.model.memory.regions import LinearMap, Vmemmap
from rules.rule import UndecidedError

if TYPE_CHECKING:
    from rules.model.memory.lists import Units
    from rules.model.memory.sections import SectionTable

__all__ = ["everything_possible", "need_boot_memmap", "need_devices", "shared_leaves", "unexplained"]


def everything_possible(vmemmap: Vmemmap, sections: SectionTable) -> bool:
    """Whether nothing says where there is no memory, because /proc/iomem is missing."""
    return sections.possible == Ranges.one(0, 1 << (52 - vmemmap.layout.page_shift))


def unexplained(vmemmap: Vmemmap, sections: SectionTable) -> Ranges:
    """Byte offsets of whole leaves that describe no memory that is known; none where nothing can be excluded."""
    if everything_possible(vmemmap, sections):
        return EMPTY
    needed = vmemmap.of_pfns(sections.possible)
    size = vmemmap.leaf_size
    # Leaves of a row are aligned pieces of it: a needed byte keeps the whole leaf that it lies in.
    left = vmemmap.mapped
    for leaf in distinct(size[vmemmap.valid]).tolist():
        left = left - (vmemmap.widen(needed, leaf) & vmemmap.where(size == leaf))
    return left


def shared_leaves(vmemmap: Vmemmap, units: Units) -> Ranges:
    """PFNs that the leaves describe which hold struct pages of several units, and may be torn with either."""
    size = vmemmap.layout.struct_page_size
    if len(units) < 2:
        return EMPTY
    end = (units.end_pfn[:-1] - vmemmap.layout.start_pfn) * size
    start = (units.start_pfn[1:] - vmemmap.layout.start_pfn) * size
    shared = EMPTY
    for leaf in distinct(vmemmap.leaf_size[vmemmap.valid]).tolist():
        after = -(-end // leaf) * leaf
        both = (start < after) & vmemmap.where(vmemmap.valid & (vmemmap.leaf_size == leaf)).contains(end - 1)
        shared |= vmemmap.pfns(vmemmap.pages_touched(Ranges.of(after[both] - leaf, after[both])))
    return shared


def need_boot_memmap(vmemmap: Vmemmap, sections: SectionTable) -> None:
    """UndecidedError where struct pages of boot memory are not mapped: no kernel runs for long without them.

    Then the page tables were not read as they are: pages of the dump are zeros, or lines of the text are missing.
    """
    missing = sections.early & vmemmap.pfns(vmemmap.pages_missing)
    if missing:
        message = f"the struct pages of {missing.total} pages of boot memory are not mapped: zeros in the page tables?"
        raise UndecidedError(message, Vmemmap)


def need_devices(vmemmap: Vmemmap, sections: SectionTable) -> None:
    """UndecidedError where struct pages outside of RAM are mapped and their owner is unknown."""
    need_boot_memmap(vmemmap, sections)
    if sections.unnamed - sections.ram_sections:
        message = f"no list names {sections.unnamed.total} valid pages that were added after boot: it may be cut"
        raise UndecidedError(message, "iomem")
    left = unexplained(vmemmap, sections)
    if left:
        pages = vmemmap.pages_touched(left).total
        raise UndecidedError(f"no list has the memory of {pages} struct pages that are mapped: it may be cut", "iomem")
    sections.need_whole_lists()
    if len(sections.listed_units):
        raise UndecidedError(
            f"whether {', '.join(sections.listed_units.label[:4])} have struct pages is not known: their linear map is "
            "not in the dump",
            LinearMap,
        )
    if sections.devices_known:
        return
    unowned = vmemmap.pfns(vmemmap.pages_touched(vmemmap.mapped)) - sections.ram_sections
    if unowned:
        raise UndecidedError(f"cannot tell what owns the struct pages of {unowned.total} pages", "iomem")

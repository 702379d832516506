"""Coverage: for every window of memory, what maps its struct pages and its linear range.

The window is a section or a 2 MiB subsection; results are columns, one row a window.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from parsers.ranges import distinct
from parsers.records import dataclass

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from parsers.mapping import I8, I64, U8, Bool
    from rules.model.memory.regions import LinearMap, RegionMap, Vmemmap
    from rules.model.memory.sections import SectionTable

__all__ = ["MIXED", "Coverage", "Extent"]

MIXED = -2
"""Level of a window that is mapped at several levels."""
NO_LEVEL = -3


class Extent(IntEnum):
    """How much of a window is mapped."""

    UNKNOWN = 0
    NONE = 1
    PART = 2
    FULL = 3


@dataclass(frozen=True, eq=False)
class Coverage:
    """Windows ``[start_pfn, end_pfn)`` with their valid pages and what maps them."""

    start_pfn: I64
    end_pfn: I64
    valid_pages: I64
    struct_pages: U8
    """`Extent` of the struct pages."""
    struct_level: I8
    """Arm level that maps them, `MIXED`, or `NO_LEVEL`."""
    linear: U8
    linear_level: I8

    @classmethod
    def of(
        cls, sections: SectionTable, vmemmap: Vmemmap | None, linear: LinearMap | None, start_pfn: I64, pages: int
    ) -> Coverage:
        """Coverage of the windows of ``pages`` pages that start at ``start_pfn``; LayoutError without PHYS_OFFSET."""
        end = start_pfn + pages
        return cls(
            start_pfn,
            end,
            sections.valid.covered(start_pfn, end),
            *_extent(vmemmap, start_pfn, end),
            *_extent(linear, start_pfn, end),
        )

    @classmethod
    def of_subsections(
        cls, sections: SectionTable, vmemmap: Vmemmap | None, linear: LinearMap | None, section_nr: I64
    ) -> Coverage:
        """Coverage of every 2 MiB subsection of the sections: only those that are not all alike are looked into."""
        pages, unit = sections.pages_per_section, sections.layout.pages_per_subsection
        whole = cls.of(sections, vmemmap, linear, section_nr * pages, pages)
        count = pages // unit
        start = (whole.start_pfn[:, None] + np.arange(count) * unit).ravel()
        columns: list[NDArray[Any]] = [np.repeat(column, count) for column in whole.columns]
        columns[0] //= count
        mixed = np.repeat(~whole.uniform(pages), count)
        inner = cls.of(sections, vmemmap, linear, start[mixed], unit)
        for column, fine in zip(columns, inner.columns, strict=True):
            column[mixed] = fine
        return cls(start, start + unit, *columns)

    @property
    def columns(self) -> tuple[I64, U8, I8, U8, I8]:
        """What is known of each window."""
        return self.valid_pages, self.struct_pages, self.struct_level, self.linear, self.linear_level

    def uniform(self, pages: int) -> Bool:
        """Windows that are all valid or not at all, mapped wholly or not at all, by one level."""
        parts = (self.struct_pages != Extent.PART) & (self.linear != Extent.PART)
        levels = (self.struct_level != MIXED) & (self.linear_level != MIXED)
        return np.asarray(parts & levels & ((self.valid_pages == 0) | (self.valid_pages == pages)))


def _extent(region: RegionMap | None, start: I64, end: I64) -> tuple[U8, I8]:
    """Extent and level by window for one region."""
    extent = np.full(start.size, Extent.UNKNOWN, dtype=np.uint8)
    level = np.full(start.size, NO_LEVEL, dtype=np.int8)
    if region is None:
        return extent, level
    first = region.layout.start_pfn
    low, high = start - first, end - first
    mapped = region.pages_mapped.covered(low, high)
    seen = region.pages_observed.covered(low, high) == end - start
    extent[seen] = Extent.NONE
    extent[mapped > 0] = Extent.PART
    extent[mapped == end - start] = Extent.FULL
    for number in distinct(region.level[region.valid]).tolist():
        rows = region.where(region.valid & (region.level == number))
        share = region.pages_touched(rows).covered(low, high) > 0
        level[share & (level != NO_LEVEL)] = MIXED
        level[share & (level == NO_LEVEL)] = number
    return extent, level

"""What maps the linear map and the struct pages: the page tables seen region by region.

Offsets are bytes from the region's base, int64, so no address can overflow.  One page index serves
both regions: page ``i`` lies at ``PAGE_OFFSET + i * PAGE_SIZE`` and its struct page at
``VMEMMAP_START + i * sizeof(struct page)`` in every kernel since 4.7 (virt_to_page()), whatever PHYS_OFFSET is;
its PFN is ``i`` + PFN(PHYS_OFFSET).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import PMD, PTE, Attr
from parsers.errors import LayoutError
from parsers.mapping import I8, I64, U8, U16, U64, Bool, Mapping
from parsers.ranges import Ranges, distinct
from parsers.records import dataclass
from rules.finding import Evidence, VaRange

if TYPE_CHECKING:
    from collections.abc import Iterable

    from parsers.layout import KernelLayout

__all__ = ["LinearMap", "RegionMap", "Vmemmap", "clip", "cut"]

MAX_QUOTED_ROWS = 6
MAX_SPAN = 1 << 62
"""Entries of levels that a granule does not have span more than an offset can hold."""


@dataclass(frozen=True, eq=False)
class RegionMap:
    """The rows of a mapping that lie in one region, clipped to it: columns of equal length, ascending."""

    name: str
    mapping: Mapping
    layout: KernelLayout
    base: int
    rows: I64
    """Row numbers in ``mapping``."""
    start: I64
    """Byte offset from ``base``."""
    end: I64
    observed: Ranges
    """Offsets that the source covers."""
    page_bytes: int
    """Bytes of this region that belong to one page: PAGE_SIZE, or sizeof(struct page)."""
    first: int
    """Byte offset at which the region begins at run time; 52-bit kernels on 48-bit hardware leave its start out."""
    size: int
    """Byte offset at which it ends."""

    @cached_property
    def attrs(self) -> U16:
        return self.mapping.attrs[self.rows]

    @cached_property
    def level(self) -> I8:
        return self.mapping.level[self.rows]

    @cached_property
    def memtype(self) -> U8:
        return self.mapping.memtype[self.rows]

    @cached_property
    def pa(self) -> U64 | None:
        """Output address of each row's first byte inside the region, where the source knows it."""
        if self.mapping.pa is None:
            return None
        skipped = (np.uint64(self.base) + self.start.astype(np.uint64)) - self.mapping.start[self.rows]
        return self.mapping.pa[self.rows] + skipped

    def has(self, attr: Attr) -> Bool:
        """Rows that have all bits of ``attr``."""
        return np.asarray((self.attrs & np.uint16(attr)) == np.uint16(attr))

    @cached_property
    def valid(self) -> Bool:
        """Rows that translate."""
        return self.has(Attr.VALID)

    @cached_property
    def hole(self) -> Bool:
        """Rows that are empty entries (a present but invalid entry is neither valid nor a hole)."""
        return ~self.has(Attr.PRESENT)

    def where(self, mask: Bool) -> Ranges:
        """Byte offsets of the rows in ``mask``."""
        return Ranges.of(self.start[mask], self.end[mask])

    @cached_property
    def mapped(self) -> Ranges:
        """Byte offsets that translate."""
        return self.where(self.valid)

    @cached_property
    def holes(self) -> Ranges:
        """Byte offsets seen to be empty: observed, and in no present row."""
        return self.observed - self.where(~self.hole)

    @cached_property
    def unobserved(self) -> Ranges:
        """Byte offsets of the region that the source does not cover."""
        return Ranges.one(self.first, self.size) - self.observed

    @cached_property
    def leaf_size(self) -> I64:
        """Bytes of the unit that one row is made of: an entry's span, or a contiguous run's where CON is set."""
        granule = self.layout.granule
        levels = np.arange(PTE, -2, -1)
        spans = np.array([min(granule.span(int(level)), MAX_SPAN) for level in levels], dtype=np.int64)
        runs = np.array([granule.cont_span(PTE), granule.cont_span(PMD)], dtype=np.int64)
        above = (PTE - self.level).astype(np.int64)
        return np.where(self.has(Attr.CONT) & (above <= 1), runs[np.minimum(above, 1)], spans[above])

    def widen(self, offsets: Ranges, unit: int) -> Ranges:
        """Edges moved outwards to virtual addresses that are multiples of ``unit``: whole leaves."""
        skew = self.base % unit
        return offsets.shift(skew).widen(unit).shift(-skew)

    def shrink(self, offsets: Ranges, unit: int) -> Ranges:
        """Edges moved inwards to virtual addresses that are multiples of ``unit``."""
        skew = self.base % unit
        return offsets.shift(skew).shrink(unit).shift(-skew)

    def pages(self, offsets: Ranges) -> Ranges:
        """Page indices that lie wholly in ``offsets``."""
        return offsets.divide(self.page_bytes, outward=False)

    def pages_touched(self, offsets: Ranges) -> Ranges:
        """Page indices of which any byte lies in ``offsets``."""
        return offsets.divide(self.page_bytes, outward=True)

    def offsets(self, pages: Ranges) -> Ranges:
        """Byte offsets of page indices."""
        return pages.scale(self.page_bytes)

    @cached_property
    def pages_mapped(self) -> Ranges:
        """Page indices whose every byte here translates."""
        return self.pages(self.mapped)

    @cached_property
    def pages_missing(self) -> Ranges:
        """Page indices of which a byte here was seen to be a hole."""
        return self.pages_touched(self.holes)

    @cached_property
    def pages_observed(self) -> Ranges:
        """Page indices whose every byte here the source covers."""
        return self.pages(self.observed)

    def va(self, offset: int) -> int:
        """Virtual address of a byte offset."""
        return (self.base + offset) & ((1 << 64) - 1)

    def va_ranges(self, offsets: Ranges) -> tuple[VaRange, ...]:
        """Virtual addresses of byte offsets."""
        return tuple(VaRange(self.base + lo, self.base + hi, self.name) for lo, hi in offsets.tuples())

    def quote(self, which: Iterable[int] | I64 | Bool) -> tuple[Evidence, ...]:
        """Evidence for rows of this region (indices or a mask); the first few of many, and how many there are."""
        chosen = np.asarray(which)
        chosen = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen
        quoted = [self._evidence(int(self.rows[row])) for row in chosen[:MAX_QUOTED_ROWS].tolist()]
        if chosen.size > MAX_QUOTED_ROWS:
            quoted.append(Evidence(self.mapping.source, f"and {chosen.size - MAX_QUOTED_ROWS} more rows"))
        return tuple(quoted)

    def quote_at(self, offsets: Ranges) -> tuple[Evidence, ...]:
        """Evidence for the rows that overlap ``offsets``."""
        return self.quote(self.rows_at(offsets))

    def rows_at(self, offsets: Ranges) -> I64:
        """Indices of the rows that overlap ``offsets``, ascending; found by search, for rules ask once a finding."""
        first = np.searchsorted(self.end, offsets.start, side="right")
        count = np.maximum(np.searchsorted(self.start, offsets.end, side="left") - first, 0)
        number = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        return distinct(np.repeat(first, count) + number).astype(np.int64)

    def _evidence(self, row: int) -> Evidence:
        mapping = self.mapping
        line = None if mapping.line is None else int(mapping.line[row])
        return Evidence(mapping.source, mapping.describe(row), line, None if line else int(mapping.start[row]))


class LinearMap(RegionMap):
    """The linear map of physical memory."""

    @classmethod
    def of(cls, mapping: Mapping, layout: KernelLayout) -> LinearMap:
        """The linear map's rows; LayoutError if its bounds are not known."""
        base = layout.page_offset
        end = layout.linear_end
        size, first = end - base, layout.linear_start - base
        _check("linear", base, end)
        return cls("linear", mapping, layout, base, *cut(mapping, base, first, size), layout.page_size, first, size)

    def pfns(self, pages: Ranges) -> Ranges:
        """PFNs of page indices; LayoutError if PHYS_OFFSET is not known."""
        return pages.shift(self.layout.start_pfn)


class Vmemmap(RegionMap):
    """The array of struct pages."""

    @classmethod
    def of(cls, mapping: Mapping, layout: KernelLayout) -> Vmemmap:
        """The vmemmap rows; LayoutError if its bounds are not known."""
        base, end = layout.vmemmap_start, layout.vmemmap_end
        size, first = end - base, layout.vmemmap_first - base
        _check("vmemmap", base, end)
        return cls(
            "vmemmap", mapping, layout, base, *cut(mapping, base, first, size), layout.struct_page_size, first, size
        )

    @cached_property
    def holes(self) -> Ranges:
        """Byte offsets seen not to translate: no kernel makes struct pages invalid on purpose, so an entry that is
        there and not valid is as bad as none (arch/arm64/mm/pageattr.c works on the linear map and vmalloc, v7.1).
        """
        return self.observed - self.mapped

    def pfns(self, pages: Ranges) -> Ranges:
        """PFNs of page indices; LayoutError if PHYS_OFFSET is not known."""
        return pages.shift(self.layout.start_pfn)

    def of_pfns(self, pfns: Ranges) -> Ranges:
        """Byte offsets of the struct pages of ``pfns``."""
        return self.offsets(pfns.shift(-self.layout.start_pfn))


_KERNEL_HALF = 0xFFF0_0000_0000_0000


def _check(name: str, start: int, end: int) -> None:
    """LayoutError for bounds that no area has: evidence may say anything."""
    if not _KERNEL_HALF <= start < end <= 1 << 64:
        raise LayoutError(f"the {name} area cannot lie from {start:#x} to {end:#x}")


def cut(mapping: Mapping, base: int, first: int, size: int) -> tuple[I64, I64, I64, Ranges]:
    """Row numbers, and byte offsets from ``base`` of rows and of what was observed, in ``[first, size)`` of them.

    LayoutError where ``first`` lies before the area: evidence may say anything.
    """
    if first < 0:
        raise LayoutError(f"the area from {base:#x} cannot begin {-first:#x} bytes before itself")
    first = min(first, size)
    rows, start, end = clip(mapping.start, mapping.last, base + first, size - first)
    _, seen_start, seen_end = clip(mapping.observed_start, mapping.observed_last, base + first, size - first)
    return rows, start + first, end + first, Ranges.of(seen_start + first, seen_end + first)


def clip(start: U64, last: U64, base: int, size: int) -> tuple[I64, I64, I64]:
    """Row numbers and byte offsets ``[start, end)`` of the rows in ``[base, base + size)``, clipped to it."""
    low, high = np.uint64(base), np.uint64(base + size - 1)
    inside = np.flatnonzero((last >= low) & (start <= high))
    offset = (np.maximum(start[inside], low) - low).astype(np.int64)
    end = (np.minimum(last[inside], high) - low).astype(np.int64) + 1
    return inside.astype(np.int64), offset, end

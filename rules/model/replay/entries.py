"""One region of the page tables as entries, changed the way arm64 hotplug changes them.

arch/arm64/mm/mmu.c and mm/sparse-vmemmap.c, 5.7 to 7.3: `Entries.clear` is unmap_hotplug_range() followed by
free_empty_tables(), `Entries.populate` is vmemmap_populate(), `Entries.map_linear` is __create_pgd_mapping().  A row is
a range of equal level and attributes, as in a dump; the level of an empty row says which table exists: an empty entry
at PTE level lies in an allocated table.  Offsets are bytes from the region's base.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import PMD, PTE, PUD, Attr, MemType
from parsers.ranges import EMPTY, Ranges, distinct
from parsers.records import dataclass
from rules.model.memory.regions import MAX_SPAN

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from parsers.arm64 import Granule
    from parsers.mapping import I8, I64, U8, U16, Bool
    from rules.model.memory.regions import RegionMap

__all__ = ["Entries", "Look"]

_SIZE = np.uint16(Attr.CONT | Attr.BLOCK)
"""Attributes that say how large a leaf is."""


@dataclass(frozen=True, slots=True)
class Look:
    """Attributes of a leaf without those that say how large it is."""

    attrs: int = int(Attr.PRESENT | Attr.VALID | Attr.PXN | Attr.SHARED | Attr.AF | Attr.UXN)
    memtype: int = int(MemType.NORMAL)


@dataclass(eq=False)
class Entries:
    """Rows ``[start, end)`` of one region, ascending; neighbours alike are one row."""

    name: str
    granule: Granule
    base: int
    """Virtual address of offset 0."""
    first: int
    """Offset at which the region begins: ``floor`` of free_empty_tables()."""
    size: int
    """Offset at which it ends: ``ceiling``."""
    first_level: int
    """Arm level of the root table."""
    start_pfn: int
    """PFN of the page at offset 0."""
    page_bytes: int
    """Bytes of the region that belong to one page: PAGE_SIZE, or sizeof(struct page)."""
    start: I64
    end: I64
    level: I8
    attrs: U16
    memtype: U8

    @classmethod
    def of(cls, region: RegionMap) -> Entries:
        """What was captured of a region; LayoutError if PHYS_OFFSET is not known."""
        layout = region.layout
        made = cls(
            region.name,
            layout.granule,
            region.base,
            region.first,
            region.size,
            layout.granule.first_level(layout.va_bits_actual),
            layout.start_pfn,
            region.page_bytes,
            region.start.copy(),
            region.end.copy(),
            region.level.copy(),
            region.attrs.copy(),
            region.memtype.copy(),
        )
        made._join()
        return made

    @classmethod
    def empty(cls, name: str, granule: Granule, page_bytes: int, size: int) -> Entries:
        """A region without a mapping, at address 0, of which PFN 0 is the first page; for kernels not captured."""
        level = np.array([granule.first_level(48)], dtype=np.int8)
        none16, none8 = np.zeros(1, dtype=np.uint16), np.zeros(1, dtype=np.uint8)
        edges = np.array([0, size], dtype=np.int64)
        return cls(name, granule, 0, 0, size, int(level[0]), 0, page_bytes, edges[:1], edges[1:], level, none16, none8)

    def copy(self) -> Entries:
        """The same entries, to be changed apart."""
        columns = (self.start, self.end, self.level, self.attrs, self.memtype)
        return Entries(
            self.name,
            self.granule,
            self.base,
            self.first,
            self.size,
            self.first_level,
            self.start_pfn,
            self.page_bytes,
            *(column.copy() for column in columns),  # type: ignore[arg-type]
        )

    # Looking.

    def offsets(self, pfns: Ranges) -> Ranges:
        """Bytes of this region that belong to ``pfns``."""
        return pfns.shift(-self.start_pfn).scale(self.page_bytes)

    def pfns(self, offsets: Ranges) -> Ranges:
        """PFNs of which any byte lies in ``offsets``."""
        return offsets.divide(self.page_bytes, outward=True).shift(self.start_pfn)

    @property
    def present(self) -> Bool:
        """Rows that are not empty."""
        return np.asarray((self.attrs & np.uint16(Attr.PRESENT)) != 0)

    @property
    def mapped(self) -> Ranges:
        """Offsets that translate."""
        valid = (self.attrs & np.uint16(Attr.VALID)) != 0
        return Ranges.of(self.start[valid], self.end[valid])

    @property
    def rows(self) -> list[tuple[int, int, int, int, int]]:
        """(start, end, level, attributes, memory type) of each row."""
        columns = (self.start, self.end, self.level, self.attrs, self.memtype)
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def leaf_at(self, offset: int) -> tuple[int, int]:
        """``[start, end)`` of the leaf, or of the whole contiguous run, that maps a byte; (offset, offset) for none."""
        row = int(np.searchsorted(self.end, offset, side="right"))
        if row >= self.start.size or self.start[row] > offset or not self.present[row]:
            return offset, offset
        level = int(self.level[row])
        unit = self._span(level)
        if self.attrs[row] & np.uint16(Attr.CONT) and level >= PMD:
            unit = self.granule.cont_span(level)
        start = (offset + self.base % unit) // unit * unit - self.base % unit
        return start, start + unit

    def splits(self, offset: int) -> bool:
        """Whether a leaf or contiguous run would be split there: addr_splits_kernel_leaf() of 7.1."""
        start, end = self.leaf_at(offset)
        return start not in {end, offset}

    def look(self, *, tagged: bool) -> Look:
        """What most of the writable memory mapped here looks like; without ``tagged`` never Normal-Tagged."""
        usable = self.present & ((self.attrs & np.uint16(Attr.RDONLY)) == 0)
        if not usable.any():
            return Look()
        keys = (self.attrs[usable] & ~_SIZE).astype(np.int64) << 8 | self.memtype[usable]
        kinds, at = np.unique(keys, return_inverse=True)
        most = int(kinds[np.argmax(np.bincount(at, weights=(self.end - self.start)[usable]))])
        memtype = most & 0xFF
        if memtype == MemType.NORMAL_TAGGED and not tagged:
            memtype = int(MemType.NORMAL)
        return Look(most >> 8, memtype)

    def incomplete_runs(self) -> Ranges:
        """Offsets of leaves with the Contiguous bit in runs that are not whole."""
        found = EMPTY
        for level in (PMD, PTE):
            unit, skew = self.granule.cont_span(level), self.base % self.granule.cont_span(level)
            mine = ((self.attrs & np.uint16(Attr.CONT)) != 0) & (self.level == level)
            # A change of attributes breaks a run as much as a hole, so each row stands for itself.
            start, end = self.start[mine] + skew, self.end[mine] + skew
            inner, outer = -(-start // unit) * unit, end // unit * unit
            whole = inner < outer
            inner, outer = np.where(whole, inner, end), np.where(whole, outer, end)
            found = found | (Ranges.of(start, inner) | Ranges.of(outer, end)).shift(-skew)
        return found

    # Removing: unmap_hotplug_range() and free_empty_tables().

    def clear(self, low: int, high: int) -> Ranges:
        """Clear every leaf that ``[low, high)`` touches, whole, and free the tables left empty: the offsets that go."""
        if high <= low:
            return EMPTY
        touched = (self.end > low) & (self.start < high) & self.present
        spans = np.array([self._span(level) for level in self.level[touched].tolist()], dtype=np.int64)
        skew = np.int64(self.base % MAX_SPAN) % spans
        start = (np.maximum(self.start[touched], low) + skew) // spans * spans - skew
        end = -(-(np.minimum(self.end[touched], high) + skew) // spans) * spans - skew
        gone = Ranges.of(start, end) - self._stepped_over(low, high)
        self._split(gone)
        inside = self._inside(gone)
        self.attrs[inside] = 0
        self.memtype[inside] = 0
        self._join()
        self._free_tables(low, high)
        return gone

    def _stepped_over(self, low: int, high: int) -> Ranges:
        """The last page of a range that begins inside of a page: unmap_hotplug_pte_range() steps by PAGE_SIZE.

        It begins again at each PMD entry, so only ranges under one are affected.
        """
        page, table = self._span(PTE), self._span(PMD)
        skew = self.base % table
        if (low + skew) // table != (high - 1 + skew) // table:
            return EMPTY
        reach = (low + skew) // page * page - skew + -(-(high - low) // page) * page
        return Ranges.one(reach, -(-(high + skew) // page) * page - skew)

    def _free_tables(self, low: int, high: int) -> None:
        """Tables under ``[low, high)`` that are empty and lie inside of the region."""
        for level in range(PTE, self.first_level, -1):
            slot = self._span(level - 1)
            skew = self.base % slot
            empty = ~self.present & (self.level == level)
            tables = Ranges.of(self.start[empty], self.end[empty]).shift(skew).shrink(slot)
            reached = Ranges.one(low + skew, high + skew).widen(slot)
            inside = Ranges.one(self.first + skew, self.size + skew).shrink(slot)
            free = (tables & reached & inside).shift(-skew)
            if free:
                self._split(free)
                self.level[self._inside(free)] = level - 1
                self._join()

    def lose(self, offsets: Ranges) -> None:
        """Entries that were seen to go, whatever took them: no table is freed."""
        self._split(offsets)
        inside = self._inside(offsets)
        self.attrs[inside] = 0
        self.memtype[inside] = 0
        self._join()

    # Adding.

    def populate(self, low: int, high: int, level: int, look: Look, *, table_is_done: bool) -> Ranges:
        """Map the struct pages ``[low, high)`` with leaves of ``level``: the offsets that are newly mapped.

        Base pages are stepped through by PAGE_SIZE from an address that need not be aligned, so the last page may
        be left out.  Where a table is found and a block was wanted, it is left as it is if ``table_is_done`` (before
        9ab2601dc4c1, v6.14); otherwise its empty entries are filled with pages.
        """
        unit = self._span(level)
        skew = self.base % unit
        wanted = Ranges.one(low + skew, high + skew).widen(unit).shift(-skew)
        if level == PTE:
            reach = (low + skew) // unit * unit - skew + -(-(high - low) // unit) * unit
            wanted = wanted & Ranges.one(wanted.start[0], reach)
        done = EMPTY
        if level != PTE:
            tables = self._holes(PTE, exactly=True).shift(skew).widen(unit).shift(-skew) & wanted
            wanted = wanted - tables
            if not table_is_done:
                done = self._fill(tables & Ranges.one(low, high), PTE, 0, look)
        return done | self._fill(wanted, level, int(Attr.BLOCK) if level != PTE else 0, look)

    def map_linear(self, low: int, high: int, look: Look, *, blocks: bool, runs: bool) -> None:
        """Map ``[low, high)`` with the largest leaves that fit, if ``blocks`` and contiguous ``runs`` are allowed."""
        granule = self.granule
        physical = self.start_pfn * granule.page_size - self.base
        rest = Ranges.one(low, high)
        sizes: list[tuple[int, int, int]] = []
        if blocks:
            sizes += [(PUD, granule.span(PUD), int(Attr.BLOCK))] if granule.page_shift == 12 else []
            sizes += [(PMD, granule.cont_span(PMD), int(Attr.BLOCK | Attr.CONT))] if runs else []
            sizes += [(PMD, granule.span(PMD), int(Attr.BLOCK))]
        sizes += [(PTE, granule.cont_span(PTE), int(Attr.CONT))] if runs else []
        for level, unit, size in (*sizes, (PTE, granule.page_size, 0)):
            if physical % unit:  # the virtual and the physical address have to be aligned
                continue
            skew = self.base % unit
            pieces = rest.shift(skew).shrink(unit).shift(-skew)
            self._fill(pieces, level, size, look)
            rest = rest - pieces

    def _fill(self, wanted: Ranges, level: int, size: int, look: Look) -> Ranges:
        """Map what is empty of ``wanted`` with leaves of ``level``, allocating tables on the way."""
        pieces = wanted & self._holes(level)
        if not pieces:
            return EMPTY
        for above in range(self.first_level, level):
            slot = self._span(above)
            skew = self.base % slot
            tables = pieces.shift(skew).widen(slot).shift(-skew)
            tables = tables & self._holes(above, exactly=True)
            self._split(tables)
            self.level[self._inside(tables) & ~self.present & (self.level == above)] = above + 1
        self._split(pieces)
        inside = self._inside(pieces)
        self.attrs[inside] = look.attrs | size
        self.memtype[inside] = look.memtype
        self.level[inside] = level
        self._join()
        return pieces

    def _holes(self, level: int, *, exactly: bool = False) -> Ranges:
        """Offsets of empty entries of ``level``, or also of those above."""
        at = (self.level == level) if exactly else (self.level <= level)
        empty = ~self.present & at
        return Ranges.of(self.start[empty], self.end[empty])

    # Rows.

    def _span(self, level: int) -> int:
        return min(self.granule.span(level), MAX_SPAN)

    def _inside(self, offsets: Ranges) -> Bool:
        return offsets.contains(self.start)

    def _split(self, offsets: Ranges) -> None:
        """Cut rows at the edges of ``offsets``."""
        cuts = distinct(np.concatenate((offsets.start, offsets.end)))
        row = np.searchsorted(self.end, cuts, side="right")
        row_start = np.append(self.start, np.iinfo(np.int64).max)[row]
        cuts, row = cuts[row_start < cuts], row[row_start < cuts]
        if not cuts.size:
            return
        old_start = self.start
        self.start = np.sort(np.concatenate((old_start, cuts)))
        source = np.searchsorted(old_start, self.start, side="right") - 1
        ends = np.concatenate((self.end, cuts))
        self.end = np.sort(ends)
        self.level, self.attrs, self.memtype = self.level[source], self.attrs[source], self.memtype[source]

    def _join(self) -> None:
        """Merge neighbours that are alike."""
        if self.start.size < 2:
            return
        alike = self.start[1:] == self.end[:-1]
        columns: tuple[NDArray[np.integer], ...] = (self.level, self.attrs, self.memtype)
        for column in columns:
            alike &= column[1:] == column[:-1]
        if not alike.any():
            return
        first = np.concatenate(([True], ~alike))
        last = np.concatenate((~alike, [True]))
        self.start, self.end = self.start[first], self.end[last]
        self.level, self.attrs, self.memtype = self.level[first], self.attrs[first], self.memtype[first]

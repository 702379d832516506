"""Whether what was read of a running kernel is of one moment, and what is left of it where it is not.

Memory can be added and removed while it is read.  The section table and the page tables that hotplug changes (every
level above pages, and the pages of vmemmap) are read a second time: what differs was in flux.  Everything is then read
again, a bounded number of times; what is still in flux is cut out, and is unknown as pages are that a dump lacks.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from parsers.errors import Diagnostic
from parsers.iomem import Iomem
from parsers.mapping import I64, U64, Bool
from parsers.ranges import Ranges
from parsers.records import dataclass
from parsers.vmcore.addresses import MASK, AddressMap
from parsers.vmcore.rows import BlockRows, SectionRows, SelfHostedRows, ZoneRows

if TYPE_CHECKING:
    from parsers.vmcore.extract import VmcoreFacts
    from parsers.vmcore.pagetable import Walk

__all__ = [
    "CHANGED",
    "Flux",
    "find_flux",
    "joined",
    "linear_map_of",
    "of_no_section",
    "struct_pages_of",
    "without_flux",
]

CHANGED = "memory came or went while it was read"
"""Why a fact about memory as a whole is left out."""
_FLAG_BITS = 6  # below the memmap pointer of a section, see parsers.vmcore.struct_pages
_MAX_NAMED = 8
_NOT_BY_ROW = frozenset({"zone_names", "unread"})
"""Members of `SelfHostedRows` that do not have one value a row."""

R = TypeVar("R", BlockRows, SelfHostedRows)


@dataclass(frozen=True, eq=False)
class Flux:
    """What changed while it was read."""

    sections: I64
    """Numbers of sections, ascending: all sections of a memory block of which one changed."""
    start: U64
    """Virtual addresses that page tables map differently, with the struct pages and linear map of ``sections``."""
    last: U64
    matters: bool
    """Whether hotplug may have done it: sections, struct pages or the linear map; vmalloc changes all the time."""

    @property
    def named(self) -> str:
        """The sections by number, the first ones of many; empty for none."""
        named = ", ".join(str(number) for number in self.sections[:_MAX_NAMED].tolist())
        more = self.sections.size - _MAX_NAMED
        return f"sections {named}{f' and {more} more' if more > 0 else ''}" if named else ""


def struct_pages_of(sections: SectionRows, size: int, page_size: int) -> tuple[U64, U64]:
    """First and last addresses of the struct pages of each section, of ``size`` bytes each."""
    per_section = (1 << sections.section_size_bits) // page_size
    memmap = sections.section_mem_map & ~np.uint64((1 << _FLAG_BITS) - 1)
    start = memmap + sections.section_nr * np.uint64(per_section * size)
    return start, start + np.uint64(per_section * size - 1)


def linear_map_of(sections: SectionRows, rows: Bool, addresses: AddressMap) -> tuple[U64, U64]:
    """First and last addresses of the linear map of the sections that ``rows`` chooses."""
    span = np.uint64(1 << sections.section_size_bits)
    at = sections.section_nr[rows] * span + np.uint64((addresses.page_offset - addresses.phys_offset) & MASK)
    return at, at + (span - np.uint64(1))


def find_flux(
    before: tuple[Walk, SectionRows | None],
    after: tuple[Walk, SectionRows | None],
    addresses: AddressMap,
    size: int,
    per_block: int = 1,
    moved: I64 | None = None,
    stale: tuple[U64, U64] | None = None,
) -> Flux:
    """What differs between two readings; the second walk may lack pages of the last level (`walk_page_tables`).

    ``size`` is that of a struct page in bytes, ``per_block`` the number of sections of a memory block: a block has one
    state, so that all its sections are in flux with one of them.  ``moved`` are sections in flux that look the same,
    and ``stale`` ranges of addresses (first, last) that are.
    """
    start, last = _different_rows(before[0], after[0])
    linear = (start >= np.uint64(addresses.page_offset)) & (start <= np.uint64((addresses.linear_end - 1) & MASK))
    matters, sections = bool(linear.any()), np.empty(0, dtype=np.int64)
    ranges = [(start, last)]
    if stale is not None and stale[0].size:
        matters = True
        ranges.append(stale)
    if before[1] is not None and after[1] is not None:
        sections = _different_sections(before[1], after[1], per_block, set() if moved is None else set(moved.tolist()))
        for rows in (before[1], after[1]):
            low, high = struct_pages_of(rows, size, addresses.granule.page_size)
            if low.size:
                matters |= bool(((last >= low.min()) & (start <= high.max())).any())
            mine = np.isin(rows.section_nr.astype(np.int64), sections)
            mine &= rows.section_mem_map >> np.uint64(_FLAG_BITS) != 0
            ranges.append((low[mine], high[mine]))
        span = np.uint64(1 << before[1].section_size_bits)
        at = sections.astype(np.uint64) * span + np.uint64((addresses.page_offset - addresses.phys_offset) & MASK)
        ranges.append((at, at + (span - np.uint64(1))))
    begin, end = (np.concatenate(column) for column in zip(*ranges, strict=True))
    order = np.argsort(begin, kind="stable")
    return Flux(sections, begin[order], end[order], matters or bool(sections.size))


def of_no_section(walk: Walk, sections: SectionRows | None, addresses: AddressMap, size: int) -> tuple[U64, U64] | None:
    """First and last addresses of what the linear map and the struct pages map for no section; None without sections.

    Of memory that was there while the page tables were read, or that left them behind: only a quiet kernel shows which.
    """
    if sections is None or not len(sections):
        return None
    at, at_last = linear_map_of(sections, np.ones(len(sections), dtype=np.bool_), addresses)
    struct_start, struct_last = struct_pages_of(sections, size, addresses.granule.page_size)
    has = sections.section_mem_map >> np.uint64(_FLAG_BITS) != 0
    known = joined(np.concatenate((at, struct_start[has])), np.concatenate((at_last, struct_last[has])))
    mapping = walk.mapping
    start, last = mapping.start[mapping.attrs != 0], mapping.last[mapping.attrs != 0]
    low, high = np.uint64(addresses.page_offset), np.uint64((addresses.linear_end - 1) & MASK)
    inside = (start >= low) & (start <= high)
    if has.any():
        memmap = int(sections.section_mem_map[has].min()) >> _FLAG_BITS << _FLAG_BITS  # of PFN 0, alike in all
        page, offset = addresses.granule.page_size, addresses.phys_offset
        first = memmap + (offset - (offset >> 63 << 64)) // page * size & MASK  # of the first page of the linear map
        length = (addresses.linear_end - addresses.page_offset) // page * size
        inside |= (start >= np.uint64(first)) & (start <= np.uint64(min(first + length, MASK)))
    return _minus(joined(start[inside], last[inside]), known) if inside.any() else None


def _different_rows(before: Walk, after: Walk) -> tuple[U64, U64]:
    """Where two walks map differently, as far as both looked."""
    mine, other = before.mapping, after.mapping
    ends = [column + np.uint64(1) for one in (mine, other) for column in (one.last, one.observed_last)]
    begin = np.unique(np.concatenate((mine.start, other.start, mine.observed_start, other.observed_start, *ends)))
    last = np.append(begin[1:], np.uint64(0)) - np.uint64(1)
    what = np.zeros(begin.size, dtype=np.bool_)
    for then, now in zip(_at(before, begin), _at(after, begin), strict=True):
        what |= then != now
    differ = _inside(begin, before) & _inside(begin, after) & what
    return begin[differ], last[differ]


def _at(walk: Walk, va: U64) -> tuple[U64, ...]:
    """What a walk says of addresses: level, attributes and output address; zeros where it has no row."""
    mapping = walk.mapping
    if not len(mapping):
        return tuple(np.zeros(va.size, dtype=np.uint64) for _ in range(3))
    row = np.maximum(np.searchsorted(mapping.start, va, side="right").astype(np.int64) - 1, 0)
    held = (va >= mapping.start[row]) & (va <= mapping.last[row])
    moves = ~walk.repeated[row] & (mapping.attrs[row] != 0)
    pa = np.zeros(va.size, np.uint64) if mapping.pa is None else mapping.pa[row]
    output = pa + np.where(moves, va - mapping.start[row], np.uint64(0))
    columns = (mapping.level[row].astype(np.uint64) + np.uint64(1), mapping.attrs[row].astype(np.uint64), output)
    return tuple(np.where(held, column, np.uint64(0)) for column in columns)


def _inside(va: U64, walk: Walk) -> Bool:
    """Which addresses a walk observed."""
    mapping = walk.mapping
    row = np.searchsorted(mapping.observed_start, va, side="right").astype(np.int64) - 1
    return (row >= 0) & (va <= mapping.observed_last[np.maximum(row, 0)])


def _different_sections(before: SectionRows, after: SectionRows, per_block: int, moved: set[int]) -> I64:
    """Numbers of the sections that differ or ``moved``, and of the others in their memory blocks."""

    def states(rows: SectionRows) -> dict[int, bytes]:
        words = np.column_stack((rows.section_mem_map, rows.usage, rows.subsections))
        return dict(zip(rows.section_nr.tolist(), [row.tobytes() for row in words], strict=True))

    then, now = states(before), states(after)
    changed = {number for number in then.keys() | now.keys() if then.get(number) != now.get(number)}
    blocks = {number // per_block for number in changed | moved}
    known = then.keys() | now.keys()
    return np.array(sorted({one for one in known if one // per_block in blocks} | moved), dtype=np.int64)


def without_flux(facts: VmcoreFacts, flux: Flux) -> VmcoreFacts:
    """The facts without what was in flux, which is unknown.

    Zones and resources are of all memory: they are left out where any of it may have come or gone.
    """
    if not flux.start.size and not flux.matters:
        return facts
    sections, struct_pages, blocks, self_hosted = facts.sections, facts.struct_pages, facts.blocks, facts.self_hosted
    if sections is not None and flux.sections.size:
        kept = ~np.isin(sections.section_nr.astype(np.int64), flux.sections)
        known = Ranges.of(sections.unknown_start.astype(np.int64), sections.unknown_end.astype(np.int64))
        unknown = known | Ranges.of(flux.sections, flux.sections + 1)
        if struct_pages is not None:
            number = struct_pages.pfn * facts.addresses.granule.page_size >> sections.section_size_bits
            stay = ~np.isin(number, flux.sections)
            struct_pages = replace(
                struct_pages, pfn=struct_pages.pfn[stay], va=struct_pages.va[stay], blank=struct_pages.blank[stay]
            )
        columns = (
            *("section_nr", "section_mem_map", "present", "has_memmap", "online", "early", "device"),
            *("subsections", "subsections_known", "usage", "pa"),
        )
        sections = replace(
            sections,
            **{name: getattr(sections, name)[kept] for name in columns},
            unknown_start=unknown.start.astype(np.uint64),
            unknown_end=unknown.end.astype(np.uint64),
        )
        # A block has the flags of its sections.
        blocks = None if blocks is None else _blocks_without(blocks, flux)
        if self_hosted is not None:
            unread = self_hosted.unread * facts.addresses.granule.page_size >> sections.section_size_bits
            self_hosted = _rows(self_hosted, ~np.isin(self_hosted.section_nr, flux.sections))
            self_hosted = replace(self_hosted, unread=self_hosted.unread[~np.isin(unread, flux.sections)])
    ranges = f"{flux.start.size} ranges of page tables" if flux.start.size else ""
    what = " and ".join(filter(None, (flux.named, ranges))) or "what is said of memory as a whole"
    said = f"in flux while it was read, so nothing is claimed of it: {what}"
    whole = {ZoneRows: CHANGED, Iomem: CHANGED} if flux.matters else {}
    return replace(
        facts,
        flux=flux,
        walk=_cut(facts.walk, flux.start, flux.last),
        sections=sections,
        struct_pages=struct_pages,
        blocks=blocks,
        self_hosted=self_hosted,
        zones=None if whole else facts.zones,
        iomem=None if whole else facts.iomem,
        unreadable={**facts.unreadable, **whole},
        diagnostics=(*facts.diagnostics, Diagnostic(said, facts.path)),
    )


def _blocks_without(blocks: BlockRows, flux: Flux) -> BlockRows:
    """The blocks that hold no section in flux."""
    number = blocks.start_section_nr.astype(np.int64) // blocks.sections_per_block
    stay = ~np.isin(number, flux.sections // blocks.sections_per_block)
    return replace(_rows(blocks, stay), in_flux=int((~stay).sum()))


def _rows(table: R, kept: Bool) -> R:
    """A table with the chosen rows; what has no value a row stays as it is."""
    chosen = np.flatnonzero(kept).tolist()
    changed: dict[str, Any] = {}
    for one in fields(table):
        column = getattr(table, one.name)
        if one.name in _NOT_BY_ROW:
            continue
        if isinstance(column, np.ndarray):
            changed[one.name] = column[kept]
        elif isinstance(column, tuple):
            changed[one.name] = tuple(column[row] for row in chosen)
    return replace(table, **changed)


def _cut(walk: Walk, start: U64, last: U64) -> Walk:
    """The walk without the given ranges, which are not observed."""
    mapping = walk.mapping
    if not start.size:
        return walk
    start, last = joined(start, last)
    places = np.unique(np.concatenate((start, last + np.uint64(1))))
    row = np.searchsorted(mapping.start, places, side="right").astype(np.int64) - 1
    inside = (row >= 0) & (places <= mapping.last[np.maximum(row, 0)]) if len(mapping) else np.zeros(0, np.bool_)
    begin = np.unique(np.concatenate((mapping.start, places[inside]))) if len(mapping) else mapping.start
    source = np.searchsorted(mapping.start, begin, side="right") - 1
    end = np.minimum(np.append(begin[1:], np.uint64(0)) - np.uint64(1), mapping.last[source])
    flux = np.searchsorted(start, begin, side="right").astype(np.int64) - 1
    keep = ~((flux >= 0) & (begin <= last[np.maximum(flux, 0)]))
    begin, end, source = begin[keep], end[keep], source[keep]
    repeated = walk.repeated[source]
    pa = mapping.pa
    if pa is not None:
        moved = np.where(repeated | (mapping.attrs[source] == 0), np.uint64(0), begin - mapping.start[source])
        pa = pa[source] + moved
    observed_start, observed_last = _minus((mapping.observed_start, mapping.observed_last), (start, last))
    return replace(
        walk,
        repeated=repeated,
        mapping=replace(
            mapping,
            start=begin,
            size=end - begin + np.uint64(1),
            level=mapping.level[source],
            attrs=mapping.attrs[source],
            memtype=mapping.memtype[source],
            pa=pa,
            observed_start=observed_start,
            observed_last=observed_last,
        ),
    )


def joined(start: U64, last: U64) -> tuple[U64, U64]:
    """Sorted ranges without overlaps."""
    if not start.size:
        return start, last
    order = np.argsort(start, kind="stable")
    start, reach = start[order], np.maximum.accumulate(last[order])
    first = np.concatenate((np.ones(1, np.bool_), start[1:] > reach[:-1]))
    begins = np.flatnonzero(first)
    return start[begins], reach[np.append(begins[1:], start.size) - 1]


def _minus(ranges: tuple[U64, U64], taken: tuple[U64, U64]) -> tuple[U64, U64]:
    """Inclusive ranges without others; both sorted and disjoint."""
    start, last = ranges
    begin = np.concatenate((start, taken[1] + np.uint64(1)))
    end = np.concatenate((last, taken[0] - np.uint64(1)))
    begin, end = np.sort(begin[(begin != 0) | (begin.size == 0)]), np.sort(end)

    def within(va: U64, low: U64, high: U64) -> Bool:
        row = np.searchsorted(low, va, side="right").astype(np.int64) - 1
        return (row >= 0) & (va <= high[np.maximum(row, 0)])

    begin = np.unique(begin[within(begin, start, last) & ~within(begin, *taken)])
    end = np.unique(end[within(end, start, last) & ~within(end, *taken)])
    return begin, end

"""From the words of a dump to Arm levels and observed ranges.

What a level word means changed (mm/ptdump.c, arch/arm64/mm/ptdump.c): up to 6.11 the words of folded levels were
replaced by ``PGD`` when the kernel was built, so a 512M block of a 64K/42-bit kernel is a ``PGD``; from 6.12 on
only holes get the word of the first level there.  4.9 and older print no word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import PMD, PTE, Attr, Granule, LevelWord, granule
from parsers.mapping import I8, U64, Bool, Mapping, Marker

if TYPE_CHECKING:
    from parsers.ptdump.table import PageTableDump

__all__ = ["to_mapping"]


def to_mapping(dump: PageTableDump, va_bits: int, page_size: int) -> Mapping:
    """See `PageTableDump.to_mapping`."""
    geometry = granule(page_size)
    bottom = np.uint64((1 << 64) - (1 << va_bits))
    start, size, skip = _without_first_line_bug(dump.start, dump.size, dump.attrs == 0, bottom)
    rows = slice(skip, None)
    breaks = dump.break_before[rows]
    observed_start, observed_last = _observed(start, size, breaks, dump.prints_holes)
    if not dump.prints_holes and _begins_at_the_bottom(dump):
        observed_start[0] = bottom
    return Mapping(
        start=start,
        size=size,
        level=_levels(dump, geometry, va_bits)[rows],
        attrs=dump.attrs[rows],
        memtype=dump.memtype[rows],
        line=dump.line[rows],
        observed_start=observed_start,
        observed_last=observed_last,
        source=dump.path,
        markers=tuple(Marker(each.name, max(0, each.row - skip), each.line) for each in dump.markers),
        quote=lambda row: dump.quote(row + skip),
    )


def _levels(dump: PageTableDump, geometry: Granule, va_bits: int) -> I8:
    """Arm levels: by word, not above the first level, and a block only where blocks can be."""
    first = geometry.first_level(va_bits)
    of_word = np.array([max(geometry.level_of(word, va_bits), first) for word in LevelWord], np.int8)
    level: I8 = of_word[dump.word]
    block = (dump.attrs & np.uint16(Attr.BLOCK)) != 0
    level[dump.word == LevelWord.NONE] = PTE
    level[block & (dump.word == LevelWord.NONE)] = PMD
    highest = max(min(geometry.block_levels()), first)
    level[block & (level < highest)] = highest
    return level


def _without_first_line_bug(start: U64, size: U64, hole: Bool, bottom: np.uint64) -> tuple[U64, U64, int]:
    """Clip a first hole from address 0 to the bottom of the kernel's half; how many rows to leave out (0 or 1).

    5.6 to 5.11 print it, because the level is not set before the first entry (mm/ptdump.c, fixed in 5.12).
    """
    if not start.size or start[0] != 0 or not hole[0] or size[0] < bottom:
        return start, size, 0
    if size[0] == bottom:
        return start[1:], size[1:], 1
    start, size = start.copy(), size.copy()
    start[0] = bottom
    size[0] -= bottom
    return start, size, 0


def _begins_at_the_bottom(dump: PageTableDump) -> bool:
    """Whether the walk up to the first row is complete: the first marker of the kernel's list precedes it.

    The list begins with the linear map since 5.4, with the modules or KASAN before; that a dump is so old shows in the
    name of the linear map's marker, which comes last then.
    """
    if not dump.markers or dump.markers[0].row > 0 or dump.break_before[0]:
        return False
    first, last = dump.markers[0].name, dump.markers[-1].name
    return first == "Linear Mapping start" or (
        first in {"Modules start", "Kasan shadow start"} and last == "Linear Mapping"
    )


def _observed(start: U64, size: U64, breaks: Bool, prints_holes: bool) -> tuple[U64, U64]:
    """First and last byte of each run of rows that leaves nothing out."""
    last = start + (size - np.uint64(1))
    ends_run = np.zeros(start.size, np.bool_)
    ends_run[1:] = breaks[1:]
    if prints_holes:
        ends_run[1:] |= start[1:] != last[:-1] + np.uint64(1)
    first_rows = np.flatnonzero(ends_run | (np.arange(start.size) == 0))
    return start[first_rows], last[np.append(first_rows[1:], start.size)[: first_rows.size] - 1]

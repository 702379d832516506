"""What a dump says, row by row, and the same with Arm levels once page size and address width are known.

What a level word means changed (mm/ptdump.c, arch/arm64/mm/ptdump.c): up to 6.11 the words of folded levels were
replaced by ``PGD`` when the kernel was built, so a 512M block of a 64K/42-bit kernel is a ``PGD``; from 6.12 on
only holes get the word of the first level there.  4.9 and older print no word.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import field
from typing import NamedTuple

import numpy as np

from parsers.arm64 import ATTRIBUTE_FIELDS, LEVEL_WORDS, PMD, PTE, Attr, Granule, LevelWord, MemType, granule
from parsers.errors import Diagnostic
from parsers.kept import Kept
from parsers.mapping import I8, I64, U8, U16, U32, U64, Bool, Mapping, Marker
from parsers.ptdump.pieces import PIECE_BYTES
from parsers.records import dataclass

__all__ = ["LineIndex", "PageTableDump", "UnknownWord", "WxLine"]

_QUOTE_LIMIT = 512
_NEWLINE = ord("\n")


@dataclass(frozen=True, slots=True)
class UnknownWord:
    """How often a word that no mainline kernel prints occurs, and the line of its first row."""

    count: int
    first_line: int


class WxLine(NamedTuple):
    """A line of the W+X check: ``text`` from ``Checked`` or ``arm64/mm:`` on."""

    line: int
    text: str


class LineIndex:
    """Where the lines of a text are: the first line of each piece, and all lines of the piece asked for last."""

    def __init__(self, text: Kept) -> None:
        self._text = text
        self._first: list[int] = []
        self._offset: list[int] = []
        self._at = -1
        self._piece = b""
        self._starts: I64 = np.empty(0, np.int64)

    def add(self, first_line: int, offset: int) -> None:
        """Note the next piece of the text: the number of its first line and where it begins."""
        self._first.append(first_line)
        self._offset.append(offset)

    def line(self, number: int, limit: int) -> bytes | None:
        """Line ``number`` (1-based) of the text, at most ``limit`` bytes of it; None if the text is gone."""
        at = bisect_right(self._first, number) - 1
        if at != self._at:
            begin, end = self._offset[at], [*self._offset[at + 1 : at + 2], self._text.size][0]
            self._piece = self._text.read(begin, min(end - begin, PIECE_BYTES))
            newlines = np.flatnonzero(np.frombuffer(self._piece, np.uint8) == _NEWLINE)
            self._at, self._starts = at, np.concatenate(([0], newlines + 1))
        if not self._piece:
            return None
        start = int(self._starts[number - self._first[at]])
        stop = self._piece.find(b"\n", start, start + limit)
        return self._piece[start : start + limit if stop < 0 else stop]


@dataclass(frozen=True, eq=False, kw_only=True)
class PageTableDump:
    """One row a range line, in ascending order of ``start``; no two rows overlap."""

    path: str
    start: U64
    size: U64
    """Bytes; ``start`` + ``size`` may be 2**64."""
    word: U8
    """`parsers.arm64.LevelWord` as printed."""
    attrs: U16
    """`parsers.arm64.Attr` bits; 0 for a hole."""
    memtype: U8
    """`parsers.arm64.MemType`."""
    line: U32
    """1-based line in the file."""
    break_before: Bool
    """Something between this row and the one before, or the top of the file, may have been lost."""
    markers: tuple[Marker, ...]
    prints_holes: bool
    """Holes are rows (mm/ptdump.c, since 5.6); otherwise they are jumps between rows."""
    inclusive_end: bool
    """Ends are printed as last bytes: not a mainline kernel."""
    wx_check: tuple[WxLine, ...]
    unknown_words: dict[str, UnknownWord]
    diagnostics: tuple[Diagnostic, ...]
    only_rows: bool
    """The text has nothing but rows and markers as the kernel prints them; the last row may be cut."""
    line_index: LineIndex = field(repr=False)
    """Where the lines of the text are."""

    def __len__(self) -> int:
        return int(self.start.size)

    def quote(self, row: int) -> str:
        """The line of row number ``row`` as it is in the file, without its line end.

        It is written out where the file was written to since it was read.
        """
        text = self.line_index.line(int(self.line[row]), _QUOTE_LIMIT)
        return self._describe(row) if text is None else text.decode("utf-8", "backslashreplace").rstrip("\r")

    def _describe(self, row: int) -> str:
        start, size, attrs = int(self.start[row]), int(self.size[row]), int(self.attrs[row])
        words = [f"{start:#018x}-{(start + size) % (1 << 64):#018x} {size >> 10}K", LEVEL_WORDS[self.word[row]]]
        if attrs:
            words += [each.word(attrs) for each in ATTRIBUTE_FIELDS]
            words.append(MemType(int(self.memtype[row])).name)
        return " ".join(filter(None, words))

    def to_mapping(self, va_bits: int, page_size: int) -> Mapping:
        """The rows with Arm levels, for a kernel with ``va_bits`` in use and pages of ``page_size`` bytes.

        ValueError where Arm has no such page size.  ``observed`` is what the rows cover where holes are printed, else
        each run of rows without a break, from its first to its last byte; the first run begins at the bottom of the
        kernel's half where the dump begins with the first marker.
        """
        geometry = granule(page_size)
        bottom = np.uint64((1 << 64) - (1 << va_bits))
        start, size, skip = _without_first_line_bug(self.start, self.size, self.attrs == 0, bottom)
        rows = slice(skip, None)
        breaks = self.break_before[rows]
        observed_start, observed_last = _observed(start, size, breaks, self.prints_holes)
        if not self.prints_holes and _begins_at_the_bottom(self):
            observed_start[0] = bottom
        return Mapping(
            start=start,
            size=size,
            level=_levels(self, geometry, va_bits)[rows],
            attrs=self.attrs[rows],
            memtype=self.memtype[rows],
            line=self.line[rows],
            observed_start=observed_start,
            observed_last=observed_last,
            source=self.path,
            markers=tuple(Marker(each.name, max(0, each.row - skip), each.line) for each in self.markers),
            quote=lambda row: self.quote(row + skip),
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

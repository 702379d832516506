"""What a dump says, row by row, before anything is concluded from page size and address width."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from parsers.errors import Diagnostic
from parsers.mapping import U8, U16, U32, U64, Bool, Mapping, Marker
from parsers.ptdump.blocks import LineIndex
from parsers.ptdump.levels import to_mapping

__all__ = ["PageTableDump", "UnknownWord", "WxLine"]

_QUOTE_LIMIT = 512


@dataclass(frozen=True, slots=True)
class UnknownWord:
    """How often a word that no mainline kernel prints occurs, and the line of its first row."""

    count: int
    first_line: int


class WxLine(NamedTuple):
    """A line of the W+X check: ``text`` from ``Checked`` or ``arm64/mm:`` on."""

    line: int
    text: str


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
    data: bytes = field(repr=False)
    """The whole text."""
    line_index: LineIndex = field(repr=False)
    """Where the lines of ``data`` are."""

    def __len__(self) -> int:
        return int(self.start.size)

    def quote(self, row: int) -> str:
        """The line of row number ``row`` as it is in the file, without its line end."""
        text = self.line_index.line(self.data, int(self.line[row]), _QUOTE_LIMIT)
        return text.decode("utf-8", "backslashreplace").rstrip("\r")

    def to_mapping(self, va_bits: int, page_size: int) -> Mapping:
        """The rows with Arm levels, for a kernel with ``va_bits`` in use and pages of ``page_size`` bytes.

        ValueError where Arm has no such page size.  ``observed`` is what the rows cover where holes are printed, else
        each run of rows without a break, from its first to its last byte; the first run begins at the bottom of the
        kernel's half where the dump begins with the first marker.
        """
        return to_mapping(self, va_bits, page_size)

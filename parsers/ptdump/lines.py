"""One line at a time: markers, W+X results, rows out of the kernel's columns and what is wrong with them."""

from __future__ import annotations

import re

from parsers.expressions import expression
from parsers.ptdump.columns import SIZE_UNITS
from parsers.records import dataclass

__all__ = ["LINE_LIMIT", "BadRow", "MarkerLine", "RowLine", "WxText", "read_line"]

LINE_LIMIT = 512
"""Longest line that is looked at; the longest row has some 130 characters, prefixes some 60."""

_TOP = 1 << 64

# What mailers, consoles, loggers and people put before a line.
_PREFIX = expression(
    rb"(?:\s+|[>|+]|<\d{1,3}>|\[\s*\d+\.\d+\]|\[\s*[TC]\d+\]"
    rb"|\w{3} [ \d]\d \d\d:\d\d:\d\d |\d{4}-\d\d-\d\dT[\d:.,+Z-]+ |[\w.-]+ kernel: ?|kernel: ?"
    rb"|\xef\xbb\xbf|\x1b\[[\d;]*m)*"
)
_ROW = expression(
    rb"(?<![\w\[(=.-])(?:0x)?([0-9a-fA-F]{16})-(?:0x)?([0-9a-fA-F]{16})\s+(\d{1,20})([BKMGTPE])(?=\s|$)(.*)"
)
_LIKE_A_ROW = expression(
    rb"0x[0-9a-fA-F]{4}|[0-9a-fA-F]{8,16}\s?-\s?(?:0x)?[0-9a-fA-F]{4}|\S*\s+\d+[KMGTPE]\s+P[GU4MT][DE]\b"
)
_DAMAGED = expression(rb"(?:0x)?[0-9a-fA-F]*(?:-(?:0x)?[0-9a-fA-F]*)?")
_ADDRESSES = expression(rb"(0x)?[0-9a-fA-F]{16}-(0x)?[0-9a-fA-F]{16}(?![0-9a-fA-F])")
_MARKER = expression(rb"---\[ ([^\]]{1,80}) \]---")
_OOPS_TEXT = (b"cut here", b"end trace", b"end Kernel panic")
_WX = expression(rb"Checked W\+X mappings: .*|(?:arm64/mm: )?Found (?:insecure W\+X|non-UXN) mapping at .*")


@dataclass(frozen=True, slots=True)
class MarkerLine:
    """``---[ name ]---``."""

    name: str

    @property
    def printed(self) -> bytes:
        """The line as the kernel prints it."""
        return f"---[ {self.name} ]---".encode()


@dataclass(frozen=True, slots=True)
class WxText:
    """A line that the W+X check prints."""

    text: str


@dataclass(frozen=True, slots=True)
class RowLine:
    """A row; ``inclusive`` where its size says that the printed end is its last byte."""

    start: int
    size: int
    inclusive: bool
    tail: bytes
    tail_column: int


@dataclass(frozen=True, slots=True)
class BadRow:
    """A line that wants to be a row and cannot be read; ``column`` counts from 1."""

    message: str
    column: int


def read_line(line: bytes) -> RowLine | MarkerLine | WxText | BadRow | None:
    """What ``line`` is; None for text that has nothing to do with a dump."""
    if row := _ROW.search(line):
        return _read_row(row)
    if b"---[" in line and (marker := _MARKER.search(line)):
        if marker[1].startswith(_OOPS_TEXT):
            return None
        return MarkerLine(marker[1].decode("ascii", "backslashreplace"))
    if (b"W+X" in line or b"non-UXN" in line) and (check := _WX.search(line)):
        return WxText(check[0].decode("ascii", "backslashreplace").rstrip())
    prefix = _PREFIX.match(line)
    begin = prefix.end() if prefix else 0
    if _LIKE_A_ROW.match(line, begin):
        return _bad_row(line, begin)
    return None


def _read_row(row: re.Match[bytes]) -> RowLine | BadRow:
    start, end = int(row[1], 16), int(row[2], 16)
    size = int(row[3]) << 10 * SIZE_UNITS.index(row[4])
    exclusive_end = end or _TOP
    if 0 < size < _TOP and size in (exclusive_end - start, end + 1 - start):
        return RowLine(start, size, inclusive=size != exclusive_end - start, tail=row[5], tail_column=row.start(5) + 1)
    if exclusive_end <= start:
        return BadRow(f"the range ends at {end:#x}, before it starts", row.start(2) + 1)
    printed = f"{row[3].decode()}{row[4].decode()}"
    return BadRow(f"the size {printed} is not what lies between the addresses", row.start(3) + 1)


def _bad_row(line: bytes, begin: int) -> BadRow:
    addresses = _ADDRESSES.match(line, begin)
    if addresses:
        return BadRow("no size with a unit after the addresses", addresses.end() + 1)
    damaged = _DAMAGED.match(line, begin)
    return BadRow("not two addresses of 16 hexadecimal digits", (damaged.end() if damaged else begin) + 1)

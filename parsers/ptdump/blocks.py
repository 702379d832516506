"""A text cut into blocks of whole lines, so that memory stays bounded whatever its size."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from parsers.mapping import I64, U8
from parsers.ptdump.columns import WINDOW

__all__ = ["BLOCK_BYTES", "Block", "LineIndex", "blocks"]

BLOCK_BYTES = 1 << 20
"""Large enough to drown the cost of a numpy call, small enough for its arrays to stay in the cache."""

_NEWLINE, _RETURN = b"\n\r"

# What some vendors append: the symbol differs from row to row and is not an attribute.
_CALLER = re.compile(rb"(?<=\tcaller:)[^\r\n]+")


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines: line ``i`` is ``text[starts[i]:stops[i]]``, without its line end.

    ``text`` is ``raw`` as an array that goes on for ``WINDOW`` bytes after the last line.
    """

    raw: bytes
    text: U8
    first_line: int
    offset: int
    starts: I64
    stops: I64
    ends_with_newline: bool

    def line(self, index: int, limit: int) -> bytes:
        """Line number ``index`` of this block, at most ``limit`` bytes of it."""
        start = int(self.starts[index])
        return self.raw[start : min(int(self.stops[index]), start + limit)]


def blocks(data: bytes) -> Iterator[Block]:
    """All lines of ``data``, in blocks of about ``BLOCK_BYTES``; a line longer than that is a block without text."""
    offset, line = 0, 1
    while offset < len(data):
        stop = min(offset + BLOCK_BYTES, len(data))
        if stop < len(data):
            stop = data.rfind(b"\n", offset, stop) + 1
        if stop == 0:
            newline = data.find(b"\n", offset + BLOCK_BYTES)
            stop = len(data) if newline < 0 else newline + 1
            nothing = np.zeros(1, np.int64)
            yield Block(b"", np.zeros(WINDOW, np.uint8), line, offset, nothing, nothing, newline >= 0)
            line += 1
        else:
            block = _block(data[offset:stop], line, offset)
            yield block
            line += block.starts.size
        offset = stop


def _block(raw: bytes, line: int, offset: int) -> Block:
    if b"\xa0" in raw:  # non-breaking blanks, in UTF-8 or Latin-1, as web pages and mailers leave them
        raw = raw.replace(b"\xc2\xa0", b" ").replace(b"\xa0", b" ")
    if b"\tcaller:" in raw:
        raw = _CALLER.sub(b"", raw)
    text = np.frombuffer(raw + bytes(WINDOW), np.uint8)
    stops = np.flatnonzero(text[: len(raw)] == _NEWLINE)
    ends_with_newline = raw.endswith(b"\n")
    if not ends_with_newline:
        stops = np.append(stops, len(raw))
    starts = np.empty_like(stops)
    starts[0] = 0
    starts[1:] = stops[:-1] + 1
    if b"\r" in raw:
        for _ in range(2):  # serial consoles end lines with two
            stops = stops - ((text[stops - 1] == _RETURN) & (stops > starts))
    return Block(raw, text, line, offset, starts, stops, ends_with_newline)


class LineIndex:
    """Where the lines of a text are: the first one of each block, and all of the block that was asked for last."""

    def __init__(self) -> None:
        self._first: list[int] = []
        self._offset: list[int] = []
        self._block = -1
        self._starts: I64 = np.empty(0, np.int64)

    def add(self, block: Block) -> None:
        """Note the next block of the text."""
        self._first.append(block.first_line)
        self._offset.append(block.offset)

    def line(self, data: bytes, number: int, limit: int) -> bytes:
        """Line ``number`` (1-based) of the text, ``data``; at most ``limit`` bytes of it."""
        block = bisect_right(self._first, number) - 1
        if block != self._block:
            begin, end = self._offset[block], [*self._offset[block + 1 : block + 2], len(data)][0]
            newlines = np.flatnonzero(np.frombuffer(data, np.uint8, end - begin, begin) == _NEWLINE)
            self._block, self._starts = block, np.concatenate(([begin], newlines + (begin + 1)))
        start = int(self._starts[number - self._first[block]])
        stop = data.find(b"\n", start, start + limit)
        return data[start : start + limit if stop < 0 else stop]

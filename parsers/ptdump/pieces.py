"""A text in pieces of whole lines, each with some bytes after it: of a file, one piece is in memory at a time."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from parsers.errors import InputError
from parsers.kept import Kept
from parsers.ptdump.columns import WINDOW

__all__ = ["PIECE_BYTES", "Each", "Piece", "Text"]

PIECE_BYTES = 1 << 20
"""Large enough to drown the cost of a numpy call, small enough for its arrays to stay in the cache."""
_OVERLAP = 8192
"""Longer than any row."""

Each = Callable[[memoryview], object]
"""What is called with the bytes of a file, in order, as they are read."""


class Piece(NamedTuple):
    """Whole lines, or a single one of more than `PIECE_BYTES`, of which ``raw`` is None."""

    offset: int
    """In the text."""
    raw: bytes | bytearray | None
    """The lines are at ``at``, ``size`` bytes of them, and `WINDOW` more bytes can be read: zeros at the end of the
    text.  Those of a file are overwritten when the next piece is read."""
    at: int
    size: int


class Text:
    """Bytes in memory, or in a file that is read piece by piece; InputError if that cannot be opened."""

    def __init__(self, data: bytes | None, path: str = "", each: Each | None = None) -> None:
        self.kept = Kept(data, path)
        if (error := self.kept.error) is not None:
            raise InputError(error.strerror or str(error), path=path) from error
        self._data, self._path, self._each = data, path, each

    @property
    def size(self) -> int:
        """Bytes."""
        return self.kept.size

    def head(self, size: int) -> bytes:
        """The first bytes."""
        return self.kept.read(0, size)

    def pieces(self) -> Iterator[Piece]:
        """The whole text; InputError where the file cannot be read."""
        return self._of_memory(self._data) if self._data is not None else self._of_file()

    def _of_memory(self, data: bytes) -> Iterator[Piece]:
        offset = 0
        while offset < len(data):
            stop = min(offset + PIECE_BYTES, len(data))
            if stop < len(data):
                stop = data.rfind(b"\n", offset, stop) + 1
            if stop == 0:
                stop = data.find(b"\n", offset + PIECE_BYTES) + 1 or len(data)
                yield Piece(offset, None, 0, stop - offset)
            elif stop + WINDOW > len(data):
                yield Piece(offset, data[offset:stop] + bytes(WINDOW), 0, stop - offset)
            else:
                yield Piece(offset, data, offset, stop - offset)
            offset = stop

    def _of_file(self) -> Iterator[Piece]:
        room = bytearray(PIECE_BYTES + WINDOW)
        offset = 0
        while filled := self._fill(room, offset):
            stop = min(filled, PIECE_BYTES)
            if filled > PIECE_BYTES:
                stop = room.rfind(b"\n", 0, stop) + 1
            if stop == 0:
                end = self._end_of_line(room, offset)
                yield Piece(offset, None, 0, end - offset)
                offset = end
                continue
            room[filled:] = bytes(len(room) - filled)
            if self._each is not None:
                self._each(memoryview(room)[:stop])
            yield Piece(offset, room, 0, stop)
            offset += stop

    def _end_of_line(self, room: bytearray, offset: int) -> int:
        """Where the line at ``offset`` ends, which is longer than a piece."""
        skip = PIECE_BYTES
        while filled := self._fill(room, offset):
            filled = min(filled, PIECE_BYTES)
            end = room.find(b"\n", skip, filled) + 1 or filled
            skip = 0
            if self._each is not None:
                self._each(memoryview(room)[:end])
            offset += end
            if end < filled or room[end - 1] == ord("\n"):
                break
        return offset

    def _fill(self, room: bytearray, offset: int) -> int:
        """Read from an offset on as much as there is room for; how much that was."""
        view, filled = memoryview(room), 0
        wanted = min(len(room), self.size - offset)
        try:
            while filled < wanted and (got := os.preadv(self.kept.descriptor, [view[filled:wanted]], offset + filled)):
                filled += got
        except OSError as error:
            raise InputError(error.strerror or str(error), path=self._path) from error
        return filled

    def holds(self, pattern: re.Pattern[bytes], start: int) -> bool:
        """Whether a pattern of at most one row matches anywhere from ``start`` on."""
        if self._data is not None:
            return pattern.search(self._data, start) is not None
        room = bytearray(PIECE_BYTES + _OVERLAP)
        while filled := self._fill(room, start):
            found = pattern.search(room, 0, filled)
            if found is not None and (found.end() < filled or start + filled >= self.size):
                return True
            start += min(filled, PIECE_BYTES)
        return False

"""Bytes of a dump file by offset: of a plain file, or of one that makedumpfile or QEMU wrote as a stream.

A flattened file is a row of pieces (offset, size, data), and later pieces overwrite earlier ones (``IMPLEMENTATION`` of
makedumpfile; QEMU's ``dump/dump.c``, 7.2).  Files are read with pread and never mapped: one that is cut while it is
read gives fewer bytes, where a mapping would end the process with SIGBUS.
"""

from __future__ import annotations

import heapq
import os
import struct
import weakref
from array import array
from typing import BinaryIO

import numpy as np

from parsers.errors import FormatError, InputError
from parsers.mapping import I64
from parsers.progress import Step, step

__all__ = ["FLAT_MAGIC", "Flattened", "PlainFile"]

FLAT_MAGIC = b"makedumpfile\0\0\0\0"

_FLAT_HEADER_SIZE = 4096
_PIECE = struct.Struct(">qq")
_FREE_PIECES = 1 << 16
_LEAST_PIECE = 1024  # bytes that pieces have on average: both writers gather pages before they write
_MAX_OFFSET = 1 << 62


class PlainFile:
    """A file that is read at offsets."""

    truncated = False

    def __init__(self, stream: BinaryIO, path: str) -> None:
        self._fd = os.dup(stream.fileno())
        weakref.finalize(self, os.close, self._fd)
        self._path = path

    @property
    def size(self) -> int:
        """Bytes of the file, now."""
        return os.fstat(self._fd).st_size

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes at ``offset``, fewer where the file ends; InputError where it cannot be read."""
        if size <= 0 or not 0 <= offset < _MAX_OFFSET:
            return b""
        try:
            data = os.pread(self._fd, size, offset)
            while 0 < len(data) < size and (more := os.pread(self._fd, size - len(data), offset + len(data))):
                data += more
        except OSError as error:
            raise InputError(f"cannot read: {error.strerror}", path=self._path, offset=offset) from error
        return data


class Flattened:
    """The file that a stream of pieces stands for.

    Raises FormatError for a damaged piece, and for more pieces than a file of its size can have.
    """

    def __init__(self, file: PlainFile, path: str) -> None:
        self._file = file
        self.truncated = True
        with step(f"looking for the pieces of {path}", file.size) as progress:
            columns = self._find(path, progress)
        start, size_of, place_of = (np.array(column, dtype=np.int64) for column in columns)
        self._start, self._size, self._place = _without_overlaps(start, size_of, place_of)

    def _find(self, path: str, progress: Step) -> tuple[array[int], array[int], array[int]]:
        """Offset and size of each piece, and where its data is, in the order of the file."""
        offsets, sizes, places = array("q"), array("q"), array("q")
        place, end = _FLAT_HEADER_SIZE, self._file.size
        most = _FREE_PIECES + end // _LEAST_PIECE
        while len(head := self._file.read(place, _PIECE.size)) == _PIECE.size:
            offset, size = _PIECE.unpack(head)
            if offset == -1:
                self.truncated = False
                break
            if not 0 <= offset < _MAX_OFFSET or not 0 < size < _MAX_OFFSET:
                raise FormatError("damaged piece header in a flattened dump", path=path, offset=place)
            if len(offsets) >= most:
                raise FormatError(f"a flattened dump of more than {most} pieces", path=path, offset=place)
            place += _PIECE.size
            if place >= end:
                break
            offsets.append(offset)
            sizes.append(min(size, end - place))
            places.append(place)
            place += size
            progress.reach(place)
        return offsets, sizes, places

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes at ``offset``, zeros between pieces, fewer where the last piece ends."""
        if size <= 0 or not 0 <= offset < _MAX_OFFSET:
            return b""
        first = max(int(np.searchsorted(self._start, offset, side="right")) - 1, 0)
        last = int(np.searchsorted(self._start, offset + size))
        rows = slice(first, last)
        begin = np.maximum(self._start[rows], offset)
        until = np.minimum(self._start[rows] + self._size[rows], offset + size)
        place = self._place[rows] + begin - self._start[rows]
        parts, at = [], offset
        for start, stop, where in zip(begin.tolist(), until.tolist(), place.tolist(), strict=True):
            if stop <= start:
                continue
            data = self._file.read(where, stop - start)
            parts += [bytes(start - at), data]
            at = start + len(data)
            if at < stop:
                break
        return b"".join(parts)


def _without_overlaps(start: I64, size: I64, place: I64) -> tuple[I64, I64, I64]:
    """The pieces in ascending order, each byte from the last piece that has it."""
    order = np.argsort(start, kind="stable")
    start, size, place = start[order], size[order], place[order]
    if start.size < 2:
        return start, size, place
    reach = np.maximum.accumulate(start + size)
    group = np.cumsum(np.append(False, start[1:] >= reach[:-1]))
    alone = np.bincount(group)[group] == 1
    rows = np.flatnonzero(~alone)
    if not rows.size:
        return start, size, place
    cut = _cut(start[rows].tolist(), size[rows].tolist(), place[rows].tolist())
    columns = [np.append(one[alone], more) for one, more in zip((start, size, place), cut.T, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    return columns[0][order], columns[1][order], columns[2][order]


def _cut(start: list[int], size: list[int], place: list[int]) -> I64:
    """Rows (start, size, place) of overlapping pieces, sorted by start, without what later pieces overwrite.

    Later in the file is later written.
    """
    rows: list[tuple[int, int, int]] = []
    open_now: list[tuple[int, int, int]] = []  # (-place, start, end): the latest first

    def emit(begin: int, end: int) -> None:
        """What is seen of the open pieces from ``begin`` to ``end``."""
        while open_now and begin < end:
            latest, first, stop = open_now[0]
            if stop <= begin:
                heapq.heappop(open_now)
                continue
            rows.append((begin, min(stop, end) - begin, begin - first - latest))
            begin = min(stop, end)

    for number, begin in enumerate(start):
        if number:
            emit(start[number - 1], begin)
        heapq.heappush(open_now, (-place[number], begin, begin + size[number]))
    emit(start[-1], _MAX_OFFSET << 1)
    return np.array(rows, dtype=np.int64).reshape(-1, 3)

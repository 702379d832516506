"""Page tables that map one run of pages, kept as numbers: the linear map of 1 TiB is 2 GiB of them.

A small core holds such pages of 4096 bytes in a separate note instead of PT_LOADs: runs of page frames, each with its
first word; every further word is the one before it and a page.
"""

from __future__ import annotations

import struct

import numpy as np

from parsers.errors import Diagnostic, FormatError
from parsers.mapping import U8, U64, Bool
from parsers.vmcore.memory import UNIT, PhysicalMemory

__all__ = ["NOTE_NAME", "RegularMemory", "find_regular", "pack_regular"]

NOTE_NAME = b"PTAUDIT\0"
_HEADER = struct.Struct("<QQ")  # bytes of a page, number of runs
_WORDS = UNIT // 8
_MAX_UNITS = 1 << 28  # a linear map of 512 TiB


def find_regular(data: U8, page_size: int) -> Bool:
    """Which pages of 4096 bytes, ``(n, 4096)``, are descriptors of one run of pages."""
    words: U64 = data.view("<u8")
    regular = words[:, 0] & np.uint64(3) == 3
    rows = np.flatnonzero(regular)
    some = words[rows]
    regular[rows] = (some[:, 1:] == some[:, :-1] + np.uint64(page_size)).all(axis=1)
    return np.asarray(regular, dtype=np.bool_)


def pack_regular(units: U64, first: U64, page_size: int) -> bytes:
    """Content of the note: page frames of 4096 bytes, ascending, and the first word of each."""
    step = np.uint64(_WORDS * page_size)
    follows = (np.diff(units) == 1) & (first[1:] == first[:-1] + step)
    begin = np.concatenate((np.zeros(1, np.int64), np.flatnonzero(~follows) + 1))
    count = np.diff(np.append(begin, units.size)).astype(np.uint64)
    runs = np.column_stack((units[begin], first[begin], count)).astype("<u8")
    return _HEADER.pack(page_size, begin.size) + runs.tobytes()


class RegularMemory(PhysicalMemory):
    """Another memory, and the pages that a note describes; FormatError for a note that cannot be."""

    def __init__(self, memory: PhysicalMemory, note: bytes, path: str) -> None:
        self._memory = memory
        if len(note) < _HEADER.size:
            raise FormatError("the note of page tables is cut short", path=path)
        page_size, number = _HEADER.unpack_from(note)
        if page_size not in (4096, 16384, 65536) or not 0 < number <= (len(note) - _HEADER.size) // 24:
            raise FormatError("the note of page tables is damaged", path=path)
        runs = np.frombuffer(note, dtype="<u8", count=3 * number, offset=_HEADER.size).reshape(-1, 3).astype(np.uint64)
        self._unit, self._word, self._count = runs[:, 0], runs[:, 1], runs[:, 2]
        ends = self._unit + self._count
        ordered = (self._unit[1:] >= ends[:-1]).all() and (self._count > 0).all() and (self._count < _MAX_UNITS).all()
        if not ordered or int(ends[-1]) > 1 << 40:
            raise FormatError("the note of page tables is damaged", path=path)
        self._page_size = np.uint64(page_size)
        self.concurrent = memory.concurrent

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        return self._memory.diagnostics

    @property
    def extents(self) -> tuple[U64, U64]:
        starts, ends = self._memory.extents
        size = np.uint64(UNIT)
        start, end = np.append(starts, self._unit * size), np.append(ends, (self._unit + self._count) * size)
        order = np.argsort(start, kind="stable")
        return start[order], end[order]

    def read_units(self, units: U64) -> tuple[U8, Bool]:
        data, present = self._memory.read_units(units)
        row = np.maximum(np.searchsorted(self._unit, units, side="right").astype(np.int64) - 1, 0)
        inside = units - self._unit[row]
        mine = np.flatnonzero((units >= self._unit[row]) & (inside < self._count[row]) & ~present)
        if mine.size:
            number = inside[mine, None] * np.uint64(_WORDS) + np.arange(_WORDS, dtype=np.uint64)
            words = self._word[row[mine], None] + number * self._page_size
            data[mine] = words.astype("<u8").view(np.uint8)
            present[mine] = True
        return data, present

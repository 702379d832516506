"""One kdump file: which blocks it has, where they are, and what is in them.

Blocks that follow each other in the file are read at once, and unpacked one after the other.
"""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from parsers.errors import Diagnostic, FormatError, InputError
from parsers.mapping import I64, U8, U64, Bool
from parsers.vmcore.bitmap import Bitmap
from parsers.vmcore.page_codecs import PACKED, Codecs

if TYPE_CHECKING:
    from parsers.vmcore.kdump import Header

__all__ = ["MAX_BLOCK_SIZE", "Descriptors", "KdumpFile"]

MAX_BLOCK_SIZE = 1 << 16
"""The greatest page of arm64, which is also what hypervisors write."""
_MAX_BITMAP = 1 << 30
_GAP = 128  # descriptors that are read and not used, rather than read apart
_GAP_BYTES = 16 << 10  # the same for blocks: bytes
_RUN_BYTES = 1 << 20
_MAX_PACKED = 2 * MAX_BLOCK_SIZE
_MAX_PROBLEMS = 16  # kinds of damage that are counted apart
_DESCRIPTOR = np.dtype([("offset", "<u8"), ("size", "<u4"), ("flags", "<u4"), ("page_flags", "<u8")])
Descriptors = NDArray[np.void]
_BITMAP_STEP = 1 << 18
_MAX_EDGES = 1 << 20
_BEYOND = 0xFFFF_FFFF
"""In place of the flags of a descriptor that the file does not hold."""


class _Run(NamedTuple):
    """Blocks with the same flags that are near each other in the file, ascending."""

    rows: slice
    """Which of the blocks that were asked for."""
    begins: list[int]
    """Where each begins, counted from ``offset``."""
    ends: list[int]
    offset: int
    length: int
    flags: int
    fit: bool
    """Whether the descriptors can be right."""


class KdumpFile:
    """One kdump file: which blocks it has, and how to get them."""

    def __init__(self, header: Header, path: str) -> None:
        self.header = header
        self._path = path
        self._problems: dict[str, int] = {}
        self._lock, self._of_thread = threading.Lock(), threading.local()
        size = header.block_size
        half = header.bitmap_blocks // 2 * size
        base = (1 + header.sub_hdr_size) * size
        if half > _MAX_BITMAP or half * 8 < header.max_mapnr:
            raise FormatError("bitmap size and page count disagree", path=path, offset=base)
        self._bitmap = Bitmap(header.reader, base + half, -(-header.max_mapnr // 64) * 8, path)
        self._descriptors = base + header.bitmap_blocks * size
        # A split file describes only its own share of the bitmap that all files repeat.
        self._first, self._end = 0, header.max_mapnr
        self._skipped = np.uint64(0)
        if header.split:
            self._first, self._end = header.start_pfn, min(header.end_pfn, header.max_mapnr)
            known = min(self._first, self._bitmap.bits - 1)
            self._skipped = self._bitmap.look(np.array([known], dtype=np.uint64))[1][0]

    def listed(self) -> tuple[U64, U64]:
        """Blocks in the first bitmap, which is read in pieces: first of each run, and the one after its last.

        Both are empty where there are more runs than memory has.
        """
        size = -(-self.header.max_mapnr // 64) * 8
        start = (1 + self.header.sub_hdr_size) * self.header.block_size
        places, carry = [np.empty(0, dtype=np.uint64)], np.uint64(0)
        for at in range(0, size, _BITMAP_STEP):
            raw = self.header.reader(start + at, min(_BITMAP_STEP, size - at))
            words: U64 = np.frombuffer(raw[: len(raw) & -8], dtype="<u8").astype(np.uint64)
            if not words.size:
                break
            before = np.concatenate((np.array([carry]), words[:-1] >> np.uint64(63)))
            carry = words[-1] >> np.uint64(63)
            edges = words ^ (words << np.uint64(1) | before)
            some = np.flatnonzero(edges)
            row, bit = np.nonzero(np.unpackbits(edges[some].view(np.uint8).reshape(-1, 8), axis=1, bitorder="little"))
            places.append((at * 8 + some[row] * 64 + bit).astype(np.uint64))
            if sum(one.size for one in places) > _MAX_EDGES:
                return places[0], places[0]  # the memory of no machine
        found = np.concatenate(places)
        if found.size % 2:
            found = np.append(found, np.uint64(self.header.max_mapnr))
        return found[::2], found[1::2]

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """What could not be read so far, counted in blocks."""
        return tuple(Diagnostic(f"{count} {what}", self._path) for what, count in sorted(self._problems.items()))

    def taken(self) -> list[tuple[str, int]]:
        """What could not be read since this was called last."""
        problems, self._problems = self._problems, {}
        return list(problems.items())

    def find(self, pfns: U64) -> tuple[I64, Descriptors]:
        """Which of the ascending ``pfns`` the file has, and where their data is; _BEYOND where descriptors end."""
        inside = np.flatnonzero((pfns >= np.uint64(self._first)) & (pfns < np.uint64(self._end)))
        held, rank = self._bitmap.look(pfns[inside])
        return inside[held], self._read_descriptors((rank[held] - self._skipped).astype(np.int64))

    def _read_descriptors(self, ranks: I64) -> Descriptors:
        found: Descriptors = np.zeros(ranks.size, dtype=_DESCRIPTOR)
        for rows in _runs(np.diff(ranks) > _GAP, ranks.size):
            first, last = int(ranks[rows.start]), int(ranks[rows.stop - 1])
            at, size = self._descriptors + first * _DESCRIPTOR.itemsize, (last - first + 1) * _DESCRIPTOR.itemsize
            raw = self.header.reader(at, size)
            here: Descriptors = np.frombuffer(raw, dtype=_DESCRIPTOR, count=len(raw) // _DESCRIPTOR.itemsize)
            places = ranks[rows] - first
            there = places < here.size
            found[rows][there] = here[places[there]]
            found["flags"][rows][~there] = _BEYOND
        return found

    def blocks(self, entries: Descriptors, out: U8) -> Bool:
        """Put the data of blocks into ``out``, ``(n, block_size)``; which there are, the others are counted."""
        present = np.zeros(len(entries), dtype=np.bool_)
        for run in self.runs(entries, max(len(entries), 1)):
            self.unpack(run, out[run.rows], present[run.rows])
        return present

    def runs(self, entries: Descriptors, step: int) -> list[_Run]:
        """Blocks that can be read at once; none lies on both sides of a multiple of ``step``."""
        offset, size = entries["offset"].astype(np.int64), entries["size"].astype(np.int64)
        end, flags = offset + size, entries["flags"]
        far = (offset[1:] < offset[:-1]) | (offset[1:] - end[:-1] > _GAP_BYTES) | (size[1:] > _MAX_PACKED)
        far |= (offset[1:] // _RUN_BYTES != offset[:-1] // _RUN_BYTES) | (flags[1:] != flags[:-1])
        far[step - 1 :: step] = True
        rows = _runs(far, offset.size)
        if not rows:
            return []
        first = np.array([some.start for some in rows])
        fit = np.logical_and.reduceat((flags != _BEYOND) & (size > 0) & (size <= 2 * self.header.block_size), first)
        length = np.maximum.reduceat(end, first) - offset[first]
        begins = offset - np.repeat(offset[first], np.diff(first, append=offset.size))
        inside, outside = begins.tolist(), (begins + size).tolist()
        columns = (column.tolist() for column in (offset[first], length, flags[first], fit))
        return [_Run(some, inside[some], outside[some], *more) for some, *more in zip(rows, *columns, strict=True)]

    def unpack(self, run: _Run, out: U8, present: Bool) -> None:
        """Put a run into ``out``; ``present`` says which of it are there, the others are counted."""
        block_size, room = self.header.block_size, out.data.cast("B")
        codecs: Codecs = getattr(self._of_thread, "codecs", None) or Codecs()
        self._of_thread.codecs = codecs
        sizes = [end - begin for begin, end in zip(run.begins, run.ends, strict=True)] if not run.fit else []
        length = run.length
        if sizes:
            fit = (end for end, size in zip(run.ends, sizes, strict=True) if 0 < size <= 2 * block_size)
            length = max(fit, default=0) if run.flags != _BEYOND else 0
        try:
            data = self.header.reader(run.offset, length)
        except InputError as error:
            self.count(f"pages: {error.message} (the first at offset {run.offset:#x})", len(out))
            return
        if (
            run.fit
            and len(data) == length
            and codecs.unpack_all(run.flags & PACKED, data, run.begins, run.ends, room, block_size)
        ):
            present[:] = True
            return
        for number, (begin, end) in enumerate(zip(run.begins, run.ends, strict=True)):  # what is wrong with which?
            packed, size, why = data[begin:end], end - begin, ""
            if run.flags == _BEYOND or (0 < size <= 2 * block_size and len(packed) < size):
                why = "pages are beyond the end of the truncated dump"
            elif not 0 < size <= 2 * block_size:
                why = "page descriptors are damaged"
            else:
                try:
                    if codecs.unpack(run.flags & PACKED, packed, room[number * block_size : (number + 1) * block_size]):
                        present[number] = True
                    else:
                        why = "pages have a wrong size"
                except ValueError as error:
                    why = f"pages are damaged ({error})"
            if why:
                self.count(why, 1)

    def count(self, why: str, number: int) -> None:
        """Count blocks that could not be read."""
        with self._lock:
            if why not in self._problems and len(self._problems) >= _MAX_PROBLEMS:
                why = "pages are damaged (in other ways)"
            self._problems[why] = self._problems.get(why, 0) + number


def _runs(breaks: Bool, size: int) -> list[slice]:
    """Rows, ``size`` of them, between ``breaks``."""
    begins = np.concatenate(([0], np.flatnonzero(breaks) + 1, [size])).tolist() if size else [0]
    return [slice(first, last) for first, last in itertools.pairwise(begins)]

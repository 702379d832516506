"""Physical memory as a dump holds it: which bytes are there, and bulk reads of them.

What a dump leaves out is *unknown*, never zero: ELF cores state ``p_memsz`` greater than ``p_filesz`` for memory
that was not written, makedumpfile excludes pages, and a truncated file ends early.  Every read here says
which pages it could not get.
"""

from __future__ import annotations

import os
import threading
import weakref
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterator, Sequence

import numpy as np

from parsers.errors import Diagnostic, InputError
from parsers.mapping import I64, U8, U64, Bool
from parsers.records import dataclass
from parsers.vmcore.compared import Compared, Room

__all__ = [
    "UNIT",
    "ElfMemory",
    "MissingMemoryError",
    "PhysicalMemory",
    "RecordingMemory",
    "Segment",
    "page_runs",
    "units_of",
]

_CUT = "the file ends before them, and did not when it was opened"
UNIT = 4096
"""Bytes in which presence is accounted: the smallest page of arm64, and a divisor of the others."""


class MissingMemoryError(InputError):
    """The dump does not hold this physical memory: excluded, truncated, or no memory at all."""


class PhysicalMemory(ABC):
    """Physical memory of a dumped machine, in units of 4096 bytes."""

    @abstractmethod
    def read_units(self, units: U64) -> tuple[U8, Bool]:
        """Content of page frames of 4096 bytes: ``(n, 4096)`` uint8 and ``(n,)`` present; absent ones read as zeros."""

    concurrent = False
    """Whether several threads may read at the same time."""

    def read_into(self, units: U64, out: U8) -> Bool:
        """As `read_units`, into an array of the caller's, ``(n, 4096)``, contiguous; which are present."""
        out[:], present = self.read_units(units)
        return present

    zeros_are_read = False
    """Whether a page of zeros that is present is known to be what the kernel has, and no page that was left out."""

    has_false_zeros = False
    """Whether zeros were read where the kernel has data in use: the dump has zeros for some of what it left out."""

    @property
    @abstractmethod
    def extents(self) -> tuple[U64, U64]:
        """Physical ranges that may hold pages, sorted: starts and exclusive ends in bytes, uint64."""

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """What could not be read so far."""
        return ()

    @property
    def listed(self) -> tuple[U64, U64]:
        """Physical ranges that the writer of the dump took for memory, as `extents`; their pages may be left out."""
        return self.extents

    @property
    def unrecorded(self) -> PhysicalMemory:
        """The same memory without a record of what is read."""
        return self

    def read_pages(self, pas: U64, page_size: int = UNIT) -> tuple[U8, Bool]:
        """Pages at physical addresses ``pas`` (multiples of 4096): ``(n, page_size)`` uint8 and ``(n,)`` present.

        A page with any part missing is not present.
        """
        out = np.empty((pas.size, page_size), dtype=np.uint8)
        return out, self.read_pages_into(pas, out)

    def read_pages_into(self, pas: U64, out: U8) -> Bool:
        """As `read_pages`, into an array of the caller's, ``(n, page_size)``, contiguous; which are present."""
        units, per_page = units_of(pas, out.shape[1]), out.shape[1] // UNIT
        present = self.read_into(units, out.reshape(-1, UNIT))
        return np.asarray(present.reshape(-1, per_page).all(axis=1))

    def scan(self, pas: U64, room: U8) -> Iterator[tuple[slice, U8, Bool]]:
        """The pages that `read_pages` would give, piece by piece in the same ``room``, ``(n, page_size)``, contiguous.

        Yields which of ``pas`` a piece is, its pages, valid until the next is asked for, and which are present.
        """
        for at in range(0, pas.size, len(room)):
            some = pas[at : at + len(room)]
            pages = room[: some.size]
            yield slice(at, at + some.size), pages, self.read_pages_into(some, pages)

    def compared(self, pas: U64, room: Room, may: Bool | None) -> Iterator[Compared]:
        """The pages of `scan`, compared as they are read: those that ``may`` be are regular, none without it."""
        for piece, pages, present in self.scan(pas, room.pages):
            yield room.compare(piece, pages, present, may)

    def read(self, pa: int, size: int) -> bytes:
        """Exactly ``size`` bytes at ``pa``; MissingMemoryError when the dump lacks any of them."""
        if not 0 <= pa < 1 << 52 or not 0 <= size <= 1 << 32:
            raise MissingMemoryError(f"no physical memory at {pa:#x} (+{size:#x})", address=pa)
        if size == 0:
            return b""
        first, last = pa // UNIT, (pa + size - 1) // UNIT
        data, present = self.read_units(np.arange(first, last + 1, dtype=np.uint64))
        if not present.all():
            missing = (first + int(np.argmin(present))) * UNIT
            raise MissingMemoryError(f"physical page {missing:#x} is not in the dump", address=missing)
        offset = pa - first * UNIT
        return data.reshape(-1)[offset : offset + size].tobytes()

    def read_words(self, pas: U64, *, in_use: bool = False) -> tuple[U64, Bool]:
        """The little-endian 64-bit words at ``pas`` (multiples of 8): values (0 where missing) and present.

        With ``in_use`` they are of structures that the kernel uses, which fill no page with zeros: a dump that has
        such a page has left it out (`zeros_are_read`).
        """
        units, where = np.unique(pas // np.uint64(UNIT), return_inverse=True)
        data, present = self.read_units(units)
        words = data.view("<u8")
        if in_use and not self.zeros_are_read:
            used = words.any(axis=1)
            self.has_false_zeros |= bool((present & ~used).any())
            present = present & used
        index = ((pas % np.uint64(UNIT)) // np.uint64(8)).astype(np.intp)
        return words[where, index].astype(np.uint64), present[where]


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes of a file that are physical memory: ``size`` bytes of ``pa`` at ``offset``."""

    pa: int
    offset: int
    size: int


class ElfMemory(PhysicalMemory):
    """Physical memory in the PT_LOAD segments of an ELF core, read with pread: never mapped, and never held."""

    concurrent = True

    def __init__(self, fileno: int, segments: Sequence[Segment], path: str = "") -> None:
        self._fd = os.dup(fileno)
        self._path = path
        self._lock = threading.Lock()
        self._lost: dict[str, tuple[int, int]] = {}
        weakref.finalize(self, os.close, self._fd)
        self._segments = _disjoint(segments)
        self._first = np.array([segment.pa // UNIT for segment in self._segments], dtype=np.uint64)
        self._count = np.array([segment.size // UNIT for segment in self._segments], dtype=np.uint64)
        self._offset = np.array([segment.offset for segment in self._segments], dtype=np.uint64)

    @property
    def extents(self) -> tuple[U64, U64]:
        return self._first * np.uint64(UNIT), (self._first + self._count) * np.uint64(UNIT)

    def read_units(self, units: U64) -> tuple[U8, Bool]:
        out = np.empty((units.size, UNIT), dtype=np.uint8)
        return out, self.read_into(units, out)

    def read_into(self, units: U64, out: U8) -> Bool:
        present, runs = self._locate(units, units.size)
        if not self._fill(out, present, runs):
            out[~present] = 0
        return present

    def scan(self, pas: U64, room: U8) -> Iterator[tuple[slice, U8, Bool]]:
        units, per_page = units_of(pas, room.shape[1]), room.shape[1] // UNIT
        step, out = len(room) * per_page, room.reshape(-1, UNIT)
        present, runs = self._locate(units, step)
        at = 0
        for end in range(step, units.size + step, step):
            begin = end - step
            part, stop = present[begin:end], bisect_left(runs, (end,))
            pages = out[: part.size]
            if not self._fill(pages, part, runs[at:stop], begin):
                pages[~part] = 0
            there = part if per_page == 1 else np.asarray(part.reshape(-1, per_page).all(axis=1), dtype=np.bool_)
            yield slice(begin // per_page, begin // per_page + there.size), room[: there.size], there
            at = stop

    def _locate(self, units: U64, step: int) -> tuple[Bool, list[tuple[int, int, int]]]:
        """Which units the file has, and runs of them: the first in ``units``, how many, the offset in the file.

        A run is of units that follow each other in memory and in one segment, and does not go beyond a multiple of
        ``step`` in ``units``.
        """
        if units.size == 0 or not self._segments:
            return np.zeros(units.size, dtype=np.bool_), []
        breaks = np.append(True, units[1:] - units[:-1] != 1)
        breaks[::step] = True
        row = np.flatnonzero(breaks)
        number = np.diff(row, append=units.size)
        index, last = (self._segment_of(units[at]) for at in (row, row + number - 1))
        inside = units[row] - self._first[index]  # before the first segment, a number beyond any
        held = inside < self._count[index]
        if ((index != last) | held & (inside + number.astype(np.uint64) > self._count[index])).any():
            row, number = np.arange(units.size), np.ones(units.size, dtype=np.int64)  # from one segment into another
            index = self._segment_of(units)
            inside = units - self._first[index]
            held = inside < self._count[index]
        place = self._offset[index] + inside * np.uint64(UNIT)
        columns = (column[held].tolist() for column in (row, number, place))
        return np.repeat(held, number), list(zip(*columns, strict=True))

    def _segment_of(self, units: U64) -> I64:
        """The last segment that begins at or before each unit; -1 where none does."""
        return np.searchsorted(self._first, units, side="right").astype(np.int64) - 1

    def _fill(self, out: U8, present: Bool, runs: list[tuple[int, int, int]], first: int = 0) -> bool:
        """Read runs of (unit, units, offset in the file), counted from ``first``; whether all of ``present`` is there.

        What cannot be read is not present.
        """
        view, filled = out.reshape(-1).data, 0
        for unit, count, offset in runs:
            row, size = unit - first, count * UNIT
            done = self._pread(view[row * UNIT : row * UNIT + size], offset)
            filled += done // UNIT
            if done < size:
                present[row + done // UNIT : row + count] = False
        return filled == present.size

    def _pread(self, view: memoryview, offset: int) -> int:
        """Read bytes of the file; returns how many, and counts what is lost."""
        done, size = 0, len(view)
        while done < size:
            try:
                got, why = os.preadv(self._fd, [view[done:]], offset + done), _CUT
            except OSError as error:
                got, why = 0, error.strerror or str(error)
            if got == 0:
                self._lose(why, (size - done // UNIT * UNIT) // UNIT, offset + done)
                break
            done += got
        return done

    def _lose(self, why: str, pages: int, offset: int) -> None:
        """Count pages that are listed and cannot be read."""
        with self._lock:
            number, first = self._lost.get(why, (0, offset))
            self._lost[why] = number + pages, min(first, offset)

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        return tuple(
            Diagnostic(f"{number} pages cannot be read, unknown: {why}", self._path, offset=offset)
            for why, (number, offset) in sorted(self._lost.items())
        )


def units_of(pas: U64, page_size: int) -> U64:
    """Numbers of the page frames of 4096 bytes in pages at physical addresses."""
    units, per_page = pas.astype(np.uint64) // np.uint64(UNIT), page_size // UNIT
    return units if per_page == 1 else (units[:, None] + np.arange(per_page).astype(np.uint64)).ravel()


def _disjoint(segments: Sequence[Segment]) -> list[Segment]:
    """Whole units of the segments, sorted, each physical unit once (/proc/vmcore lists the kernel image twice)."""
    result: list[Segment] = []
    covered = 0
    for segment in sorted(segments, key=lambda item: (item.pa, -item.size)):
        start = max(-(-segment.pa // UNIT) * UNIT, covered)
        end = (segment.pa + segment.size) // UNIT * UNIT
        if end > start:
            result.append(Segment(start, segment.offset + start - segment.pa, end - start))
            covered = end
    return result


class RecordingMemory(PhysicalMemory):
    """Another memory, with a note of every unit that was read from it."""

    def __init__(self, memory: PhysicalMemory) -> None:
        self._memory = memory
        self._seen: list[U64] = []
        self._lock = threading.Lock()
        self.concurrent, self.zeros_are_read = memory.concurrent, memory.zeros_are_read

    @property
    def extents(self) -> tuple[U64, U64]:
        return self._memory.extents

    @property
    def unrecorded(self) -> PhysicalMemory:
        return self._memory.unrecorded

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        return self._memory.diagnostics

    def read_units(self, units: U64) -> tuple[U8, Bool]:
        data, present = self._memory.read_units(units)
        self._note(units[present])
        return data, present

    def read_into(self, units: U64, out: U8) -> Bool:
        present = self._memory.read_into(units, out)
        self._note(units[present])
        return present

    def scan(self, pas: U64, room: U8) -> Iterator[tuple[slice, U8, Bool]]:
        if room.shape[1] != UNIT:
            yield from super().scan(pas, room)
            return
        for piece, pages, present in self._memory.scan(pas, room):
            self._note(pas[piece][present] // np.uint64(UNIT))
            yield piece, pages, present

    def compared(self, pas: U64, room: Room, may: Bool | None) -> Iterator[Compared]:
        if room.pages.shape[1] != UNIT:
            yield from super().compared(pas, room, may)
            return
        for one in self._memory.compared(pas, room, may):
            self._note(pas[one.piece][one.present] // np.uint64(UNIT))
            yield one

    def _note(self, units: U64) -> None:
        with self._lock:
            self._seen.append(np.unique(units))
            if len(self._seen) > 4096:
                self._seen = [self.units]

    @property
    def units(self) -> U64:
        """Page frames (of 4096 bytes) that were read and were there, sorted."""
        return np.unique(np.concatenate(self._seen)) if self._seen else np.empty(0, dtype=np.uint64)


def page_runs(units: U64) -> tuple[U64, U64]:
    """Runs of consecutive numbers in the sorted ``units``: first numbers and counts."""
    breaks = np.flatnonzero(np.diff(units) != 1) + 1
    starts = np.concatenate(([0], breaks)).astype(np.intp) if units.size else np.empty(0, dtype=np.intp)
    counts = np.diff(np.append(starts, units.size)).astype(np.uint64)
    return units[starts], counts

"""kdump-compressed dumps (diskdump format), plain, flattened or split, in every compression.

Neither makedumpfile nor drgn opens what QEMU writes of arm64 guests (the machine is "Unknown", page frames are counted
in blocks of 64 KiB, the file is flattened), and libkdumpfile maps files, so that a page beyond the end of a truncated
one ends the process with SIGBUS.  Layout from makedumpfile's ``diskdump_mod.h`` and ``IMPLEMENTATION`` (header versions
1 to 6) and QEMU's ``dump/dump.c`` (7.2).

Blocks that follow each other in the file are read at once, and decompressed by as many threads as there are processors,
or processes where there are many.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field
from typing import Any, BinaryIO

import construct
import numpy as np
from numpy.typing import NDArray

from parsers.errors import Diagnostic, FormatError, InputError
from parsers.mapping import I64, U8, U64, Bool
from parsers.records import dataclass
from parsers.vmcore.bitmap import Bitmap
from parsers.vmcore.flattened import FLAT_MAGIC, Flattened, PlainFile
from parsers.vmcore.memory import UNIT, PhysicalMemory, units_of
from parsers.vmcore.page_codecs import PACKED, Codecs
from parsers.vmcore.readers import Problems, Readers
from parsers.vmcore.workers import Workers

__all__ = ["FLAT_MAGIC", "MAGICS", "Header", "KdumpMemory", "read_header"]

MAGICS = (b"KDUMP   ", b"DISKDUMP")

c: Any = construct  # its declarations are not typed

_MAX_BLOCK_SIZE = 1 << 16  # the greatest page of arm64, which is also what hypervisors write
_MAX_PFN = 1 << 40
_MAX_BITMAP = 1 << 30
_CACHED_BLOCKS = 512
_FEW = 16  # blocks of a read that are kept: what reads many reads them once
_SLICE = 1024  # pages of 4096 bytes that are read in one go
_GAP = 128  # descriptors that are read and not used, rather than read apart
_GAP_BYTES = 16 << 10  # the same for blocks
_RUN_BYTES = 1 << 20
_SHARE = 32  # blocks that are worth a thread
_MANY = 4096  # pages that are worth processes
_MAX_PACKED = 2 * _MAX_BLOCK_SIZE
_MAX_PROBLEMS = 16  # kinds of damage that are counted apart

_HEADER = c.Struct(
    "signature" / c.Bytes(8),
    "version" / c.Int32sl,
    "utsname" / c.Array(6, c.Bytes(65)),
    "timestamp" / c.Bytes(22),  # padding and a timeval
    "status" / c.Int32ul,
    "block_size" / c.Int32sl,
    "sub_hdr_size" / c.Int32sl,
    "bitmap_blocks" / c.Int32ul,
    "max_mapnr" / c.Int32ul,
)
# Grew with the header version; what an older version does not have lies in zeroed padding.
_SUB_HEADER = c.Struct(
    "phys_base" / c.Int64ul,
    "dump_level" / c.Int32sl,
    "split" / c.Int32sl,
    "start_pfn" / c.Int64ul,
    "end_pfn" / c.Int64ul,
    "offset_vmcoreinfo" / c.Int64ul,
    "size_vmcoreinfo" / c.Int64ul,
    "offset_note" / c.Int64ul,
    "size_note" / c.Int64ul,
    "offset_eraseinfo" / c.Int64ul,
    "size_eraseinfo" / c.Int64ul,
    "start_pfn_64" / c.Int64ul,
    "end_pfn_64" / c.Int64ul,
    "max_mapnr_64" / c.Int64ul,
)
_DESCRIPTOR = np.dtype([("offset", "<u8"), ("size", "<u4"), ("flags", "<u4"), ("page_flags", "<u8")])
Descriptors = NDArray[np.void]
_BITMAP_STEP = 1 << 18
_MAX_EDGES = 1 << 20
_BEYOND = 0xFFFF_FFFF
"""In place of the flags of a descriptor that the file does not hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a kdump says about itself."""

    machine: str
    release: str
    version: int
    block_size: int
    sub_hdr_size: int
    bitmap_blocks: int
    max_mapnr: int
    split: bool
    start_pfn: int
    end_pfn: int
    vmcoreinfo: tuple[int, int]
    notes: tuple[int, int]
    flattened: bool
    reader: Callable[[int, int], bytes] = field(repr=False)
    diagnostics: tuple[Diagnostic, ...] = ()


def read_header(stream: BinaryIO, path: str) -> Header:
    """The header of a kdump; FormatError if it is damaged, InputError if this is not a kdump."""
    file = PlainFile(stream, path)
    flattened = file.read(0, len(FLAT_MAGIC)) == FLAT_MAGIC
    source = Flattened(file, path) if flattened else file
    raw = source.read(0, _HEADER.sizeof())
    if raw[:8] not in MAGICS:
        raise InputError("no kdump header", path=path)
    try:
        header: Any = _HEADER.parse(raw)
        if not 0 < header.block_size <= _MAX_BLOCK_SIZE or header.block_size % UNIT:
            raise FormatError(f"impossible block size {header.block_size}", path=path, offset=428)
        sub: Any = _SUB_HEADER.parse(source.read(header.block_size, _SUB_HEADER.sizeof()))
    except c.ConstructError as error:
        raise FormatError("truncated in the header", path=path) from error
    wide = header.version >= 6
    max_mapnr = sub.max_mapnr_64 if wide else header.max_mapnr
    if not 0 < max_mapnr < _MAX_PFN or not 0 < header.sub_hdr_size < 1 << 20:
        raise FormatError("impossible page count in the header", path=path)
    diagnostics = []
    if source.truncated:
        diagnostics.append(Diagnostic("the dump is truncated; pages beyond its end are unknown", path))
    return Header(
        machine=_text(header.utsname[4]),
        release=_text(header.utsname[2]),
        version=header.version,
        block_size=header.block_size,
        sub_hdr_size=header.sub_hdr_size,
        bitmap_blocks=header.bitmap_blocks,
        max_mapnr=max_mapnr,
        split=bool(sub.split) and header.version >= 2,
        start_pfn=sub.start_pfn_64 if wide else sub.start_pfn,
        end_pfn=sub.end_pfn_64 if wide else sub.end_pfn,
        vmcoreinfo=(sub.offset_vmcoreinfo, sub.size_vmcoreinfo) if header.version >= 3 else (0, 0),
        notes=(sub.offset_note, sub.size_note) if header.version >= 4 else (0, 0),
        flattened=flattened,
        reader=source.read,
        diagnostics=tuple(diagnostics),
    )


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("ascii", "replace")


class _File:
    """One kdump file: which blocks it has, and how to get them."""

    def __init__(self, header: Header, path: str) -> None:
        self.header = header
        self._path = path
        self._problems: dict[str, int] = {}
        self._lock = threading.Lock()
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
        codecs = Codecs()
        offset, size = entries["offset"].astype(np.int64), entries["size"].astype(np.int64)
        end = offset + size
        far = (offset[1:] < offset[:-1]) | (offset[1:] - end[:-1] > _GAP_BYTES) | (size[1:] > _MAX_PACKED)
        far |= offset[1:] // _RUN_BYTES != offset[:-1] // _RUN_BYTES
        for rows in _runs(far, offset.size):
            columns = (entries[name][rows].tolist() for name in ("offset", "size", "flags"))
            self._run(list(zip(*columns, strict=True)), codecs, out[rows], present[rows])
        return present

    def _run(self, entries: list[tuple[int, int, int]], codecs: Codecs, out: U8, present: Bool) -> None:
        """Blocks that are near each other in the file, ascending."""
        block_size, begin, room = self.header.block_size, entries[0][0], out.data.cast("B")
        fit = [at + size for at, size, flags in entries if flags != _BEYOND and 0 < size <= 2 * block_size]
        try:
            data = memoryview(self.header.reader(begin, max(fit, default=begin) - begin))
        except InputError as error:
            self.count(f"pages: {error.message} (the first at offset {begin:#x})", len(entries))
            return
        places = [room[at : at + block_size] for at in range(0, len(room), block_size)]
        whole = len(fit) == len(entries) and len(data) == max(fit) - begin
        if whole and codecs.unpack_all(
            [(flags & PACKED, data[at - begin : at - begin + size]) for at, size, flags in entries], places
        ):
            present[:] = True
            return
        for number, (offset, size, flags) in enumerate(entries):  # again, to say what is wrong with which
            packed, why = data[offset - begin : offset - begin + size], ""
            if flags == _BEYOND or (0 < size <= 2 * block_size and len(packed) < size):
                why = "pages are beyond the end of the truncated dump"
            elif not 0 < size <= 2 * block_size:
                why = "page descriptors are damaged"
            else:
                try:
                    if codecs.unpack(flags & PACKED, packed, places[number]):
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


class KdumpMemory(PhysicalMemory):
    """Physical memory in one kdump, or in the several files of a split one."""

    def __init__(self, headers: Sequence[Header], paths: Sequence[str]) -> None:
        self._files = [_File(header, path) for header, path in zip(headers, paths, strict=True)]
        sizes = {header.block_size for header in headers}
        if len(sizes) != 1:
            raise FormatError("the split files do not belong together: block sizes differ", path=paths[1])
        self._block_size = sizes.pop()
        self._max_pfn = max(header.max_mapnr for header in headers)
        self._workers = Workers()
        self._readers: Readers | None = None
        self._cached = functools.lru_cache(maxsize=_CACHED_BLOCKS)(self._one_block)

    @property
    def extents(self) -> tuple[U64, U64]:
        return np.zeros(1, dtype=np.uint64), np.array([self._max_pfn * self._block_size], dtype=np.uint64)

    @property
    def listed(self) -> tuple[U64, U64]:
        start, end = self._files[0].listed()  # all files of a split dump have the whole bitmap
        return start * np.uint64(self._block_size), end * np.uint64(self._block_size)

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        return tuple(item for file in self._files for item in file.diagnostics)

    def read_units(self, units: U64) -> tuple[U8, Bool]:
        out = np.empty((units.size, UNIT), dtype=np.uint8)
        return out, self.read_into(units, out)

    def read_into(self, units: U64, out: U8) -> Bool:
        present = np.zeros(units.size, dtype=np.bool_)
        if self._block_size == UNIT and _FEW < units.size <= _SLICE and (units[1:] > units[:-1]).all():
            self._read(units, out, present)
        else:
            order = np.argsort(units, kind="stable")
            for first in range(0, units.size, _SLICE):
                self._gather(units, order[first : first + _SLICE], out, present)
        out[~present] = 0
        return present

    def scan(self, pas: U64, room: U8) -> Iterator[tuple[slice, U8, Bool]]:
        step, per_page = len(room), room.shape[1] // UNIT
        readers = self._many_readers(step * per_page) if pas.size >= _MANY else None
        if readers is None:
            yield from super().scan(pas, room)
            return
        pieces = [units_of(pas[at : at + step], room.shape[1]) for at in range(0, pas.size, step)]
        at = 0
        try:
            for units, (pages, known, problems) in zip(pieces, readers.read(pieces), strict=True):
                present = self.read_into(units, pages) if known is None else known
                for (number, why), count in problems.items():
                    self._files[number].count(why, count)
                there = np.asarray(present.reshape(-1, per_page).all(axis=1), dtype=np.bool_)
                yield slice(at, at + there.size), pages.reshape(-1, room.shape[1]), there
                at += there.size
        finally:
            if at < pas.size:  # answers are left
                readers.close()
                self._readers = None

    def _many_readers(self, most: int) -> Readers | None:
        """Processes that read at most so many pages of 4096 bytes at a time; None where there cannot be any."""
        if self._readers is None and self._workers.number > 1:
            with contextlib.suppress(OSError):
                self._readers = Readers(self._workers.number, most, self._read_in_process)
        return self._readers if self._readers is not None and most <= self._readers.most else None

    def _read_in_process(self, units: U64, out: U8) -> tuple[Bool, Problems]:
        """`read_into` without threads, and what went wrong by number of the file."""
        self._workers.number = 1
        present = self.read_into(units, out)
        problems = {(number, why): count for number, file in enumerate(self._files) for why, count in file.taken()}
        return present, problems

    def _gather(self, units: U64, rows: I64, out: U8, present: Bool) -> None:
        """Read ``units[rows]``, ascending, by way of the blocks that they are in."""
        per_block = self._block_size // UNIT
        pfns, where = np.unique(units[rows] // np.uint64(per_block), return_inverse=True)
        part = (units[rows] % np.uint64(per_block)).astype(np.int64)
        if pfns.size <= _FEW:
            found = [self._cached(pfn) for pfn in pfns.tolist()]
            there = np.array([block is not None for block in found], dtype=np.bool_)
            blank = bytes(self._block_size)
            blocks: U8 = np.frombuffer(b"".join(block or blank for block in found), dtype=np.uint8)
        else:
            blocks, there = np.empty((pfns.size, self._block_size), np.uint8), np.zeros(pfns.size, np.bool_)
            self._read(pfns, blocks, there)
        held = there[where]
        out[rows[held]] = blocks.reshape(-1, UNIT)[(where * per_block + part)[held]]
        present[rows] = held

    def _one_block(self, pfn: int) -> bytes | None:
        out, present = np.empty((1, self._block_size), np.uint8), np.zeros(1, np.bool_)
        self._read(np.array([pfn], dtype=np.uint64), out, present)
        return out.tobytes() if present[0] else None

    def _read(self, pfns: U64, out: U8, present: Bool) -> None:
        """Blocks, ascending, into ``out``; those that no file has are left as they are."""
        for file in self._files:
            held, entries = file.find(pfns)
            whole = held.size == pfns.size
            room = out if whole else np.empty((held.size, self._block_size), dtype=np.uint8)
            share = max(_SHARE, -(-held.size // self._workers.number))
            parts = [slice(first, first + share) for first in range(0, held.size, share)]
            unpack = functools.partial(_unpack_part, file, entries, room)
            there = np.concatenate([np.zeros(0, np.bool_), *self._workers.map(unpack, parts)])
            if whole:
                present[:] = there
            else:
                out[held[there]] = room[there]
                present[held] = there


def _unpack_part(file: _File, entries: Descriptors, room: U8, rows: slice) -> Bool:
    return file.blocks(entries[rows], room[rows])

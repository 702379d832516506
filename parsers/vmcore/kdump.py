"""kdump-compressed dumps (diskdump format), plain, flattened or split, in every compression.

Neither makedumpfile nor drgn opens what QEMU writes of arm64 guests (the machine is "Unknown", page frames are counted
in blocks of 64 KiB, the file is flattened), and libkdumpfile maps files, so that a page beyond the end of a truncated
one ends the process with SIGBUS.  Layout from makedumpfile's ``diskdump_mod.h`` and ``IMPLEMENTATION`` (header versions
1 to 6) and QEMU's ``dump/dump.c`` (7.2).

Pages are unpacked by as many threads as there are processors, or processes where there are many: those compare them as
well, while the cache holds them, and hand over only what is not regular.
"""

from __future__ import annotations

import contextlib
import functools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field
from typing import Any, BinaryIO, NamedTuple

import construct
import numpy as np

from parsers.errors import Diagnostic, FormatError, InputError
from parsers.mapping import I64, U8, U64, Bool
from parsers.records import dataclass
from parsers.vmcore.compared import Compared, Room
from parsers.vmcore.flattened import FLAT_MAGIC, Flattened, PlainFile
from parsers.vmcore.kdump_file import MAX_BLOCK_SIZE, Descriptors, KdumpFile
from parsers.vmcore.memory import UNIT, PhysicalMemory, units_of
from parsers.vmcore.readers import Readers
from parsers.vmcore.workers import Workers

__all__ = ["FLAT_MAGIC", "MAGICS", "Header", "KdumpMemory", "read_header"]

MAGICS = (b"KDUMP   ", b"DISKDUMP")

c: Any = construct  # its declarations are not typed

_MAX_PFN = 1 << 40
_CACHED_BLOCKS = 512
_FEW = 16  # blocks of a read that are kept: what reads many reads them once
_SLICE = 1024  # pages of 4096 bytes that are read in one go
_SHARE = 32  # blocks that are worth a thread
_MANY = 4096  # pages that are worth processes
_JOB_BYTES = 4 << 20  # what a process reads before it answers: a multiple of any page

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
        if not 0 < header.block_size <= MAX_BLOCK_SIZE or header.block_size % UNIT:
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


class _Job(NamedTuple):
    """Pages that a process reads, and which of them may be regular."""

    pas: U64
    page_size: int
    may: Bool | None


class _Answer(NamedTuple):
    """As `Compared`; the others are in the memory that is shared."""

    present: Bool
    regular: Bool
    first: U64
    problems: dict[tuple[int, str], int]
    """What could not be read, by number of the file and reason, and how often."""


class KdumpMemory(PhysicalMemory):
    """Physical memory in one kdump, or in the several files of a split one."""

    def __init__(self, headers: Sequence[Header], paths: Sequence[str]) -> None:
        self._files = [KdumpFile(header, path) for header, path in zip(headers, paths, strict=True)]
        sizes = {header.block_size for header in headers}
        if len(sizes) != 1:
            raise FormatError("the split files do not belong together: block sizes differ", path=paths[1])
        self._block_size = sizes.pop()
        self._max_pfn = max(header.max_mapnr for header in headers)
        self._workers = Workers()
        self._readers: Readers[_Job, _Answer] | None = None
        self._rooms: dict[int, Room] = {}
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
        units, per_page = units_of(pas, room.shape[1]), room.shape[1] // UNIT
        if self._block_size != UNIT or not (units[1:] > units[:-1]).all():
            yield from super().scan(pas, room)
            return
        step, out = len(room) * per_page, room.reshape(-1, UNIT)
        stride = max(_SLICE // step, 1) * step
        for first in range(0, units.size, stride):
            some = units[first : first + stride]
            found = self._find(some)
            file, held, entries = found[0]
            # Decided for all of them at once, where one thread reads them: little is left to do for each piece.
            alone = held.size == some.size and len(found) == self._workers.number == 1
            runs = deque(file.runs(entries, step) if alone else ())
            for at in range(0, some.size, step):
                pages, present = out[: min(step, some.size - at)], np.zeros(min(step, some.size - at), np.bool_)
                if not alone:
                    self._unpack(found, at, pages, present)
                while runs and runs[0].rows.start < at + step:
                    run = runs.popleft()
                    rows = slice(run.rows.start - at, run.rows.stop - at)
                    file.unpack(run, pages[rows], present[rows])
                if not present.all():
                    pages[~present] = 0
                there = present if per_page == 1 else np.asarray(present.reshape(-1, per_page).all(axis=1))
                begin = (first + at) // per_page
                yield slice(begin, begin + there.size), room[: there.size], there

    def compared(self, pas: U64, room: Room, may: Bool | None) -> Iterator[Compared]:
        page_size = room.pages.shape[1]
        readers = self._many_readers() if pas.size >= _MANY else None
        if readers is None:
            yield from super().compared(pas, room, may)
            return
        step, done = _JOB_BYTES // page_size, 0
        pieces = [slice(at, min(at + step, pas.size)) for at in range(0, pas.size, step)]
        jobs = [_Job(pas[piece], page_size, None if may is None else may[piece]) for piece in pieces]
        try:
            for piece, job, (answer, shared) in zip(pieces, jobs, readers.read(jobs), strict=True):
                done += 1
                if answer is None:
                    for one in super().compared(job.pas, room, job.may):
                        place = slice(piece.start + one.piece.start, piece.start + one.piece.stop)
                        yield one._replace(piece=place)
                    continue
                for (number, why), count in answer.problems.items():
                    self._files[number].count(why, count)
                others = shared.reshape(-1, page_size)[: int((answer.present & ~answer.regular).sum())]
                yield Compared(piece, answer.present, answer.regular, answer.first, others)
        finally:
            if done < len(jobs):  # answers are left
                readers.close()
                self._readers = None

    def _many_readers(self) -> Readers[_Job, _Answer] | None:
        """Processes that read; None where there cannot be any."""
        if self._readers is None and self._workers.number > 1:
            with contextlib.suppress(OSError):
                self._readers = Readers(self._workers.number, _JOB_BYTES // UNIT, self._read_in_process)
        return self._readers

    def _read_in_process(self, job: _Job, shared: U8) -> _Answer:
        """`compared` without threads; those that are not regular go to ``shared``, one after the other."""
        self._workers.number = 1
        for file in self._files:
            file.taken()  # what was counted before this process was forked
        room, number = self._rooms.setdefault(job.page_size, Room(job.page_size)), job.pas.size
        answer = _Answer(np.zeros(number, np.bool_), np.zeros(number, np.bool_), np.zeros(number, np.uint64), {})
        pages, at = shared.reshape(-1, job.page_size), 0
        for one in super().compared(job.pas, room, job.may):
            answer.present[one.piece], answer.regular[one.piece] = one.present, one.regular
            answer.first[one.piece] = one.first
            pages[at : at + len(one.others)] = one.others
            at += len(one.others)
        answer.problems.update(
            ((number, why), count) for number, file in enumerate(self._files) for why, count in file.taken()
        )
        return answer

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
        self._unpack(self._find(pfns), 0, out, present)

    def _find(self, pfns: U64) -> list[tuple[KdumpFile, I64, Descriptors]]:
        """For each file, which of some blocks, ascending, it has, and where."""
        return [(file, *file.find(pfns)) for file in self._files]

    def _unpack(self, found: list[tuple[KdumpFile, I64, Descriptors]], first: int, out: U8, present: Bool) -> None:
        """Blocks from number ``first`` of those found into ``out``; those that no file has are left as they are."""
        for file, every, entries in found:
            begin, end = np.searchsorted(every, (first, first + len(out)))
            held, some = every[begin:end] - first, entries[begin:end]
            whole = held.size == len(out)
            room = out if whole else np.empty((held.size, self._block_size), dtype=np.uint8)
            share = max(_SHARE, -(-held.size // self._workers.number))
            parts = [slice(first, first + share) for first in range(0, held.size, share)]
            unpack = functools.partial(_unpack_part, file, some, room)
            there = np.concatenate([np.zeros(0, np.bool_), *self._workers.map(unpack, parts)])
            if whole:
                present[:] = there
            else:
                out[held[there]] = room[there]
                present[held] = there


def _unpack_part(file: KdumpFile, entries: Descriptors, room: U8, rows: slice) -> Bool:
    return file.blocks(entries[rows], room[rows])

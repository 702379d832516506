"""kdump-compressed dumps (diskdump format), plain, flattened or split, in every compression.

Neither makedumpfile nor drgn opens what QEMU writes of arm64 guests (the machine is "Unknown", page frames are counted
in blocks of 64 KiB, the file is flattened), and libkdumpfile maps files, so that a page beyond the end of a truncated
one ends the process with SIGBUS.  Layout from makedumpfile's ``diskdump_mod.h`` and ``IMPLEMENTATION`` (header versions
1 to 6) and QEMU's ``dump/dump.c`` (7.2).
"""

from __future__ import annotations

import functools
import mmap
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import construct
import numpy as np
from numpy.typing import NDArray

from parsers.errors import Diagnostic, FormatError, InputError
from parsers.mapping import U8, U64, Bool
from parsers.vmcore.memory import UNIT, PhysicalMemory

__all__ = ["FLAT_MAGIC", "MAGICS", "Header", "KdumpMemory", "read_header"]

MAGICS = (b"KDUMP   ", b"DISKDUMP")
FLAT_MAGIC = b"makedumpfile\0\0\0\0"

c: Any = construct  # its declarations are not typed

_FLAT_HEADER_SIZE = 4096
_MAX_BLOCK_SIZE = 1 << 16  # the greatest page of arm64, which is also what hypervisors write
_MAX_HOLES = 1 << 20  # bytes of one read that no piece of a flattened dump gives: headers are padded
_MAX_PFN = 1 << 40
_MAX_BITMAP = 1 << 30
_CACHED_BLOCKS = 512

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
_FLAT_CHUNK = struct.Struct(">qq")
_DESCRIPTOR = np.dtype([("offset", "<u8"), ("size", "<u4"), ("flags", "<u4"), ("page_flags", "<u8")])
Descriptors = NDArray[np.void]
_CHUNK = 4096
_CHUNK_BYTES = _CHUNK * _DESCRIPTOR.itemsize
_ZLIB, _LZO, _SNAPPY, _ZSTD = 0x1, 0x2, 0x4, 0x20
_PACKED = _ZLIB | _LZO | _SNAPPY | _ZSTD
_BEYOND = 0xFFFF_FFFF
"""In place of the flags of a descriptor that the file does not hold."""


class _Plain:
    """A file read at offsets."""

    def __init__(self, stream: BinaryIO) -> None:
        self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        self.truncated = False

    def read(self, offset: int, size: int) -> bytes:
        return self._map[offset : offset + size]


class _Flattened:
    """A file that was written as a stream of (offset, size, data) pieces; later pieces overwrite earlier ones."""

    def __init__(self, stream: BinaryIO, path: str) -> None:
        self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        offsets, sizes, places = [], [], []
        place, end = _FLAT_HEADER_SIZE, len(self._map)
        self.truncated = True
        while place + _FLAT_CHUNK.size <= end:
            offset, size = _FLAT_CHUNK.unpack_from(self._map, place)
            if offset == -1:
                self.truncated = False
                break
            if offset < 0 or size <= 0:
                raise FormatError("damaged piece header in a flattened dump", path=path, offset=place)
            place += _FLAT_CHUNK.size
            offsets.append(offset)
            sizes.append(min(size, end - place))
            places.append(place)
            place += size
        order = np.argsort(np.array(offsets, dtype=np.int64), kind="stable")
        self._offset = np.array(offsets, dtype=np.int64)[order]
        self._size = np.array(sizes, dtype=np.int64)[order]
        self._place = np.array(places, dtype=np.int64)[order]
        self._reach = int(self._size.max(initial=0))

    def read(self, offset: int, size: int) -> bytes:
        if size <= 0 or offset >= 1 << 62:
            return b""
        first, last = np.searchsorted(self._offset, [offset - self._reach + 1, offset + size])
        pieces = np.arange(first, last)[self._offset[first:last] + self._size[first:last] > offset]
        size = min(size, int(self._size[pieces].sum()) + _MAX_HOLES)
        out = bytearray(size)
        got = 0
        for piece in pieces[np.argsort(self._place[pieces])].tolist():
            begin = max(offset, int(self._offset[piece]))
            end = min(offset + size, int(self._offset[piece] + self._size[piece]))
            if end <= begin:
                continue
            place = int(self._place[piece]) + begin - int(self._offset[piece])
            out[begin - offset : end - offset] = self._map[place : place + end - begin]
            got = max(got, end - offset)
        return bytes(out[:got])


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
    head = _Plain(stream).read(0, len(FLAT_MAGIC))
    flattened = head == FLAT_MAGIC
    source = _Flattened(stream, path) if flattened else _Plain(stream)
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
    """One kdump file: which blocks it has (a bitmap with ranks) and how to get one."""

    def __init__(self, header: Header, path: str) -> None:
        self.header = header
        self._path = path
        self.problems: dict[str, int] = {}
        size = header.block_size
        half = header.bitmap_blocks // 2 * size
        base = (1 + header.sub_hdr_size) * size
        if half > _MAX_BITMAP or half * 8 < header.max_mapnr:
            raise FormatError("bitmap size and page count disagree", path=path)
        bitmap = header.reader(base + half, half)
        if len(bitmap) < half:
            raise FormatError("truncated in the page bitmap", path=path)
        self._words: U64 = np.frombuffer(bitmap, dtype="<u8").astype(np.uint64)
        ones = _ones(self._words)
        self._before = np.cumsum(ones) - ones
        self._descriptors = base + header.bitmap_blocks * size
        first = header.start_pfn if header.split else 0
        # A split file describes only its own share of the bitmap that all files repeat.
        self._skipped = int(self._rank(np.array([first], dtype=np.uint64))[0]) if header.split else 0

    def _rank(self, pfns: U64) -> U64:
        """Set bits before each pfn."""
        word = np.minimum(pfns >> np.uint64(6), np.uint64(max(self._words.size - 1, 0))).astype(np.intp)
        below = (np.uint64(1) << (pfns & np.uint64(63))) - np.uint64(1)
        return np.asarray(self._before[word] + _ones(self._words[word] & below), dtype=np.uint64)

    def has(self, pfns: U64) -> Bool:
        header = self.header
        inside = pfns < np.uint64(min(header.max_mapnr, self._words.size * 64))
        if header.split:
            inside &= (pfns >= np.uint64(header.start_pfn)) & (pfns < np.uint64(header.end_pfn))
        word = np.where(inside, pfns >> np.uint64(6), 0).astype(np.intp)
        return np.asarray(inside & ((self._words[word] >> (pfns & np.uint64(63))) & np.uint64(1)).astype(np.bool_))

    def descriptors(self, pfns: U64) -> Descriptors:
        """Where the data of blocks lies, for ascending ``pfns`` that the bitmap has; _BEYOND where it ends."""
        ranks = (self._rank(pfns) - np.uint64(self._skipped)).astype(np.int64)
        found: Descriptors = np.zeros(ranks.size, dtype=_DESCRIPTOR)
        chunks, begins = np.unique(ranks // _CHUNK, return_index=True)
        for chunk, rows in zip(chunks.tolist(), np.split(np.arange(ranks.size), begins)[1:], strict=True):
            raw = self.header.reader(self._descriptors + chunk * _CHUNK * _DESCRIPTOR.itemsize, _CHUNK_BYTES)
            here: Descriptors = np.frombuffer(raw, dtype=_DESCRIPTOR, count=len(raw) // _DESCRIPTOR.itemsize)
            places = ranks[rows] - chunk * _CHUNK
            inside = places < here.size
            found[rows[inside]] = here[places[inside]]
            found["flags"][rows[~inside]] = _BEYOND
        return found

    def content(self, offset: int, size: int, flags: int) -> bytes | None:
        """A block; None, and a count of the problem, when it cannot be read."""
        if flags == _BEYOND:
            return self._unread("pages are beyond the end of the truncated dump")
        if not 0 < size <= 2 * self.header.block_size:
            return self._unread("page descriptors are damaged")
        data = self.header.reader(offset, size)
        if len(data) < size:
            return self._unread("pages are beyond the end of the truncated dump")
        try:
            plain = _unpack(data, flags & _PACKED, self.header.block_size)
        except ValueError as error:
            return self._unread(f"pages are damaged ({error})")
        return plain if len(plain) == self.header.block_size else self._unread("pages have a wrong size")

    def _unread(self, why: str) -> bytes | None:
        """Count a block that cannot be read."""
        self.problems[why] = self.problems.get(why, 0) + 1
        return None


def _unpack(data: bytes, codec: int, size: int) -> bytes:
    """A page of ``size`` bytes, or a little more or less of a damaged one; ValueError where nothing can be unpacked."""
    unpack = _CODECS.get(codec)
    if unpack is None:
        raise ValueError(f"unknown compression {codec:#x}")
    try:
        return unpack(data, size)
    except Exception as error:  # each library has its own
        raise ValueError(str(error) or type(error).__name__) from error


def _zlib(data: bytes, size: int) -> bytes:
    return zlib.decompressobj().decompress(data, size + 1)


def _lzo(data: bytes, size: int) -> bytes:
    import lzallright  # noqa: PLC0415  # only where such a page is read, here and below

    return lzallright.LZOCompressor.decompress(data, output_size_hint=size)


def _snappy(data: bytes, size: int) -> bytes:
    import cramjam  # noqa: PLC0415

    page = bytearray(size)
    return bytes(page[: cramjam.snappy.decompress_raw_into(data, page)])


def _zstd(data: bytes, size: int) -> bytes:
    import zstandard  # noqa: PLC0415

    if zstandard.frame_content_size(data) > size:
        raise ValueError("a page that unpacks to more than a page")
    return zstandard.ZstdDecompressor().decompress(data, max_output_size=size)


_CODECS: dict[int, Callable[[bytes, int], bytes]] = {
    0: lambda data, _: data,
    _ZLIB: _zlib,
    _LZO: _lzo,
    _SNAPPY: _snappy,
    _ZSTD: _zstd,
}


_BYTE_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1).astype(np.uint8)


def _ones(words: U64) -> U64:
    """Number of set bits of each word."""
    counts: U64 = _BYTE_ONES[words.view(np.uint8).reshape(-1, 8)].sum(axis=1, dtype=np.uint64)
    return counts


class KdumpMemory(PhysicalMemory):
    """Physical memory in one kdump, or in the several files of a split one."""

    def __init__(self, headers: Sequence[Header], paths: Sequence[str]) -> None:
        self._path = paths[0]
        self._files = [_File(header, path) for header, path in zip(headers, paths, strict=True)]
        sizes = {header.block_size for header in headers}
        if len(sizes) != 1:
            raise FormatError("the split files do not belong together: block sizes differ", path=paths[1])
        self._block_size = sizes.pop()
        self._max_pfn = max(header.max_mapnr for header in headers)
        self._cached = functools.lru_cache(maxsize=_CACHED_BLOCKS)(self._content)

    @property
    def extents(self) -> tuple[U64, U64]:
        return np.zeros(1, dtype=np.uint64), np.array([self._max_pfn * self._block_size], dtype=np.uint64)

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """What could not be read so far, counted in blocks."""
        return tuple(
            Diagnostic(f"{count} {what}", self._path)
            for file in self._files
            for what, count in sorted(file.problems.items())
        )

    def _content(self, number: int, offset: int, size: int, flags: int) -> bytes | None:
        return self._files[number].content(offset, size, flags)

    def read_units(self, units: U64) -> tuple[U8, Bool]:
        out = np.zeros((units.size, UNIT), dtype=np.uint8)
        present = np.zeros(units.size, dtype=np.bool_)
        per_block = np.uint64(self._block_size // UNIT)
        pfns, where = np.unique(units // per_block, return_inverse=True)
        order = np.argsort(where, kind="stable")
        begins = np.searchsorted(where[order], np.arange(pfns.size + 1))
        parts = (units % per_block).astype(np.intp)
        for number, file in enumerate(self._files):
            held = np.flatnonzero(file.has(pfns))
            entries = file.descriptors(pfns[held])
            columns = (entries[name].tolist() for name in ("offset", "size", "flags"))
            for position, offset, size, flags in zip(held.tolist(), *columns, strict=True):
                data = self._cached(number, offset, size, flags)
                if data is None:
                    continue
                rows = order[begins[position] : begins[position + 1]]
                out[rows] = np.frombuffer(data, dtype=np.uint8).reshape(-1, UNIT)[parts[rows]]
                present[rows] = True
        return out, present

"""What unpacks the pages of a kdump, in every compression that makedumpfile and QEMU write."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

__all__ = ["LZO", "PACKED", "SNAPPY", "ZLIB", "ZSTD", "Codecs"]

ZLIB, LZO, SNAPPY, ZSTD = 0x1, 0x2, 0x4, 0x20
PACKED = ZLIB | LZO | SNAPPY | ZSTD
"""The flags of a page descriptor that name its compression; none of them: it is as it was."""
Unpack = Callable[[memoryview, memoryview], int]
"""Unpacks a page into the room for one; returns its size, of a damaged one whether too large or small."""


class Codecs(dict[int, Unpack]):
    """Decompressors of pages by flag, for one thread: those of zstd keep what they allocated."""

    def __missing__(self, codec: int) -> Unpack:
        if codec not in _CODECS:
            raise ValueError(f"unknown compression {codec:#x}")
        self[codec] = _CODECS[codec]()
        return self[codec]

    def unpack_all(self, pages: list[tuple[int, memoryview]], rooms: list[memoryview]) -> bool:
        """Unpack pages, each with its flag, into rooms; whether nothing is wrong with any."""
        try:
            sizes = {self[codec](data, room) for (codec, data), room in zip(pages, rooms, strict=True)}
        except Exception:  # each library has its own
            return False
        return sizes == {len(rooms[0])}

    def unpack(self, codec: int, data: memoryview, room: memoryview) -> bool:
        """Unpack a page into ``room``; whether it has its size.  ValueError if it cannot be unpacked."""
        try:
            return self[codec](data, room) == len(room)
        except Exception as error:
            raise ValueError(str(error) or type(error).__name__) from error


def _plain() -> Unpack:
    def unpack(data: memoryview, room: memoryview) -> int:
        if len(data) == len(room):
            room[:] = data
        return len(data)

    return unpack


def _zlib() -> Unpack:
    start = zlib.decompressobj

    def unpack(data: memoryview, room: memoryview) -> int:
        page = start().decompress(data, len(room) + 1)
        if len(page) == len(room):
            room[:] = page
        return len(page)

    return unpack


def _lzo() -> Unpack:
    import lzallright  # noqa: PLC0415  # only where such a page is read, here and below

    decompress: Callable[[memoryview, int], bytes] = lzallright.LZOCompressor.decompress

    def unpack(data: memoryview, room: memoryview) -> int:
        page = decompress(data, len(room))
        if len(page) == len(room):
            room[:] = page
        return len(page)

    return unpack


def _snappy() -> Unpack:
    import cramjam  # noqa: PLC0415

    unpack: Unpack = cramjam.snappy.decompress_raw_into
    return unpack


def _zstd() -> Unpack:
    import zstandard  # noqa: PLC0415

    decompressor: Any = zstandard.ZstdDecompressor()
    decompress, size_of = decompressor.decompress, zstandard.frame_content_size

    def unpack(data: memoryview, room: memoryview) -> int:
        if size_of(data) > len(room):
            raise ValueError("a page that unpacks to more than a page")
        page = decompress(data, max_output_size=len(room))
        if len(page) == len(room):
            room[:] = page
        return len(page)

    return unpack


_CODECS: dict[int, Callable[[], Unpack]] = {0: _plain, ZLIB: _zlib, LZO: _lzo, SNAPPY: _snappy, ZSTD: _zstd}

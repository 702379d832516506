"""What unpacks the pages of a kdump, in every compression that makedumpfile and QEMU write."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

__all__ = ["LZO", "PACKED", "SNAPPY", "ZLIB", "ZSTD", "Codecs"]

ZLIB, LZO, SNAPPY, ZSTD = 0x1, 0x2, 0x4, 0x20
PACKED = ZLIB | LZO | SNAPPY | ZSTD
"""The flags of a page descriptor that name its compression; none of them: it is as it was."""
Buffer = bytes | memoryview
Unpack = Callable[[Buffer, memoryview], int]
"""Unpacks a page into the room for one; returns its size, of a damaged one whether too large or small."""
UnpackAll = Callable[[bytes, list[int], list[int], memoryview, int], object]
"""The same of many at a time, as of `Codecs.unpack_all`; raises whatever it likes where anything is wrong with any."""


class Codecs(dict[int, tuple[Unpack, UnpackAll]]):
    """Decompressors of pages by flag, for one thread: those of zstd keep what they allocated."""

    def __missing__(self, codec: int) -> tuple[Unpack, UnpackAll]:
        if codec not in _CODECS:
            raise ValueError(f"unknown compression {codec:#x}")
        self[codec] = _CODECS[codec]()
        return self[codec]

    def unpack_all(
        self, codec: int, data: bytes, begins: list[int], ends: list[int], room: memoryview, size: int
    ) -> bool:
        """Unpack pages of ``size`` bytes, packed between offsets in ``data``, into ``room``; whether all went well."""
        try:
            self[codec][1](data, begins, ends, room, size)
        except Exception:  # each library has its own
            return False
        return True

    def unpack(self, codec: int, data: Buffer, room: memoryview) -> bool:
        """Unpack a page into ``room``; whether it has its size.  ValueError if it cannot be unpacked."""
        try:
            return self[codec][0](data, room) == len(room)
        except Exception as error:
            raise ValueError(str(error) or type(error).__name__) from error


def _returning(decompress: Callable[[Buffer, int], Buffer]) -> tuple[Unpack, UnpackAll]:
    """Of what returns a page and takes the most bytes that it may have."""

    def unpack(data: Buffer, room: memoryview) -> int:
        page = decompress(data, len(room))
        if len(page) == len(room):
            room[:] = page
        return len(page)

    def unpack_all(data: bytes, begins: list[int], ends: list[int], room: memoryview, size: int) -> None:
        at = 0
        for begin, end in zip(begins, ends, strict=True):
            room[at : at + size] = decompress(data[begin:end], size)  # ValueError where the sizes differ
            at += size

    return unpack, unpack_all


def _plain() -> tuple[Unpack, UnpackAll]:
    return _returning(lambda data, _: data)


def _zlib() -> tuple[Unpack, UnpackAll]:
    unpack, _ = _returning(lambda data, size: zlib.decompressobj().decompress(data, size + 1))
    decompress = zlib.decompress

    def unpack_all(data: bytes, begins: list[int], ends: list[int], room: memoryview, size: int) -> None:
        at = 0
        for begin, end in zip(begins, ends, strict=True):
            # Without a limit, which costs: a page of 2 * size bytes unpacks to a thousand times as many at most.
            room[at : at + size] = decompress(data[begin:end])
            at += size

    return unpack, unpack_all


def _lzo() -> tuple[Unpack, UnpackAll]:
    import lzallright  # noqa: PLC0415  # only where such a page is read, here and below

    return _returning(lzallright.LZOCompressor.decompress)


def _snappy() -> tuple[Unpack, UnpackAll]:
    import cramjam  # noqa: PLC0415

    unpack: Unpack = cramjam.snappy.decompress_raw_into

    def unpack_all(data: bytes, begins: list[int], ends: list[int], room: memoryview, size: int) -> None:
        at = 0
        for begin, end in zip(begins, ends, strict=True):
            if unpack(data[begin:end], room[at : at + size]) != size:
                raise ValueError
            at += size

    return unpack, unpack_all


def _zstd() -> tuple[Unpack, UnpackAll]:
    import zstandard  # noqa: PLC0415

    decompressor: Any = zstandard.ZstdDecompressor()
    decompress, size_of = decompressor.decompress, zstandard.frame_content_size

    def limited(data: Buffer, size: int) -> bytes:
        if size_of(data) > size:
            raise ValueError("a page that unpacks to more than a page")
        page: bytes = decompress(data, size)
        return page

    return _returning(limited)


_CODECS: dict[int, Callable[[], tuple[Unpack, UnpackAll]]] = {
    0: _plain,
    ZLIB: _zlib,
    LZO: _lzo,
    SNAPPY: _snappy,
    ZSTD: _zstd,
}

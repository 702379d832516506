"""Dumps and vmlinux files as they are sent: plain, or inside .zst, .gz or .xz.

Compressed content goes to a temporary file without a name, with holes for zeros, and never
more of it than the limits allow: a dump is input from strangers.
"""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from parsers.errors import FormatError, InputError

__all__ = ["MAX_RATIO", "open_plain"]

MAX_RATIO = 20_000
"""Greatest believable ratio of plain to compressed bytes; zeros compress about 4,000 to 16,000 times."""

_CHUNK = 1 << 20
_ZEROS = bytes(1 << 16)
_RATIO_FREE_BYTES = 64 << 20  # small files may have any ratio
_RESERVE = 256 << 20  # bytes of the temporary file system that are left alone


class _Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _ZstdFrames:
    """Reads concatenated zstd frames; unlike the library's reader it notices a frame that ends early."""

    _STEP = 2048  # compressed bytes at a time: at most 64 MiB of plain ones, twice

    def __init__(self, stream: BinaryIO) -> None:
        import zstandard  # noqa: PLC0415  # only where such a file is read

        self._stream = stream
        self._new = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj
        self._frame = self._new()
        self._fresh = True

    def read(self, _size: int) -> bytes:
        """The next piece, of any size; empty at the end."""
        while True:
            packed = self._frame.unused_data if self._frame.eof else b""
            packed = packed or self._stream.read(self._STEP)
            if not packed:
                if not (self._frame.eof or self._fresh):
                    raise EOFError("the file ends inside a frame")
                return b""
            if self._frame.eof:
                self._frame = self._new()
            self._fresh = False
            plain = self._frame.decompress(packed)
            if plain:
                return plain


def _gzip(stream: BinaryIO) -> _Reader:
    return gzip.GzipFile(fileobj=stream, mode="rb")


def _xz(stream: BinaryIO) -> _Reader:
    return lzma.LZMAFile(stream, "rb")


_FORMATS: dict[bytes, tuple[str, Callable[[BinaryIO], _Reader]]] = {
    b"\x28\xb5\x2f\xfd": ("zstd", _ZstdFrames),
    b"\x1f\x8b": ("gzip", _gzip),
    b"\xfd7zXZ\x00": ("xz", _xz),
}


def open_plain(path: Path) -> BinaryIO:
    """``path`` opened for reading, decompressed into an unnamed temporary file where necessary.

    Raises InputError when it cannot be read, FormatError when the compressed data is damaged or
    grows beyond :data:`MAX_RATIO` or the free space of the temporary directory.
    """
    try:
        stream = path.open("rb")
        head = stream.read(8)
        stream.seek(0)
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror or error}", path=str(path)) from error
    for magic, (name, opener) in _FORMATS.items():
        if head.startswith(magic):
            with stream:
                return _unpack(stream, name, opener, str(path))
    return stream


class _Limits:
    """What unpacking may still produce."""

    def __init__(self, packed: int, path: str) -> None:
        self.size = 0
        self._most = max(packed * MAX_RATIO, _RATIO_FREE_BYTES)
        self._room = shutil.disk_usage(tempfile.gettempdir()).free - _RESERVE
        self._path = path

    def add(self, size: int, stored: int) -> None:
        """Count a piece; FormatError when it is too much."""
        self.size += size
        self._room -= stored
        if self.size > self._most:
            raise FormatError(f"unpacks to more than {MAX_RATIO} times its size", path=self._path)
        if self._room < 0:
            raise FormatError(f"unpacked data does not fit into {tempfile.gettempdir()}", path=self._path)


def _unpack(stream: BinaryIO, name: str, opener: Callable[[BinaryIO], _Reader], path: str) -> BinaryIO:
    packed = os.fstat(stream.fileno()).st_size
    plain: BinaryIO = tempfile.TemporaryFile(prefix="ptaudit-")  # noqa: SIM115  # returned open
    limits = _Limits(packed, path)
    try:
        for chunk in _chunks(opener(stream), name, path):
            for start in range(0, len(chunk), len(_ZEROS)):
                piece = chunk[start : start + len(_ZEROS)]
                if piece == _ZEROS:
                    limits.add(len(piece), 0)
                    plain.seek(len(piece), os.SEEK_CUR)
                else:
                    limits.add(len(piece), len(piece))
                    plain.write(piece)
        plain.truncate(limits.size)
    except BaseException:
        plain.close()
        raise
    plain.seek(0)
    return plain


def _chunks(reader: _Reader, name: str, path: str) -> Iterator[bytes]:
    """The plain data piece by piece; damage becomes a FormatError."""
    while True:
        try:
            chunk = reader.read(_CHUNK)
        except (OSError, EOFError, lzma.LZMAError, zlib.error, MemoryError) as error:
            raise FormatError(f"damaged {name} data: {error}", path=path) from error
        except Exception as error:  # zstandard's own error class is not importable without the library
            if type(error).__name__ != "ZstdError":
                raise
            raise FormatError(f"damaged {name} data: {error}", path=path) from error
        if not chunk:
            return
        yield chunk

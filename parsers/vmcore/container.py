"""Dumps and vmlinux files as they are sent: plain, or compressed.

Compressed content goes to a temporary file without a name, with holes for zeros, and never
more of it than the limits allow: a dump is input from strangers.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from parsers.compressed import DAMAGE, LONGEST_WINDOW, Growth, Stream, compression, decompressed
from parsers.errors import FormatError, InputError
from parsers.progress import step

__all__ = ["MAX_RATIO", "open_plain"]

MAX_RATIO = 20_000
"""Greatest believable ratio of plain to compressed bytes; zeros compress about 4,000 to 16,000 times."""

_CHUNK = 1 << 20
_ZEROS = bytes(1 << 16)
_RATIO_FREE_BYTES = 64 << 20  # small files may have any ratio
_RESERVE = 256 << 20  # bytes of the temporary file system that are left alone


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
    if name := compression(head):
        with stream:
            return _unpack(stream, name, str(path))
    return stream


class _Limits:
    """What unpacking may still produce."""

    def __init__(self, packed: int, path: str) -> None:
        self.size = 0
        self._packed, self._growth = packed, Growth(MAX_RATIO, _RATIO_FREE_BYTES)
        self._room = shutil.disk_usage(tempfile.gettempdir()).free - _RESERVE
        self._path = path

    def add(self, size: int, stored: int) -> None:
        """Count a piece; FormatError when it is too much."""
        self.size += size
        self._room -= stored
        self._growth.check(self.size, self._packed, self._path)
        if self._room < 0:
            raise FormatError(f"unpacked data does not fit into {tempfile.gettempdir()}", path=self._path)


def _unpack(stream: BinaryIO, name: str, path: str) -> BinaryIO:
    packed = os.fstat(stream.fileno()).st_size
    plain: BinaryIO = tempfile.TemporaryFile(prefix="ptaudit-")  # noqa: SIM115  # returned open
    limits = _Limits(packed, path)
    try:
        with step(f"unpacking {path}", packed) as progress:
            for chunk in _chunks(decompressed(name, stream, window=LONGEST_WINDOW), name, path):
                _write_sparse(plain, chunk, limits)
                progress.reach(stream.tell())
            progress.reach(packed)
        plain.truncate(limits.size)
    except BaseException:
        plain.close()
        raise
    plain.seek(0)
    return plain


def _write_sparse(plain: BinaryIO, chunk: bytes, limits: _Limits) -> None:
    """Write a chunk, with holes for zeros."""
    for start in range(0, len(chunk), len(_ZEROS)):
        piece = chunk[start : start + len(_ZEROS)]
        if piece == _ZEROS:
            limits.add(len(piece), 0)
            plain.seek(len(piece), os.SEEK_CUR)
        else:
            limits.add(len(piece), len(piece))
            plain.write(piece)


def _chunks(reader: Stream, name: str, path: str) -> Iterator[bytes]:
    """The plain data piece by piece; damage becomes a FormatError."""
    while True:
        try:
            chunk = reader.read(_CHUNK)
        except DAMAGE as error:
            raise FormatError(f"damaged {name} data: {error}", path=path) from error
        if not chunk:
            return
        yield chunk

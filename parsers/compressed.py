"""Every compression that evidence comes in, once: recognised by its first bytes, read as a stream, bounded.

Compressed data is input from strangers.  The dictionaries of xz and zstd are limited to `WINDOW`, so that a header
cannot ask for more memory than that; how far data may grow is for the reader to say (`Growth`).
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from typing import IO, Any, Protocol, cast

from parsers.errors import FormatError
from parsers.records import dataclass

__all__ = [
    "DAMAGE",
    "LONGEST_WINDOW",
    "SUFFIXES",
    "Forward",
    "Growth",
    "Stream",
    "compression",
    "decompressed",
    "first_bytes",
]

WINDOW = 1 << 30
"""Most memory that a decompressor may take for what it has to look back at."""
LONGEST_WINDOW = 1 << 31
"""The same for crash dumps, which are large: what ``zstd --long=31`` asks for."""
_CHUNK = 1 << 20

DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, MemoryError, ValueError)
"""What reading damaged or truncated compressed data raises."""


class Stream(Protocol):
    """Something that is read from the front."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none at the end."""


class Forward(io.RawIOBase):
    """A file object that is read once, from the front, for libraries that want one."""

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Never."""
        return False

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 any buffer
        """Fill a buffer as far as one read goes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes, some if it is negative; none at the end."""
        raise NotImplementedError


@dataclass(slots=True)
class Growth:
    """How far data may grow when it is decompressed: ``ratio`` times its size, or ``free`` bytes if that is more."""

    ratio: int
    free: int

    def check(self, plain: int, packed: int, path: str) -> None:
        """FormatError where ``packed`` bytes have become more than is believable."""
        if plain > max(self.free, self.ratio * packed):
            raise FormatError(
                f"unpacks to more than {self.ratio} times its size, perhaps a bomb: if not, unpack it yourself",
                path=path,
            )


class _Gzip(Forward):
    """gzip data; what comes before a cut is read, which `gzip.GzipFile.read` loses."""

    def __init__(self, source: Stream) -> None:
        self.file = gzip.GzipFile(fileobj=cast(IO[bytes], source))

    def read(self, size: int = -1, /) -> bytes:
        return self.file.read1(_CHUNK if size < 0 else size)


class _Blocks(Forward):
    """xz and bzip2 data, one stream after the other."""

    def __init__(self, source: Stream, start: Callable[[], lzma.LZMADecompressor | bz2.BZ2Decompressor]) -> None:
        self.source, self.start, self.decompressor, self.rest = source, start, start(), b""

    def read(self, size: int = -1, /) -> bytes:
        size = _CHUNK if size < 0 else size
        while True:
            if self.decompressor.eof:
                self.rest = self.decompressor.unused_data.lstrip(b"\0") or self.source.read(_CHUNK).lstrip(b"\0")
                if not self.rest:
                    return b""
                self.decompressor = self.start()
            elif self.decompressor.needs_input and not self.rest:
                self.rest = self.source.read(_CHUNK)
                if not self.rest:
                    raise EOFError("the compressed data end too early")
            data = self.decompressor.decompress(self.rest, size)
            self.rest = b""
            if data:
                return data


class _Zstd(Forward):
    """zstd data, frame after frame, fed in pieces so small that what comes out of one can be held."""

    PIECE = 128  # at most 4 MiB of plain bytes, twice

    def __init__(self, source: Stream, window: int) -> None:
        import zstandard  # noqa: PLC0415 only where such a file is read

        self.error = zstandard.ZstdError
        self.start = zstandard.ZstdDecompressor(max_window_size=window).decompressobj
        self.source, self.rest, self.out, self.frame = source, b"", memoryview(b""), self.start()
        self.fresh = True

    def read(self, size: int = -1, /) -> bytes:
        while not self.out:
            piece = self.rest or self.source.read(self.PIECE)
            if self.frame.eof:
                if not piece:
                    return b""
                self.frame = self.start()
            elif not piece:
                if self.fresh:
                    return b""
                raise EOFError("the file ends inside a frame")
            self.fresh = False
            try:
                self.out = memoryview(self.frame.decompress(piece))
            except self.error as error:
                raise zlib.error(str(error)) from error
            self.rest = self.frame.unused_data if self.frame.eof else b""
        size = _CHUNK if size < 0 else size
        data, self.out = bytes(self.out[:size]), self.out[size:]
        return data


@dataclass(frozen=True)
class _Compression:
    magic: bytes
    suffixes: tuple[str, ...]
    opened: Callable[[Stream, int], Stream]


_COMPRESSIONS: dict[str, _Compression] = {
    "gzip": _Compression(b"\x1f\x8b", (".gz",), lambda source, _: _Gzip(source)),
    "bzip2": _Compression(b"BZh", (".bz2",), lambda source, _: _Blocks(source, bz2.BZ2Decompressor)),
    "xz": _Compression(
        b"\xfd7zXZ\0", (".xz",), lambda source, window: _Blocks(source, lambda: lzma.LZMADecompressor(memlimit=window))
    ),
    "zstd": _Compression(b"\x28\xb5\x2f\xfd", (".zst", ".zstd"), _Zstd),
}

SUFFIXES = frozenset(suffix for one in _COMPRESSIONS.values() for suffix in one.suffixes)
"""What the names of compressed files end with."""


def compression(head: bytes) -> str:
    """The compression of a file that begins with these bytes; empty if it is not compressed.

    >>> compression(gzip.compress(b"text")), compression(b"text")
    ('gzip', '')
    """
    return next((name for name, one in _COMPRESSIONS.items() if head.startswith(one.magic)), "")


def decompressed(name: str, source: Stream, *, window: int = WINDOW) -> Stream:
    """The plain data of a stream compressed as `compression` says; reading it raises `DAMAGE`."""
    return _COMPRESSIONS[name].opened(source, window)


def first_bytes(head: bytes, size: int) -> bytes:
    """The first ``size`` bytes, or as many as ``head`` gives, of what a file that begins with ``head`` holds.

    They are those of ``head`` itself if it is not compressed, and none if it is damaged.

    >>> first_bytes(gzip.compress(bytes(99999))[:60], 3), first_bytes(b"text", 3)
    (b'\\x00\\x00\\x00', b'tex')
    """
    name = compression(head)
    if not name:
        return head[:size]
    plain, found = decompressed(name, io.BytesIO(head), window=LONGEST_WINDOW), b""
    try:
        while len(found) < size and (piece := plain.read(size - len(found))):
            found += piece
    except DAMAGE:
        return found
    return found

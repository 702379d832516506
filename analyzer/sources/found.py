"""A file of a capture, wherever it lies: on disk, or in an archive that was read; and one that was used."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import field
from pathlib import Path

from parsers.errors import Diagnostic, InputError
from parsers.progress import step
from parsers.records import dataclass

__all__ = ["MAX_FILE_BYTES", "UNENDED", "Found", "Source", "digest", "head_of"]

MAX_FILE_BYTES = 8 << 30
UNENDED = "the last line has no end: perhaps it is cut short"
_PEEK = 4096
_PIECE = 1 << 20


@dataclass(frozen=True)
class Found:
    """A file by the name under which it is reported."""

    name: str
    where: Path | bytes = field(repr=False)
    """On disk, or its content."""

    def content(self) -> bytes:
        """All of it; InputError for what is not a regular file, is too large, or cannot be read."""
        return self.where if isinstance(self.where, bytes) else _content(self.where, None)

    def head(self, size: int) -> bytes:
        """The first bytes."""
        return self.where[:size] if isinstance(self.where, bytes) else head_of(self.where, size)

    def size(self) -> int:
        """Bytes; InputError for a file that no longer exists."""
        if isinstance(self.where, bytes):
            return len(self.where)
        try:
            return self.where.stat().st_size
        except OSError as error:
            raise InputError(error.strerror or str(error), path=self.name) from error

    def unended(self) -> tuple[Diagnostic, ...]:
        """Warn if the last line lacks a newline: the kernel ends every line, so it was truncated, or pasted."""
        if _is_binary(self.head(_PEEK)):
            return ()
        if isinstance(self.where, bytes):
            size, last = len(self.where), self.where[-1:]
        else:
            with self.where.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(size - 1, 0))
                last = file.read(1)
        return () if last == b"\n" else (Diagnostic(UNENDED, self.name, offset=size),)

    def digest(self) -> str:
        """SHA-256, without holding a file that lies on disk."""
        if isinstance(self.where, bytes):
            return digest(self.where)
        hashed, room = hashlib.sha256(), bytearray(_PIECE)
        with step(f"hashing {self.name}", self.size()) as progress, self.where.open("rb", buffering=0) as file:
            while size := file.readinto(room):
                hashed.update(memoryview(room)[:size])
                progress.advance(size)
        return hashed.hexdigest()


@dataclass(frozen=True)
class Source:
    """A file that was read: its kind, its hash, what was odd about it."""

    kind: str
    path: str
    sha256: str
    diagnostics: tuple[Diagnostic, ...] = ()
    whole: bool = True
    """Whether the hash is of the whole file, see `analyzer.sources.crashdump.digest_of_dump`."""


def _is_binary(head: bytes) -> bool:
    return b"\0" in head or head.startswith(b"\x1f\x8b")


def head_of(path: Path, size: int) -> bytes:
    """The first bytes of a regular file."""
    return _content(path, size)


def digest(data: bytes) -> str:
    """SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def _content(path: Path, limit: int | None) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError("not a regular file", path=str(path))
        if limit is None and status.st_size > MAX_FILE_BYTES:
            raise InputError(f"larger than {MAX_FILE_BYTES >> 30} GiB", path=str(path))
        with path.open("rb") as file:
            return file.read() if limit is None else file.read(limit)
    except OSError as error:
        raise InputError(error.strerror or str(error), path=str(path)) from error

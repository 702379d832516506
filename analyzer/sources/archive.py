"""Archives as sources: tar, zip and compressed files, streamed through memory and never unpacked to disk.

What is inside is hostile until shown otherwise.  Members are only ever read, so a name that leads out of the archive,
a link or a device can do no harm, and is left out with a word; what grows beyond all measure is refused (`Limits`).
Archives in archives are opened on the way.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from analyzer.sources.sniff import is_vmcore
from parsers.compressed import DAMAGE, SUFFIXES, Forward, Growth, Stream, compression, decompressed, first_bytes
from parsers.errors import Diagnostic, InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["HEAD_BYTES", "Contents", "Limits", "Member", "archive_format", "inner_format", "plain_name", "read_archive"]

HEAD_BYTES = 16 << 10
"""Enough to tell what is inside of a compressed file."""
_CHUNK = 1 << 20
_BLOCK = 512
_MAX_HEADER = 1 << 20
_MAX_ENDS = 64
"""How often the end of an archive is met: tarfile skips in steps what a member claims to hold, where nothing is too."""
_TARBALLS = {".tgz", ".tbz", ".tbz2", ".txz", ".tzst"}


@dataclass(frozen=True)
class Limits:
    """What an archive may grow to."""

    members: int = 2_000_000
    member_bytes: int = 1 << 30
    """Of one member that is read."""
    kept_bytes: int = 4 << 30
    """Of all members that are read."""
    total_bytes: int = 256 << 30
    """Of everything that is decompressed to get at them."""
    ratio: int = 250
    ratio_from: int = 64 << 20
    """A compressed file may grow by more than ``ratio`` up to here."""
    depth: int = 5


@dataclass(frozen=True)
class Member:
    """A file in an archive that was read."""

    name: str
    """``archive.tar.gz:path/in/archive``."""
    relative: str
    """Its path, with archives in the archive as directories."""
    data: bytes = field(repr=False)


@dataclass(eq=False)
class Contents:
    """What an archive holds: members that were read, names of those that were not wanted, what was refused."""

    members: list[Member] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    notes: list[Diagnostic] = field(default_factory=list)


def archive_format(head: bytes) -> str:
    """What a file that begins like this is: ``tar``, ``zip``, the name of a compression, or an empty string."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    return compression(head) or ("tar" if _is_tar(head) else "")


def _is_tar(head: bytes) -> bool:
    """The checksum of the first header is right: also in archives of tar's that write no magic."""
    block = head[:_BLOCK]
    if len(block) < _BLOCK or not block[0]:
        return False
    try:
        stated = int(block[148:156].split(b"\0")[0].strip() or b"-", 8)
    except ValueError:
        return False
    return stated == sum(block[:148]) + sum(block[156:]) + 8 * ord(" ")


def plain_name(name: str) -> str:
    """The name without the suffix of a compression: ``dmesg.gz`` is ``dmesg``."""
    path = PurePosixPath(name)
    if path.suffix in _TARBALLS:
        return str(path.with_suffix(".tar"))
    return str(path.with_suffix("")) if path.suffix in SUFFIXES and path.stem else name


def inner_format(head: bytes) -> str:
    """`archive_format` of what is inside of a compression; empty if the beginning does not tell."""
    form = archive_format(head)
    if form in {"", "tar", "zip"}:
        return form
    return archive_format(first_bytes(head, _BLOCK))


def read_archive(path: Path, keep: Callable[[str], bool], limits: Limits | None = None) -> Contents:
    """Read the members whose path ``keep`` accepts.

    A single compressed file counts as an archive of one member, which is always read.  Raises `InputError` where
    the archive cannot be read, is damaged, or exceeds the limits; the message names the member.
    """
    reading = _Reading(keep, limits or Limits())
    try:
        with path.open("rb") as file:
            reading.stream(file, str(path), "", 0)
    except OSError as error:
        raise InputError(error.strerror or str(error), path=str(path)) from error
    return reading.finish(str(path))


class _Reading:
    """One archive with all that are in it."""

    def __init__(self, keep: Callable[[str], bool], limits: Limits) -> None:
        self.keep = keep
        self.limits = limits
        self.contents = Contents()
        self.left_out: dict[str, list[str]] = {}
        self.seen = 0
        self.kept = 0
        self.total = 0

    def finish(self, path: str) -> Contents:
        """The contents, with one note for each reason to leave members out."""
        for reason, names in self.left_out.items():
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            self.contents.notes.append(Diagnostic(f"{names[0]}{more}: {reason}", path))
        return self.contents

    def leave_out(self, name: str, reason: str) -> None:
        """A member that is not read."""
        self.left_out.setdefault(reason, []).append(name)

    def stream(self, source: Stream, name: str, relative: str, depth: int) -> None:
        """An archive or compressed file, from its first byte; it is known to be one."""
        if depth > self.limits.depth:
            raise InputError(f"archives are nested more than {self.limits.depth} deep", path=name)
        head = source.read(HEAD_BYTES)
        again: Stream = _Replay(head, source)
        form = archive_format(head)
        if not form:
            raise InputError("neither an archive nor compressed", path=name)
        try:
            if form == "zip":
                self.zip(source if isinstance(source, io.BufferedReader) else None, again, name, relative, depth)
            elif form == "tar":
                self.tar(again, name, relative, depth)
            else:
                self.compressed(form, again, name, relative, depth)
        except InputError:
            raise
        except _DAMAGE as error:
            raise InputError(f"damaged or cut short: {error or type(error).__name__}", path=name) from error

    def compressed(self, form: str, source: Stream, name: str, relative: str, depth: int) -> None:
        counted = _Counted(source)
        plain = _Guarded(self, decompressed(form, counted), lambda: counted.total, name)
        head = plain.read(HEAD_BYTES)
        inside = _Replay(head, plain)
        if archive_format(head):
            self.stream(inside, name, relative, depth + 1)
        elif is_vmcore(head):
            self.leave_out(name, _DUMP)
        else:
            self.take(inside, name, plain_name(relative or PurePosixPath(name).name))

    def tar(self, source: Stream, name: str, relative: str, depth: int) -> None:
        guarded = _Guarded(self, source, None, name)
        with tarfile.open(fileobj=guarded, mode="r|", tarinfo=_Header, errorlevel=2) as archive:
            for info in archive:
                inner = self.member(info.name, name)
                if inner is None or info.isdir():
                    continue
                full, path = f"{name}:{inner}", f"{relative}/{inner}".lstrip("/")
                if not info.isreg() or info.issparse():
                    self.leave_out(full, "no plain file, not followed" if not info.isreg() else "sparse, not read")
                    continue
                file = archive.extractfile(info)
                if file is not None:
                    self.file(file, info.size, full, path, depth)
                archive.members.clear()  # type: ignore[attr-defined]  # else it remembers them all
        if guarded.total and guarded.tail.strip(b"\0"):
            raise InputError("cut short: the end of the archive is missing", path=name)

    def zip(self, seekable: IO[bytes] | None, source: Stream, name: str, relative: str, depth: int) -> None:
        """A zip has its directory at the end: one inside of another archive is held in memory."""
        if seekable is None:
            seekable = io.BytesIO(self.whole(source, name))
        with zipfile.ZipFile(seekable) as archive:
            for info in archive.infolist():
                inner = self.member(info.filename, name)
                if inner is None or info.filename.endswith("/"):
                    continue
                full, path = f"{name}:{inner}", f"{relative}/{inner}".lstrip("/")
                mode = info.external_attr >> 28
                if info.flag_bits & 1:
                    self.leave_out(full, "encrypted, not read")
                elif mode not in {0, 8}:
                    self.leave_out(full, "no plain file, not followed")
                else:
                    self.packed(archive, info, full, path, depth)

    def packed(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, relative: str, depth: int) -> None:
        """A member of a zip."""
        try:
            with archive.open(info) as file:
                plain = _Guarded(self, file, lambda: max(info.compress_size, 1), name)
                self.file(plain, info.file_size, name, relative, depth)
        except NotImplementedError as error:
            self.leave_out(name, str(error))

    def member(self, inner: str, name: str) -> str | None:
        """The member's path, None for one that leads out of the archive."""
        self.seen += 1
        if self.seen > self.limits.members:
            raise InputError(f"more than {self.limits.members} members, the last {_shown(inner)}", path=name)
        path = PurePosixPath(inner.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            self.leave_out(f"{name}:{_shown(inner)}", "its name leads out of the archive, not read")
            return None
        return _shown(str(path))

    def file(self, file: Stream, size: int, name: str, relative: str, depth: int) -> None:
        """A plain file of an archive: kept if it is wanted, opened if it is an archive."""
        if self.keep(relative):
            if size > self.limits.member_bytes:
                self.leave_out(name, f"larger than {self.limits.member_bytes >> 20} MiB, not read")
            else:
                self.take(file, name, relative)
            return
        head = file.read(HEAD_BYTES)
        if is_vmcore(head):
            self.leave_out(name, _DUMP)
        elif inner_format(head) in {"tar", "zip"} or (archive_format(head) and self.keep(plain_name(relative))):
            self.stream(_Replay(head, file), name, relative, depth + 1)
        else:
            self.contents.ignored.append(name)

    def take(self, source: Stream, name: str, relative: str) -> None:
        """Read a member."""
        data = self.whole(source, name)
        self.kept += len(data)
        self.contents.members.append(Member(name, relative, data))

    def whole(self, source: Stream, name: str) -> bytes:
        limit = min(self.limits.member_bytes, self.limits.kept_bytes - self.kept)
        pieces, size = [], 0
        while piece := source.read(_CHUNK):
            size += len(piece)
            if size > limit:
                raise InputError(f"more than {limit >> 20} MiB to read", path=name)
            pieces.append(piece)
        return b"".join(pieces)


_DUMP = "a crash dump: extract it and give it by itself"


class _Header(tarfile.TarInfo):
    """A header whose long names and extended attributes are bounded."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:  # noqa: ANN401 as in tarfile
        extension = self.type in tarfile.SUPPORTED_TYPES and self.type not in {*tarfile.REGULAR_TYPES, tarfile.DIRTYPE}
        if extension and not self.islnk() and not self.issym() and self.size > _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]


class _Replay(Forward):
    """A stream whose beginning was read already."""

    def __init__(self, head: bytes, rest: Stream) -> None:
        self.head, self.rest = head, rest

    def read(self, size: int = -1, /) -> bytes:
        if not self.head:
            return self.rest.read(_CHUNK if size < 0 else size)
        size = len(self.head) if size < 0 else size
        data, self.head = self.head[:size], self.head[size:]
        return data


class _Counted(Forward):
    """How much was read."""

    def __init__(self, inner: Stream) -> None:
        self.inner, self.total = inner, 0

    def read(self, size: int = -1, /) -> bytes:
        data = self.inner.read(_CHUNK if size < 0 else min(size, _CHUNK))
        self.total += len(data)
        return data


class _Guarded(Forward):
    """What comes out of an archive, against the limits."""

    def __init__(self, reading: _Reading, inner: Stream, packed: Callable[[], int] | None, name: str) -> None:
        self.reading, self.inner, self.packed, self.name = reading, inner, packed, name
        self.total, self.tail, self.ends = 0, b"", 0

    def read(self, size: int = -1, /) -> bytes:
        data = self.inner.read(_CHUNK if size < 0 else min(size, _CHUNK))
        limits = self.reading.limits
        self.total += len(data)
        self.reading.total += len(data)
        self.tail = (self.tail + data)[-_BLOCK:]
        self.ends += not data
        if self.ends > _MAX_ENDS:
            raise EOFError("a member reaches beyond the end")
        if self.reading.total > limits.total_bytes:
            raise InputError(f"unpacks to more than {limits.total_bytes >> 30} GiB", path=self.name)
        if self.packed is not None:
            Growth(limits.ratio, limits.ratio_from).check(self.total, self.packed(), self.name)
        return data


_DAMAGE = (*DAMAGE, tarfile.TarError, zipfile.BadZipFile, RecursionError, OverflowError, NotImplementedError)


def _shown(name: str) -> str:
    """A member's name without what a terminal would take for commands."""
    printable = "".join(char if char.isprintable() else "?" for char in name[:4096])
    return printable.encode("utf-8", "replace").decode()

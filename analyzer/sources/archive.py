"""Archives as sources: tar, zip and compressed files, streamed through memory and never unpacked to disk.

What is inside is hostile until shown otherwise.  Members are only ever read, so a name that leads out of the archive,
a link or a device can do no harm, and is left out and named; what grows without limit is refused (`Limits`).
Archives in archives are opened on the way; one that is damaged is left out and named.
"""

from __future__ import annotations

import copy
import io
import tarfile
import zipfile
from dataclasses import field
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any, cast

from analyzer.sources.archive_format import HEAD_BYTES, archive_format, inner_format, plain_name
from analyzer.sources.budget import Budget
from analyzer.sources.sniff import is_vmcore
from parsers.compressed import DAMAGE, Forward, Growth, Stream, compression, decompressed
from parsers.errors import BudgetError, Diagnostic, InputError
from parsers.expressions import expression
from parsers.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from analyzer.sources.recognise import Look

__all__ = ["Contents", "Limits", "Member", "read_archive"]

_CHUNK = 1 << 20
_BLOCK = 512
_MAX_HEADER = 1 << 20
_PAX_DIGITS = 9
_LONG_NUMBER = expression(rb"\d{1000}")
_MAX_ENDS = 64
"""How often the end of an archive is met: tarfile skips in steps what a member claims to hold, where nothing is too."""


@dataclass(frozen=True)
class Limits:
    """What one archive may grow to, however large the `Budget` is on which all of them draw."""

    members: int = 2_000_000
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
    named: bool = True
    """Whether its name was wanted, or only its content."""


@dataclass(eq=False)
class Contents:
    """What an archive holds: members that were read, names of those that were not wanted, what was refused and why."""

    members: list[Member] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    notes: list[Diagnostic] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """Names of members that were not read, by the reason."""


def read_archive(
    path: Path,
    keep: Callable[[str], bool],
    limits: Limits | None = None,
    *,
    look: Look | None = None,
    budget: Budget | None = None,
) -> Contents:
    """Read the members whose path ``keep`` accepts, and those in which ``look`` finds evidence.

    A single compressed file counts as an archive of one member, which is always read.  Members that do not fit into
    the budget are left out.  Raises `InputError` where the archive cannot be read, is damaged, or exceeds the limits;
    the message names the member.
    """
    reading = _Reading(keep, limits or Limits(), look, budget or Budget())
    kept = reading.budget.kept
    try:
        with path.open("rb") as file:
            try:
                reading.stream(file, str(path), "", 0)
            except BudgetError as error:
                reading.failed(error, str(path))
        return reading.finish(str(path))
    except OSError as error:
        reading.budget.kept = kept
        raise InputError(error.strerror or str(error), path=str(path)) from error
    except InputError:
        reading.budget.kept = kept
        raise


class _Reading:
    """One archive with all that are in it."""

    def __init__(self, keep: Callable[[str], bool], limits: Limits, look: Look | None, budget: Budget) -> None:
        self.keep = keep
        self.limits = limits
        self.look = look
        self.budget = budget
        self.contents = Contents()
        self.names: set[str] = set()
        self.seen = 0
        self.failures: list[InputError] = []
        """Of members, while others can be read."""

    def finish(self, path: str) -> Contents:
        """The contents, with one note for each reason to leave members out; raises where failures left nothing."""
        if self.failures and not self.contents.members:
            raise self.failures[0]
        for reason, names in self.contents.left_out.items():
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            self.contents.notes.append(Diagnostic(f"{names[0]}{more}: {reason}", path))
        return self.contents

    def leave_out(self, name: str, reason: str) -> None:
        """A member that is not read."""
        self.contents.left_out.setdefault(reason, []).append(name)

    def failed(self, error: InputError, name: str) -> None:
        """A member that cannot be read."""
        self.failures.append(error.without_frames())
        self.leave_out(error.path or name, error.message)

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
            raise _damaged(error, name) from error

    def compressed(self, form: str, source: Stream, name: str, relative: str, depth: int) -> None:
        counted = _Counted(source)
        plain = _Guarded(self, decompressed(form, counted), lambda: counted.total, name)
        head = plain.read(HEAD_BYTES)
        if archive_format(head):
            self.stream(_Replay(head, plain), name, relative, depth + 1)
            return
        if is_vmcore(head):
            self.leave_out(name, _DUMP)
            return
        salvage = _Salvage(_Replay(head, plain))
        if not relative or self.keep(plain_name(relative)):
            self.take(salvage, name, plain_name(relative or PurePosixPath(name).name))
        else:
            self.look_into(salvage, head, 0, name, plain_name(relative))
        if salvage.cut:
            said = f"cut short: read are the first {plain.total} bytes that could be decompressed, the rest is missing"
            self.contents.notes.append(Diagnostic(said, name))

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
            data = self.whole(source, name)
            self.budget.keep(len(data), name)
            try:
                self.zip(io.BytesIO(data), source, name, relative, depth)
            finally:
                self.budget.kept -= len(data)
            return
        with zipfile.ZipFile(seekable) as archive:
            members = archive.infolist()
            if sum(info.compress_size for info in members) > seekable.seek(0, io.SEEK_END):
                raise InputError("its members overlap: together they are larger than the archive", path=name)
            for info in members:
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
                    self.apart(archive, info, full, path, depth)

    def apart(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, relative: str, depth: int) -> None:
        """A member of a zip, which has its own place there: what is wrong with it is not wrong with others."""
        try:
            self.packed(archive, info, name, relative, depth)
        except InputError as error:
            self.failed(error, name)
        except _DAMAGE as error:
            self.failed(_damaged(error, name), name)

    def packed(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, relative: str, depth: int) -> None:
        """A member of a zip; zipfile reads bzip2 and LZMA without bounds, so those are decompressed here."""
        if info.compress_type in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            with archive.open(info) as file:
                self.grown(file, info, name, relative, depth)
        elif info.compress_type == zipfile.ZIP_BZIP2:
            with archive.open(_stored(info)) as packed:
                self.grown(decompressed("bzip2", cast(Stream, packed)), info, name, relative, depth)
        else:
            self.leave_out(name, f"compression method {info.compress_type}, not read")

    def grown(self, plain: Any, info: zipfile.ZipInfo, name: str, relative: str, depth: int) -> None:  # noqa: ANN401 a stream
        """The plain data of a member of a zip."""
        guarded = _Guarded(self, plain, lambda: max(info.compress_size, 1), name)
        self.file(guarded, info.file_size, name, relative, depth)

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
            self.take(file, name, relative)
            return
        head = file.read(HEAD_BYTES)
        if is_vmcore(head):
            self.leave_out(name, _DUMP)
        elif inner_format(head) in {"tar", "zip"} or (archive_format(head) and self.keep(plain_name(relative))):
            try:
                self.stream(_Replay(head, file), name, relative, depth + 1)
            except InputError as error:  # of an exhausted budget the next member says so again
                self.failed(error, name)
        elif compression(head) and self.look is not None:
            self.compressed(compression(head), _Replay(head, file), name, relative, depth)
        else:
            self.look_into(_Replay(head, file), head, size, name, relative)

    def look_into(self, source: Stream, head: bytes, size: int, name: str, relative: str) -> None:
        """A member with an unknown name, which is kept if it is evidence."""
        refused = "" if self.look is None else self.look.refused(head, max(size, len(head)))
        if self.look is None or refused is not None:
            if refused:
                self.leave_out(name, refused)
            self.contents.ignored.append(name)
            return
        most = self.budget.bounds.look_bytes
        data = b"".join(self.pieces(source, most + 1))
        if len(data) > most:
            self.leave_out(name, self.budget.too_large_to_look)
        if len(data) > most or not self.look.documents(data):
            self.contents.ignored.append(name)
            return
        try:
            self.keep_member(Member(name, relative, data, named=False))
        except BudgetError as error:
            self.failed(error, name)

    def take(self, source: Stream, name: str, relative: str) -> None:
        """Read a member, if it fits into the budget."""
        try:
            self.keep_member(Member(name, relative, self.whole(source, name)))
        except BudgetError as error:
            self.failed(error, name)

    def keep_member(self, member: Member) -> None:
        """Keep a member; of two with the same name the last is the file, as when the archive is unpacked."""
        self.budget.keep(len(member.data), member.name)
        if member.relative in self.names:
            self.leave_out(member.name, "more than once in the archive: the last one is read")
            self.contents.members = [one for one in self.contents.members if one.relative != member.relative]
        self.names.add(member.relative)
        self.contents.members.append(member)

    def whole(self, source: Stream, name: str) -> bytes:
        """All of a member; BudgetError for one that is too large, of which no more than may be held is read."""
        bounds = self.budget.bounds
        room = max(bounds.kept_bytes - self.budget.kept, 0)
        data = b"".join(self.pieces(source, min(bounds.member_bytes, room) + 1))
        if len(data) > bounds.member_bytes:
            raise BudgetError(f"larger than {bounds.member_bytes >> 20} MiB: {self.budget.raise_it}", path=name)
        return data

    def pieces(self, source: Stream, most: int) -> Iterator[bytes]:
        """At most that many bytes."""
        while most > 0 and (piece := source.read(min(_CHUNK, most))):
            most -= len(piece)
            yield piece


_DUMP = "a crash dump: extract it and give it by itself"


def _damaged(error: BaseException, name: str) -> InputError:
    return InputError(f"damaged or cut short: {error or type(error).__name__}", path=name)


def _stored(info: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """The member as if it were not compressed: its packed bytes."""
    packed = copy.copy(info)
    packed.compress_type, packed.file_size = zipfile.ZIP_STORED, info.compress_size
    packed.CRC = None  # type: ignore[assignment]  # zipfile then checks none
    return packed


class _Header(tarfile.TarInfo):
    """A header whose long names and extended attributes are bounded."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:  # noqa: ANN401 as in tarfile
        extension = self.type in tarfile.SUPPORTED_TYPES and self.type not in {*tarfile.REGULAR_TYPES, tarfile.DIRTYPE}
        if extension and not self.islnk() and not self.issym() and self.size > _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]

    def _proc_pax(self, archive: Any) -> Any:  # noqa: ANN401 as in tarfile
        """Extended attributes, which tarfile searches by expressions that take quadratic time on damaged ones."""
        stream = archive.fileobj
        data = stream.read(-(-self.size // _BLOCK) * _BLOCK)
        if not _is_pax(data[: self.size]):
            raise tarfile.ReadError("damaged extended attributes")
        archive.fileobj = _Pushed(data, stream)
        try:
            return super()._proc_pax(archive)  # type: ignore[misc]
        finally:
            archive.fileobj = stream


class _Pushed:
    """A stream of tarfile with bytes pushed back, which are read in one piece first."""

    def __init__(self, data: bytes, stream: Any) -> None:  # noqa: ANN401 tarfile's own
        self.data, self.stream = data, stream

    def read(self, size: int) -> bytes:
        data, self.data = self.data, b""
        return data or cast(bytes, self.stream.read(size))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 whatever tarfile asks for
        return getattr(self.stream, name)


def _is_pax(data: bytes) -> bool:
    """Whether extended attributes are records ``LENGTH KEY=VALUE`` without long runs of digits."""
    at = 0
    while at < len(data) and data[at]:
        digits = data[at : at + _PAX_DIGITS].partition(b" ")[0]
        size = int(digits) if digits.isdigit() else 0
        record = data[at : at + size]
        if not size or len(record) < size or b"=" not in record or not record.endswith(b"\n"):
            return False
        at += size
    return not _LONG_NUMBER.search(data)


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


class _Salvage(Forward):
    """The data of a compressed file up to where it is cut; other damage still raises.

    A cut text has no newline at its end: by that its parser sees that the text is not whole.
    """

    def __init__(self, inner: Stream) -> None:
        self.inner, self.last, self.cut, self.ended = inner, b"", False, False

    def read(self, size: int = -1, /) -> bytes:
        if self.ended:
            return b""
        try:
            data = self.inner.read(size)
        except EOFError:
            self.cut = self.ended = True
            return self.last.rstrip(b"\n")
        self.ended = not data
        data = self.last + data
        self.last = b"" if self.ended else data[-1:]
        return data if self.ended else data[:-1] or self.read(size)


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
        self.reading.budget.go_through(len(data), self.name)
        self.tail = (self.tail + data)[-_BLOCK:]
        self.ends += not data
        if self.ends > _MAX_ENDS:
            raise EOFError("a member reaches beyond the end")
        if self.packed is not None:
            Growth(limits.ratio, limits.ratio_from).check(self.total, self.packed(), self.name)
        return data


_DAMAGE = (*DAMAGE, tarfile.TarError, zipfile.BadZipFile, RecursionError, OverflowError, NotImplementedError)


def _shown(name: str) -> str:
    """A member's name without what a terminal would take for commands."""
    printable = "".join(char if char.isprintable() else "?" for char in name[:4096])
    return printable.encode("utf-8", "replace").decode()

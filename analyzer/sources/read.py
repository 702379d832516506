"""From paths to what was captured: directories are searched, single files recognised by content.

Nothing here follows a link out of the capture, opens a device or a pipe, or reads more than it must.
"""

from __future__ import annotations

import hashlib
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyzer.sources.crashdump import Symbols, is_vmcore, read_vmcore, whole_dumps
from analyzer.sources.kinds import BY_NAME, SNIFF_BYTES, Kind, kind_of_content, kind_of_path
from parsers.errors import Diagnostic, InputError, PtauditError, UsageError
from parsers.hugepages import parse_hugepages_tree
from parsers.memory_blocks import parse_memory_blocks_tree
from rules.model.captured import Captured

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Request", "Source", "Sources", "read_sources"]

MAX_FILE_BYTES = 8 << 30
MAX_FILES = 2_000_000
_SYSFS_MEMORY = re.compile(r"(?:^|/)sys/devices/system/memory/((?:memory\d+/)?[\w]+)$")
_SYSFS_HUGEPAGES = re.compile(r"(?:^|/)sys/kernel/mm/hugepages/(hugepages-\d+kB/\w+)$")


@dataclass(frozen=True)
class Source:
    """A file that was read: its kind, its hash, what was odd about it."""

    kind: str
    path: str
    sha256: str
    diagnostics: tuple[Diagnostic, ...] = ()


@dataclass(eq=False)
class Sources:
    """What was read, and the files that were not recognised."""

    captured: Captured
    sources: list[Source] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Request:
    """What to read: paths, files whose kind is given, layout values, symbols of a crash dump's kernel."""

    paths: tuple[Path, ...]
    kinds: dict[str, Path] = field(default_factory=dict)
    layout: dict[str, int] = field(default_factory=dict)
    symbols: Symbols = field(default_factory=Symbols)


def read_sources(request: Request) -> Sources:
    """Read everything that is asked for into one evidence set.

    Raises `InputError` where a path cannot be read or nothing in it is understood, `UsageError` for a
    directory with several captures.
    """
    reading = _Reading(request.symbols)
    for path in request.paths:
        if path.is_dir():
            reading.directory(path)
        else:
            reading.single(path)
    for dump in whole_dumps(reading.dumps) if reading.dumps else ():
        reading.vmcore(dump)
    for name, path in request.kinds.items():
        if name not in BY_NAME:
            raise UsageError(f"no such kind {name!r}; known: {', '.join(BY_NAME)}")
        reading.file(path, BY_NAME[name], str(path))
    return reading.finish(request.layout)


class _Reading:
    """One evidence set in the making."""

    def __init__(self, symbols: Symbols) -> None:
        self.symbols = symbols
        self.parsed: dict[str, list[Any]] = {}
        self.sources: list[Source] = []
        self.dumps: list[Path] = []
        self.ignored: list[str] = []
        self.failures: list[PtauditError] = []

    def directory(self, root: Path) -> None:
        """Everything in a capture directory, or in a copied /proc and /sys tree."""
        files = dict(_walk(root))
        _refuse_several(root, files)
        trees: dict[str, dict[str, bytes]] = {"memory": {}, "hugepages": {}}
        for relative, path in files.items():
            memory, huge = _SYSFS_MEMORY.search(relative), _SYSFS_HUGEPAGES.search(relative)
            if memory:
                trees["memory"][memory[1]] = _content(path)
            elif huge:
                trees["hugepages"][huge[1]] = _content(path)
            elif (kind := kind_of_path(relative)) is not None:
                self.file(path, kind, str(path), strict=False)
            else:
                self.ignored.append(str(path))
        if trees["memory"]:
            tree = root / "sys/devices/system/memory"
            self._parsed(
                "memory_blocks",
                parse_memory_blocks_tree(trees["memory"], str(tree)),
                str(tree),
                _digest_of_tree(trees["memory"]),
            )
        if trees["hugepages"]:
            tree = root / "sys/kernel/mm/hugepages"
            self._parsed(
                "hugepages",
                parse_hugepages_tree(trees["hugepages"], str(tree)),
                str(tree),
                _digest_of_tree(trees["hugepages"]),
            )

    def single(self, path: Path) -> None:
        """One file of any kind that its content, or else its name, shows."""
        head = _content(path, SNIFF_BYTES)
        if not head.strip():
            raise InputError("the file is empty", path=str(path))
        if is_vmcore(head):
            self.dumps.append(path)
            return
        kind = kind_of_content(head) or kind_of_path(str(path))
        if kind is None:
            _refuse_unreadable(path, head)
            raise InputError(f"not recognised; name its kind with --kind (one of {', '.join(BY_NAME)})", path=str(path))
        self.file(path, kind, str(path))

    def vmcore(self, paths: tuple[Path, ...]) -> None:
        """A crash dump, in several files if it is a split one."""
        facts = read_vmcore(paths, self.symbols)
        self.parsed.setdefault("vmcore", []).append(facts)
        for path in paths:
            diagnostics = facts.diagnostics if path == paths[0] else ()
            self.sources.append(Source("vmcore", str(path), _digest_of_file(path), diagnostics))

    def file(self, path: Path, kind: Kind, name: str, *, strict: bool = True) -> None:
        """A file of a known kind; in a directory, one bad file is a diagnostic and the rest is read."""
        if kind.parse is None and kind.read is None:
            self.ignored.append(name)
            return
        try:
            if kind.read is not None:
                self._parsed(kind.name, kind.read(path), name, _digest_of_file(path))
            elif kind.parse is not None:
                data = _content(path)
                self._parsed(kind.name, kind.parse(data, name), name, _digest(data))
        except PtauditError as error:
            if strict:
                raise
            self.failures.append(error)
            note = Diagnostic(error.message, error.path or name, error.line, error.column, error.offset)
            self.sources.append(Source(kind.name, name, _digest_of_file(path), (note,)))

    def _parsed(self, kind: str, parsed: Any, name: str, digest: str) -> None:  # noqa: ANN401 each parser has its type
        self.parsed.setdefault(kind, []).append(parsed)
        self.sources.append(Source(kind, name, digest, tuple(parsed.diagnostics)))

    def _last(self, *kinds: str) -> Any:  # noqa: ANN401
        return next((self.parsed[kind][-1] for kind in kinds if kind in self.parsed), None)

    def finish(self, layout: dict[str, int]) -> Sources:
        """The evidence set; the last of several files of a kind is the state, the first dump the state before."""
        if not self.parsed:
            if self.failures:
                raise self.failures[0]
            raise InputError(
                "nothing in it is understood" + (f": {', '.join(self.ignored[:8])}" if self.ignored else "")
            )
        dumps, vmcores = self.parsed.get("ptdump", []), self.parsed.get("vmcore", [])
        blocks, nodes = self._last("memory_blocks", "lsmem"), self._last("memory_nodes")
        if blocks is not None and nodes is not None:
            blocks = blocks.with_nodes(nodes)
        captured = Captured(
            dump=dumps[-1] if dumps else None,
            earlier_dump=dumps[0] if len(dumps) > 1 else None,
            iomem=self._last("iomem"),
            blocks=blocks,
            release=self._last("uname"),
            config=self._last("config"),
            command_line=self._last("cmdline"),
            memmap_on_memory=self._last("memmap_on_memory"),
            boot_id=self._last("boot_id"),
            vmcoreinfo=self._last("vmcoreinfo"),
            zoneinfo=self._last("zoneinfo"),
            meminfo=self._last("meminfo"),
            hugepages=self._last("hugepages"),
            dmesg=self._last("dmesg"),
            vmcore=vmcores[-1] if vmcores else None,
            earlier_vmcore=vmcores[0] if len(vmcores) > 1 else None,
            trace=next(iter(self.parsed.get("trace", [])), None),  # text sorts before trace.dat, and has lines to quote
            layout=layout,
        )
        return Sources(captured, self.sources, self.ignored)


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    """Regular files below ``root`` that do not lead out of it, by relative path, in order."""
    base = root.resolve()
    for count, path in enumerate(sorted(root.rglob("*"))):
        if count > MAX_FILES:
            raise InputError(f"more than {MAX_FILES} files", path=str(root))
        inside = not path.is_symlink() or base in path.resolve().parents
        if inside and path.is_file():
            yield str(path.relative_to(root)), path


def _refuse_several(root: Path, files: dict[str, Path]) -> None:
    """A directory that holds several captures is several machines or moments."""
    dump = BY_NAME["ptdump"].paths
    homes = sorted(
        {re.sub(r"(?:^|/)sys/kernel/debug$", "", str(Path(name).parent)) for name in files if dump.search(name)}
    )
    if len(homes) > 1:
        raise UsageError(f"holds several captures, name one: {', '.join(homes)}", path=str(root))


def _content(path: Path, limit: int | None = None) -> bytes:
    """The bytes of a regular file."""
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


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _digest_of_tree(files: dict[str, bytes]) -> str:
    return _digest(b"".join(name.encode() + b"\0" + files[name] for name in sorted(files)))


def _digest_of_file(path: Path) -> str:
    """The hash of a file that is too large to read at once."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_ARCHIVES = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"\xfd7zXZ": "xz", b"BZh": "bzip2", b"\x28\xb5\x2f\xfd": "zstd"}


def _refuse_unreadable(path: Path, head: bytes) -> None:
    """A clear word about files that are recognised and not read."""
    for magic, what in _ARCHIVES.items():
        if head.startswith(magic):
            raise InputError(f"{what} data: unpack it first and give the directory or file", path=str(path))
    if head[257:262] == b"ustar":
        raise InputError("a tar archive: unpack it first and give the directory", path=str(path))

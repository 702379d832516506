"""From paths to what was captured: directories are searched, single files recognised by content.

Nothing here follows a link out of the capture, opens a device or a pipe, or reads more than it must.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyzer.sources.archive import HEAD_BYTES, archive_format, inner_format, plain_name, read_archive
from analyzer.sources.crashdump import Symbols, read_vmcore, whole_dumps
from analyzer.sources.folder import below
from analyzer.sources.found import UNENDED, Found, digest, head_of
from analyzer.sources.identity import doubt_of_names, own_configs, refuse_strangers
from analyzer.sources.running import is_proc_kcore
from analyzer.sources.sniff import is_kernel_dump, is_vmcore
from parsers import ftrace
from parsers.encodings import decoded
from parsers.errors import Diagnostic, InputError, PtauditError, UsageError
from parsers.kinds import KINDS, SNIFF_BYTES, Kind, kind_of_content, kind_of_path
from parsers.lines import at_lines
from rules.model.captured import Captured

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.vmcore.extract import VmcoreFacts

__all__ = ["Request", "Source", "Sources", "read_sources"]

MAX_UNNAMED = 32
MAX_SYSTEM_MAPS = 4
_KCORE = re.compile(r"(?:^|/)proc/kcore$")  # the running kernel's memory, without end
_KERNEL_FILE = re.compile(r"(?:^|/)(?:vmlinux|(System\.map))(?:-[^/]+?)?(?:\.debug)?(?:\.(?:gz|xz|zst))?$")


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
    running: VmcoreFacts | None = None
    """What the memory of the kernel that runs here told."""


def read_sources(request: Request) -> Sources:
    """Read everything that is asked for into one evidence set.

    Raises `InputError` where a path cannot be read or nothing in it is understood, `UsageError` for a
    directory with several captures.
    """
    reading = _Reading(request.symbols)
    for path in request.paths:
        if os.path.isdir(path):  # noqa: PTH112 never raises, however long the name
            reading.directory(path)
        else:
            reading.single(path)
    if request.running is not None:
        reading.running(request.running)
    for dump in whole_dumps(reading.dumps) if reading.dumps else ():
        reading.vmcore(dump)
    for name, path in request.kinds.items():
        if name not in KINDS or not KINDS[name].is_read:
            raise UsageError(f"no such kind {name!r}; known: {_readable()}")
        reading.file(Found(str(path), path), KINDS[name])
    return reading.finish(request.layout)


class _Reading:
    """One evidence set in the making."""

    def __init__(self, symbols: Symbols) -> None:
        self.symbols = symbols
        self.parsed: dict[str, list[Any]] = {}
        self.sources: list[Source] = []
        self.dumps: list[Path] = []
        self.lain_beside: set[Path] = set()
        """Dumps that a directory held; nobody named them."""
        self.kernels: list[Path] = []
        """What may be their kernels."""
        self.system_maps: list[Path] = []
        self.seen: set[Path] = set()
        """Files that were read, resolved."""
        self.ignored: list[str] = []
        self.notes: list[Diagnostic] = []
        self.failures: list[PtauditError] = []

    def _again(self, path: Path) -> bool:
        """Whether a file was read before, by whatever name: in its directory and by itself it is no second moment."""
        resolved = path.resolve()
        known = resolved in self.seen
        self.seen.add(resolved)
        return known

    def directory(self, root: Path) -> None:
        """Everything in a capture directory, or in a copied /proc and /sys tree, and in archives there."""
        files: dict[str, Found] = {}
        dumps: list[Path] = []
        for relative, path in _walk(root):
            if not _wanted(relative) and not _KCORE.search(relative) and is_kernel_dump(path):
                dumps.append(path)
            elif not _wanted(relative) and _is_archive(path, relative):
                files |= {f"{relative}/{inner}": found for inner, found in self._opened(path).items()}
            else:
                files[relative] = Found(str(path), path)
                if found := _KERNEL_FILE.search(relative):
                    (self.system_maps if found[1] else self.kernels).append(path)
        _refuse_several_dumps(root, dumps)
        new = [path for path in dumps if not self._again(path)]
        self.dumps += new
        self.lain_beside.update(new)
        self._capture(files, str(root), "/")

    def archive(self, path: Path) -> None:
        """A tar or zip, or a compressed file."""
        files = self._opened(path)
        if list(files.values()) and all(found.name == str(path) for found in files.values()):
            self._by_content(next(iter(files.values())))
        elif files:
            self._capture(files, str(path), ":")
        elif len(self.ignored) <= MAX_UNNAMED:
            self._unnamed(path)

    def _opened(self, path: Path) -> dict[str, Found]:
        """What an archive holds for us, by path in it."""
        contents = read_archive(path, _wanted)
        self.ignored += contents.ignored
        self.notes += contents.notes
        self.sources.append(Source("archive", str(path), Found(str(path), path).digest(), tuple(contents.notes)))
        members = sorted(contents.members, key=lambda member: member.relative)
        return {member.relative: Found(member.name, member.data) for member in members}

    def _unnamed(self, path: Path) -> None:
        """A small archive in which no name says anything: by content."""
        self.ignored = []
        for member in read_archive(path, lambda _: True).members:
            kind = kind_of_content(member.data[:SNIFF_BYTES])
            if kind is None:
                self.ignored.append(member.name)
            else:
                self.file(Found(member.name, member.data), kind, strict=False)

    def _capture(self, files: dict[str, Found], root: str, between: str) -> None:
        """The files of one capture by their path in it."""
        _refuse_several(root, files)
        trees: dict[str, dict[str, bytes]] = {}
        for relative, found in files.items():
            if (attribute := _attribute(relative)) is not None:
                trees.setdefault(attribute[0].name, {})[attribute[1]] = found.content()
            elif (kind := kind_of_path(relative)) is not None:
                self.file(found, kind, strict=False)
            else:
                self.ignored.append(found.name)
        for kind_name, contents in trees.items():
            if (tree := KINDS[kind_name].tree) is not None:
                name = f"{root}{between}{tree.root}"
                parsed = tree.parse(contents, name)
                self._parsed(kind_name, parsed, name, _digest_of_tree(contents), _unended(contents, name))

    def single(self, path: Path) -> None:
        """One file of any kind that its content, or else its name, shows."""
        if is_proc_kcore(path):
            self.dumps.append(path)
            return
        head = head_of(path, SNIFF_BYTES)
        if not head.strip():
            raise InputError("the file is empty", path=str(path))
        if is_vmcore(head):
            if self._again(path):
                self.lain_beside -= {one for one in self.lain_beside if one.samefile(path)}
            else:
                self.dumps.append(path)
            return
        if archive_format(head):
            self.archive(path)
        else:
            self._by_content(Found(str(path), path))

    def _by_content(self, found: Found) -> None:
        kind = kind_of_content(found.head(SNIFF_BYTES)) or kind_of_path(plain_name(found.name))
        if kind is None:
            raise InputError(f"not recognised; name its kind with --kind (one of {_readable()})", path=found.name)
        self.file(found, kind)

    def vmcore(self, paths: tuple[Path, ...]) -> None:
        """A crash dump, in several files if it is a split one."""
        beside = paths[0] in self.lain_beside
        try:
            facts = read_vmcore(paths, self.symbols)
        except PtauditError as error:
            if not beside:
                raise
            self._failed("vmcore", error, Found(str(paths[0]), paths[0]))
            return
        if beside and facts.vmcoreinfo.symbol("kallsyms_names") is None:
            facts = self._with_system_map(paths) or facts
        self.parsed.setdefault("vmcore", []).append(facts)
        notes = facts.diagnostics
        unknown = [] if facts.types != "VMCOREINFO" else ["structures"]
        unknown += [] if facts.has_symbols else ["symbols"]
        if beside and self.kernels and self.symbols.vmlinux is None and unknown:
            # A kernel from elsewhere is not opened unless someone says so: its debug info is a program of its own.
            what = " and ".join(unknown)
            said = f"its {what} are not known, and {self.kernels[0]} lies beside it: --vmlinux reads that"
            notes = (*notes, Diagnostic(said, str(paths[0])))
        for path in paths:
            diagnostics = notes if path == paths[0] else ()
            self.sources.append(Source("vmcore", str(path), _digest_of_dump(facts, path), diagnostics))

    def running(self, facts: VmcoreFacts) -> None:
        """The memory of the kernel that runs here, which was read before."""
        self.parsed.setdefault("vmcore", []).append(facts)
        self.sources.append(Source("vmcore", facts.path, _digest_of_dump(facts, Path(facts.path)), facts.diagnostics))

    def _with_system_map(self, paths: tuple[Path, ...]) -> VmcoreFacts | None:
        """The dump with the first System.map beside it that fits, unless symbols were named; None if there is none."""
        if self.symbols.vmlinux is not None or self.symbols.system_map is not None:
            return None
        for system_map in self.system_maps[:MAX_SYSTEM_MAPS]:
            with contextlib.suppress(PtauditError):
                facts = read_vmcore(paths, replace(self.symbols, system_map=system_map))
                self.sources.append(Source("system_map", str(system_map), Found(str(system_map), system_map).digest()))
                self.ignored = [one for one in self.ignored if one != str(system_map)]
                return facts
        return None

    def file(self, found: Found, kind: Kind, *, strict: bool = True) -> None:
        """A file of a known kind; in a directory, one bad file is a diagnostic and the rest is read."""
        name = found.name
        if not kind.is_read:
            self.ignored.append(name)
            return
        if isinstance(found.where, Path) and self._again(found.where):
            return
        try:
            if kind.read is not None:
                self._parsed(kind.name, kind.read(found.where, path=name), name, found.digest(), found.unended())
            elif kind.parse is not None:
                data = found.content()
                self._parsed(kind.name, kind.parse(data, name), name, digest(data), found.unended())
                if kind.name == "dmesg":
                    self._events_of_log(data, name)
        except PtauditError as error:
            if strict:
                raise
            self._failed(kind.name, error, found)

    def _failed(self, kind: str, error: PtauditError, found: Found) -> None:
        """A file that nobody named and that cannot be read."""
        self.failures.append(error)
        if isinstance(found.where, Path):
            self.seen.discard(found.where.resolve())
        note = Diagnostic(error.message, error.path or found.name, error.line, error.column, error.offset)
        self.sources.append(Source(kind, found.name, found.digest(), (note,)))

    def _events_of_log(self, data: bytes, name: str) -> None:
        """A kernel log tells of hotplug in its own words, and may hold a ring buffer that was dumped into it."""
        events = ftrace.read(decoded(data), path=name)
        if len(events):
            self.parsed.setdefault("log", []).append(events)

    def _parsed(self, kind: str, parsed: Any, name: str, digest: str, notes: tuple[Diagnostic, ...]) -> None:  # noqa: ANN401
        """Keep what a parser, of whatever type, returned."""
        self.parsed.setdefault(kind, []).append(parsed)
        self.sources.append(Source(kind, name, digest, (*parsed.diagnostics, *notes)))

    def _note(self, note: Diagnostic) -> None:
        """Say what is odd about a source when others were read too."""
        at = next(number for number, one in enumerate(self.sources) if one.path == note.path)
        self.sources[at] = replace(self.sources[at], diagnostics=(*self.sources[at].diagnostics, note))

    def _own_config(self) -> bool:
        """Leaves out the configurations of other kernels that are installed; whether one is left."""
        own = own_configs(self.parsed)
        self.ignored += [config.path for config in self.parsed["config"] if config not in own]
        self.parsed["config"] = own
        return bool(own)

    def finish(self, layout: dict[str, int]) -> Sources:
        """The evidence set: `Captured.of` chooses among several files of a kind."""
        if not self.parsed:
            if self.failures:
                raise self.failures[0]
            if self.notes:
                raise InputError("; ".join(note.message for note in self.notes))
            raise InputError(
                "nothing in it is understood" + (f": {', '.join(self.ignored[:8])}" if self.ignored else "")
            )
        if "config" in self.parsed and not self._own_config():
            del self.parsed["config"]
        refuse_strangers(self.parsed)
        if (doubt := doubt_of_names(self.parsed)) is not None:
            self._note(doubt)
        return Sources(Captured.of(self.parsed, layout), self.sources, self.ignored)


def _digest_of_dump(facts: VmcoreFacts, path: Path) -> str:
    """Hash of a dump; the kernel's memory has no end, so VMCOREINFO stands for it."""
    if facts.kind == "kcore":
        return digest(repr(sorted(facts.vmcoreinfo.text.items())).encode())
    return Found(str(path), path).digest()


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    """Regular files below ``root`` that do not lead out of it, by relative path, and folders that cannot be read."""
    base = root.resolve()
    for relative, path in below(root):
        if path.is_symlink():
            if path.is_file() and base in path.resolve().parents:
                yield relative, path
        elif path.is_file() or path.is_dir():
            yield relative, path


def _refuse_several(root: str, files: dict[str, Found]) -> None:
    """A directory that holds several captures is several machines or moments."""
    dump = KINDS["ptdump"].paths
    homes = sorted(
        {re.sub(r"(?:^|/)sys/kernel/debug$", "", str(Path(name).parent)) for name in files if dump.search(name)}
    )
    if len(homes) > 1:
        raise UsageError(f"holds several captures, name one: {', '.join(homes)}", path=root)


def _refuse_several_dumps(root: Path, dumps: list[Path]) -> None:
    """Of several dumps nobody but the user knows which is the state, and which came before; parts are one."""
    several = [paths[0] for paths in whole_dumps(dumps)] if len(dumps) > 1 else []
    if len(several) > 1:
        names = ", ".join(str(path.relative_to(root)) for path in several)
        raise UsageError(f"holds several crash dumps, name one, or the earlier and the later: {names}", path=str(root))


def _wanted(relative: str) -> bool:
    """Whether a path in a capture says that the file is understood."""
    return kind_of_path(relative) is not None or _attribute(relative) is not None


def _attribute(relative: str) -> tuple[Kind, str] | None:
    """The kind whose tree in sysfs a path belongs to, and the attribute."""
    trees = ((kind, kind.tree.attribute(relative)) for kind in KINDS.values() if kind.tree is not None)
    return next(((kind, attribute) for kind, attribute in trees if attribute is not None), None)


def _readable() -> str:
    return ", ".join(kind.name for kind in KINDS.values() if kind.is_read)


def _is_archive(path: Path, relative: str) -> bool:
    """Whether a file of a capture is an archive, or a file that is understood and compressed."""
    try:
        head = head_of(path, HEAD_BYTES)
    except InputError:
        return False
    form = inner_format(head)
    return form in {"tar", "zip"} or (archive_format(head) != "" and _wanted(plain_name(relative)))


def _unended(files: dict[str, bytes], path: str) -> tuple[Diagnostic, ...]:
    """A word on files of sysfs that are cut short."""
    names = sorted(name for name, data in files.items() if data and not data.endswith(b"\n"))
    return at_lines(f"{names[0]}: {UNENDED}", [0] * len(names), path) if names else ()


def _digest_of_tree(files: dict[str, bytes]) -> str:
    return digest(b"".join(name.encode() + b"\0" + files[name] for name in sorted(files)))

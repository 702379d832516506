"""One evidence set in the making.

What a user names counts, the last of a kind as the state.  What only lies in a directory or an archive is found by its
name, and otherwise by its content: then it counts if no file is of that kind by its name; logs and traces always
count.  One file there that cannot be read never ends the reading.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyzer.sources import identity
from analyzer.sources.archive_format import archive_format, plain_name
from analyzer.sources.budget import Bounds, Budget, size_in_memory
from analyzer.sources.crashdump import Symbols, digest_of_dump, read_vmcore
from analyzer.sources.found import Found, Source, digest, head_of
from analyzer.sources.in_pieces import alone, in_pieces
from analyzer.sources.own_reports import OWN_REPORT, is_own_report
from analyzer.sources.parsing import parsed_by
from analyzer.sources.recognise import Document, Look, documents_of, not_searched, readable_kinds
from analyzer.sources.running import HOST_CORE, is_host_core, is_proc_kcore, read_kcore
from analyzer.sources.sniff import is_kernel_dump, is_vmcore
from analyzer.sources.superseded import superseded
from analyzer.sources.tree import (
    NOT_LISTED,
    attribute_of,
    digest_of_tree,
    is_archive,
    is_wanted,
    other_captures,
    refuse_several_dumps,
    unended_files,
    walk,
)
from analyzer.sources.unread import ATTACHED, NOT_RECOGNISED, Unread, bounded
from analyzer.temporary import folder
from parsers import ftrace
from parsers.encodings import attachments, decoded
from parsers.errors import BudgetError, Diagnostic, InputError, PtauditError, UsageError, WrongFormatError
from parsers.expressions import expression
from parsers.kconfig import Kconfig
from parsers.kinds import KINDS, SNIFF_BYTES, kind_of_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from parsers.evidence import Kind
    from parsers.vmcore.extract import VmcoreFacts

__all__ = ["Reading"]

MAX_SYSTEM_MAPS = 4
_STDIN = "standard input"
SPLIT_BYTES = 4 << 20
"""A file whose name shows its kind is searched for other kinds up to here."""
_KCORE = expression(r"(?:^|/)proc/kcore$")  # the running kernel's memory, without end
_KERNEL_FILE = expression(r"(?:^|/)(?:vmlinux|(System\.map))(?:-[^/]+?)?(?:\.debug)?(?:\.(?:gz|xz|zst))?$")
_TABLES = {"ptdump", "trace", "vmcoreinfo"}
_MOMENTS = {"ptdump", "vmcore", "dmesg", "trace"}
"""Kinds whose content must not count twice when it is given twice."""


class Reading:
    """What was read so far."""

    def __init__(self, symbols: Symbols, budget: int = 1) -> None:
        self.symbols = symbols
        self.budget = Budget(Bounds().times(budget))
        self.look = Look(self.budget)
        self.parsed: dict[str, list[Any]] = {}
        self.named: dict[str, list[str]] = {}
        """Where each of them was read."""
        self.sources: list[Source] = []
        self.dumps: list[Path] = []
        self.found_dumps: set[Path] = set()
        """Dumps found while scanning a directory, not named by the user."""
        self.kernels: list[Path] = []
        """What may be their kernels."""
        self.system_maps: list[Path] = []
        self.seen: set[Path] = set()
        """Files that were read, resolved."""
        self.contents: dict[tuple[str, str], str] = {}
        """Where each content of a kind, by its hash, was first read."""
        self.ignored: list[str] = []
        self.left_out: list[Unread] = []
        self.notes: list[Diagnostic] = []
        self.failures: list[PtauditError] = []

    def unread(self) -> list[Unread]:
        """Everything that was given and is not used."""
        reasons = {one.path for one in self.left_out}
        return bounded(
            [*self.left_out, *(Unread(name, NOT_RECOGNISED) for name in self.ignored if name not in reasons)]
        )

    def _again(self, path: Path) -> bool:
        """Whether this file was already read under another name."""
        resolved = path.resolve()
        known = resolved in self.seen
        self.seen.add(resolved)
        return known

    def _content(self, found: Found) -> bytes:
        """The content of a file, within the budget; members of archives were counted when they were read."""
        size = 0 if isinstance(found.where, bytes) else found.size()
        self.budget.keep(size, found.name)
        data = found.content()
        if not isinstance(found.where, bytes):
            self.budget.keep(len(data) - size, found.name)  # files of /proc have no size
        self.left_out += (Unread(f"{found.name}: {name}", ATTACHED) for name in attachments(data))
        return data

    # Directories and archives.

    def directory(self, root: Path) -> None:
        """Everything in a capture directory, or in a copied /proc and /sys tree, and in archives there."""
        files: dict[str, Found] = {}
        dumps: list[Path] = []
        for relative, path in walk(root, self.left_out):
            if is_wanted(relative) or _KCORE.search(relative):
                files[relative] = Found(str(path), path)
            elif is_kernel_dump(path):
                dumps.append(path)
            elif is_archive(path, relative):
                files |= self._archive_beside(path, relative)
            else:
                files[relative] = Found(str(path), path)
                if found := _KERNEL_FILE.search(relative):
                    (self.system_maps if found[1] else self.kernels).append(path)
        self.ignored += [one.path for one in self.left_out if one.reason == NOT_LISTED]
        refuse_several_dumps(root, dumps)
        new = [path for path in dumps if not self._again(path)]
        self.dumps += new
        self.found_dumps.update(new)
        self._capture(files, str(root), "/")

    def _archive_beside(self, path: Path, relative: str) -> dict[str, Found]:
        """What an archive in a directory holds for us; nothing if it cannot be read."""
        try:
            members = self._opened(path)
        except PtauditError as error:
            self.failures.append(error.without_frames())
            self.left_out.append(Unread(str(path), error.message))
            return {}
        return {f"{relative}/{inner}": found for inner, found in members.items()}

    def archive(self, path: Path) -> None:
        """A tar or zip, or a compressed file."""
        files = self._opened(path)
        if list(files.values()) and all(found.name == str(path) for found in files.values()):
            self._by_content(next(iter(files.values())))
        elif files:
            self._capture(files, str(path), ":")

    def _opened(self, path: Path) -> dict[str, Found]:
        """What an archive holds for us, by path in it."""
        from analyzer.sources.archive import read_archive  # noqa: PLC0415 most evidence is in none

        keep = lambda one: is_wanted(one) or is_host_core(one)  # noqa: E731 two words
        contents = read_archive(path, keep, look=self.look, budget=self.budget)
        self.ignored += contents.ignored
        self.notes += contents.notes
        self.left_out += [Unread(name, reason) for reason, names in contents.left_out.items() for name in names]
        self.sources.append(Source("archive", str(path), Found(str(path), path).digest(), tuple(contents.notes)))
        members = sorted(contents.members, key=lambda member: member.relative)
        return {member.relative: Found(member.name, member.data) for member in members}

    def _capture(self, files: dict[str, Found], root: str, between: str) -> None:
        """The files of one capture by their path in it: those recognised by name first."""
        others = other_captures(root, files)
        trees: dict[str, dict[str, bytes]] = {}
        unnamed: list[Found] = []
        for relative, found in files.items():
            if home := next((one for one in others if relative.startswith(f"{one}/")), ""):
                self.left_out.append(Unread(found.name, f"of another capture, {home}: name that by itself"))
            elif (attribute := attribute_of(relative)) is not None:
                self._attribute(trees.setdefault(attribute.kind.name, {}), attribute.path, found)
            elif (kind := kind_of_path(relative)) is not None:
                self.file(found, kind, strict=False)
            elif is_host_core(relative) and isinstance(found.where, bytes):
                self._core_of_archive(found, found.where)
            else:
                unnamed.append(found)
        for kind_name, contents in trees.items():
            if (tree := KINDS[kind_name].tree) is not None and contents:
                name = f"{root}{between}{tree.root}"
                parsed = tree.parse(contents, name)
                self._parsed(kind_name, parsed, name, digest_of_tree(contents), unended_files(contents, name))
        for found in unnamed:
            self._unnamed(found)

    def _attribute(self, tree: dict[str, bytes], path: str, found: Found) -> None:
        try:
            tree[path] = self._content(found)
        except InputError as error:
            self.left_out.append(Unread(found.name, error.message))

    def _unnamed(self, found: Found) -> None:
        """A file of a capture with an unknown name."""
        documents: list[Document] = []
        try:
            head = found.head(SNIFF_BYTES)
            if isinstance(found.where, Path) and KINDS["trace"].sniff(head[:16]):
                self.file(found, KINDS["trace"], strict=False)
                return
            refused = self.look.refused(head, found.size())
            if refused is None:
                documents = self.look.documents(self._content(found))
            elif refused:
                self.left_out.append(Unread(found.name, refused))
        except InputError as error:
            self.left_out.append(Unread(found.name, error.message))
        if not documents:
            self.ignored.append(found.name)
        elif not (isinstance(found.where, Path) and self._again(found.where)):
            self._documents(found, documents, strict=False)

    # Single files.

    def _core_of_archive(self, found: Found, data: bytes) -> None:
        """The small core that was collected with the texts; it is read from a file."""
        with folder() as home:
            (home / HOST_CORE).write_bytes(data)
            try:
                facts = read_vmcore((home / HOST_CORE,), self.symbols, found.name)
            except PtauditError as error:
                self._failed("vmcore", error, found)
                return
        self.parsed.setdefault("vmcore", []).append(facts)
        self.sources.append(Source("vmcore", found.name, digest(data), facts.diagnostics))

    def single(self, path: Path) -> None:
        """One file of any kind that its content, or else its name, shows."""
        if is_proc_kcore(path):
            self.running(read_kcore(self.symbols))
            return
        head = head_of(path, SNIFF_BYTES)
        if not head.strip():
            raise InputError("the file is empty", path=str(path))
        if is_vmcore(head):
            if self._again(path):
                self.found_dumps -= {one for one in self.found_dumps if one.samefile(path)}
            else:
                self.dumps.append(path)
            return
        if archive_format(head):
            self.archive(path)
        else:
            self._by_content(Found(str(path), path))

    def standard_input(self) -> None:
        """Text of any kind on standard input; InputError for archives and dumps, which are read in any order."""
        if sys.stdin is None:
            raise InputError("standard input is closed", path=_STDIN)
        if self._again(Path(_STDIN)):
            raise UsageError("there is nothing on standard input the second time: name it once")
        data = sys.stdin.buffer.read(self.budget.bounds.kept_bytes - self.budget.kept + 1)
        self.budget.keep(len(data), _STDIN)
        if not data.strip():
            raise InputError("nothing on standard input", path=_STDIN)
        if is_vmcore(data[:SNIFF_BYTES]) or archive_format(data[:SNIFF_BYTES]):
            raise InputError("an archive, a compressed file or a dump on standard input: name the file", path=_STDIN)
        self._by_content(Found(_STDIN, data))

    def _by_content(self, found: Found) -> None:
        if is_own_report(found.head(SNIFF_BYTES)):
            raise InputError(OWN_REPORT, path=found.name)
        trace = KINDS["trace"]
        if isinstance(found.where, Path) and found.size() > SPLIT_BYTES and trace.sniff(found.head(SNIFF_BYTES)):
            self.file(found, trace)  # a trace is read from the disk, piece by piece
            return
        if (pieced := alone(found, self.budget)) is not None:
            if not (isinstance(found.where, Path) and self._again(found.where)):
                self._parsed(pieced.kind.name, pieced.parsed, found.name, pieced.digest, pieced.notes)
            return
        content = self._content(found)
        documents = documents_of(content)
        if [one.data for one in documents] == [content] or not documents:
            kind = documents[0].kind if documents else kind_of_path(plain_name(found.name))
            if kind is None:
                raise InputError(
                    f"not recognised; name its kind with --kind (one of {readable_kinds()})", path=found.name
                )
            self.file(found, kind, content=content)
        elif not (isinstance(found.where, Path) and self._again(found.where)):
            self._documents(found, documents, strict=True)

    def file(self, found: Found, kind: Kind, *, strict: bool = True, content: bytes | None = None) -> None:
        """A file of a known kind; in a directory, one bad file is a diagnostic and the rest is read."""
        name = found.name
        if not kind.is_read:
            self.ignored.append(name)
            self.left_out.append(Unread(name, "the audit does not use it"))
            return
        if isinstance(found.where, Path) and self._again(found.where):
            return
        try:
            if kind.read is not None:
                self._piece_by_piece(found, kind)
                return
            if (pieced := in_pieces(kind, found, self.budget)) is not None:
                self._parsed(kind.name, pieced.parsed, name, pieced.digest, pieced.notes)
                return
            data = self._content(found) if content is None else content
            others = documents_of(data, kind) if not strict and len(data) <= SPLIT_BYTES else []
            if any(one.part and one.kind is not kind for one in others):
                self._documents(found, others, strict=False)
            elif [one.kind for one in others] == [kind] and kind.name != "dmesg":
                self._document(others[0], name, digest(data), found.unended())
            else:
                self._document(Document(kind, data, part=False), name, digest(data), found.unended())
        except PtauditError as error:
            if strict:
                raise
            self._failed(kind.name, error, found)

    def _piece_by_piece(self, found: Found, kind: Kind) -> None:
        """A file of a kind that is not held in memory: what is kept of it counts."""
        self.budget.go_through(found.size(), found.name)
        parsed = parsed_by(kind, found.where, found.name, self.budget)
        self.budget.keep(size_in_memory(parsed), found.name)
        self._parsed(kind.name, parsed, found.name, found.digest(), found.unended())

    def _documents(self, found: Found, documents: Sequence[Document], *, strict: bool) -> None:
        """What a file holds that is recognised by content."""
        content, unended = found.digest(), found.unended()
        failures = []
        for document in documents:
            kind = document.kind
            used = self.named.get(kind.name)
            if not strict and used and kind.name not in {"dmesg", "trace"}:
                self.left_out.append(Unread(found.name, f"{kind.what} is read from {used[-1]}"))
                continue
            try:
                self._document(document, found.name, content, unended if document is documents[-1] else ())
            except PtauditError as error:
                if (
                    strict
                    and isinstance(error, WrongFormatError)
                    and not _TABLES & {one.kind.name for one in documents}
                ):
                    raise  # a log of another architecture: the lines beside it are of the same machine
                failures.append(error.without_frames())
                self.left_out.append(Unread(found.name, f"{kind.what}: {error.message}"))
        if len(failures) == len(documents):
            if strict:
                raise failures[0]
            self.failures.append(failures[0])

    def _document(self, document: Document, name: str, content: str, notes: tuple[Diagnostic, ...]) -> None:
        kind, data = document.kind, document.data
        parsed = parsed_by(kind, data, name, self.budget)
        if document.part and isinstance(parsed, Kconfig) and kind.row and len(parsed.options) < kind.row.least:
            note = Diagnostic("a few lines of it: symbols they do not name are unknown", name)
            parsed = replace(parsed, complete=False, diagnostics=(*parsed.diagnostics, note))
        notes += not_searched(document, name)
        if self._parsed(kind.name, parsed, name, content, notes, digest(data)) and kind.name == "dmesg":
            self._events_of_log(data, name)

    def _failed(self, kind: str, error: PtauditError, found: Found) -> None:
        """A file that was not named by the user and cannot be read."""
        self.failures.append(error.without_frames())
        self.left_out.append(Unread(found.name, error.message))
        if isinstance(found.where, Path):
            self.seen.discard(found.where.resolve())
        if isinstance(error, BudgetError):
            return  # what is refused for its size is not hashed either
        note = Diagnostic(error.message, error.path or found.name, error.line, error.column, error.offset)
        with contextlib.suppress(InputError, OSError):
            if kind == "vmcore" and isinstance(found.where, Path):
                sha256, whole = digest_of_dump(found.where, None)
                self.sources.append(Source(kind, found.name, sha256, (note,), whole))
            elif found.size() <= self.budget.bounds.kept_bytes:
                self.sources.append(Source(kind, found.name, found.digest(), (note,)))

    def _events_of_log(self, data: bytes, name: str) -> None:
        """The events of hotplug that a kernel log names in its own words, or as a ring buffer dumped into it."""
        try:
            events = ftrace.read(decoded(data), path=name)
            self.budget.keep(size_in_memory(events), name)
        except InputError as error:
            self.left_out.append(Unread(name, f"events of hotplug in the log: {error.message}"))
            return
        if len(events):
            self.parsed.setdefault("log", []).append(events)

    def _parsed(
        self,
        kind: str,
        parsed: Any,  # noqa: ANN401
        name: str,
        content: str,
        notes: tuple[Diagnostic, ...],
        key: str = "",
    ) -> bool:
        """Keep what a parser, of whatever type, returned; False for content that was read before: it is one moment."""
        first = self.contents.setdefault((kind, key or content), name) if kind in _MOMENTS else name
        if first != name:
            self.left_out.append(Unread(name, f"the same content as {first}"))
            return False
        self.parsed.setdefault(kind, []).append(parsed)
        self.named.setdefault(kind, []).append(name)
        self.sources.append(Source(kind, name, content, (*parsed.diagnostics, *notes)))
        return True

    # Crash dumps.

    def vmcore(self, paths: tuple[Path, ...]) -> None:
        """A crash dump, in several files if it is a split one; one that was only found may be unreadable."""
        only_found = paths[0] in self.found_dumps
        self.budget.keep(0, str(paths[0]))
        try:
            facts = read_vmcore(paths, self.symbols)
        except PtauditError as error:
            if not only_found:
                raise
            self._failed("vmcore", error, Found(str(paths[0]), paths[0]))
            return
        if only_found and facts.vmcoreinfo.symbol("kallsyms_names") is None:
            facts = self._with_system_map(paths) or facts
        self.budget.keep(size_in_memory(facts), str(paths[0]))
        notes = facts.diagnostics
        unknown = [] if facts.types != "VMCOREINFO" else ["structures"]
        unknown += [] if facts.has_symbols else ["symbols"]
        if only_found and self.kernels and self.symbols.vmlinux is None and unknown:
            # A kernel from elsewhere is not opened unless someone says so: its debug info is another program.
            what = " and ".join(unknown)
            said = f"its {what} are not known, and {self.kernels[0]} is next to it: --vmlinux reads that"
            notes = (*notes, Diagnostic(said, str(paths[0])))
        digests = [digest_of_dump(path, facts) for path in paths]
        first = self.contents.setdefault(("vmcore", digests[0].sha256), str(paths[0]))
        if first != str(paths[0]):
            self.left_out.append(Unread(str(paths[0]), f"the same content as {first}"))
            return
        self.parsed.setdefault("vmcore", []).append(facts)
        self.named.setdefault("vmcore", []).append(str(paths[0]))
        for path, (sha256, whole) in zip(paths, digests, strict=True):
            self.sources.append(Source("vmcore", str(path), sha256, notes if path == paths[0] else (), whole))

    def running(self, facts: VmcoreFacts) -> None:
        """The memory of the kernel that runs here, which was read before."""
        self.parsed.setdefault("vmcore", []).append(facts)
        self.named.setdefault("vmcore", []).append(facts.path)
        sha256, whole = digest_of_dump(Path(facts.path), facts)
        self.sources.append(Source("vmcore", facts.path, sha256, facts.diagnostics, whole))

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

    # The set.

    def finish(self) -> Mapping[str, Sequence[Any]]:
        """Everything that was read, by kind; raises where it is nothing, or of more than one machine or boot."""
        if not self.parsed:
            if self.failures:
                raise self.failures[0]
            if self.notes:
                raise InputError("; ".join(note.message for note in self.notes))
            why = [one.path if one.reason == NOT_RECOGNISED else f"{one.path} ({one.reason})" for one in self.unread()]
            raise InputError("no file that ptaudit knows (empty?)" + (f": {', '.join(why[:8])}" if why else ""))
        identity.refuse_other_architectures(self.parsed, self.failures)
        self._keep("uname", identity.own_releases(self.parsed), "the release of another architecture: arm64 is audited")
        self._keep("config", identity.own_configs(self.parsed), "the configuration of another kernel that is installed")
        identity.refuse_strangers(self.parsed)
        if (doubt := identity.doubt_of_names(self.parsed)) is not None:
            self._note(doubt)
        self.left_out += superseded(self.parsed, self.named, self.sources)
        return self.parsed

    def _keep(self, kind: str, own: list[Any], reason: str) -> None:
        """Leave out what is of a kind and not this host's own."""
        others = [one.path for one in self.parsed.get(kind, ()) if one not in own]
        self.ignored += others
        self.left_out += [Unread(path, reason) for path in others]
        if own:
            self.parsed[kind], self.named[kind] = own, [one.path for one in own]
        elif others:
            del self.parsed[kind], self.named[kind]

    def _note(self, note: Diagnostic) -> None:
        """Say what is odd about a source when others were read too."""
        at = next(number for number, one in enumerate(self.sources) if one.path == note.path)
        self.sources[at] = replace(self.sources[at], diagnostics=(*self.sources[at].diagnostics, note))

"""From paths to what was captured: directories are searched, single files recognised by content."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from analyzer.sources import identity
from analyzer.sources.crashdump import Symbols, whole_dumps
from analyzer.sources.found import Found, Source, head_of
from analyzer.sources.moments import given_by, of_the_past
from analyzer.sources.reading import Reading
from analyzer.sources.recognise import readable_kinds
from analyzer.sources.unread import Unread
from parsers.errors import PtauditError, UsageError
from parsers.kinds import KINDS
from parsers.records import dataclass
from rules.model.captured import Captured

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from parsers.vmcore.extract import VmcoreFacts

__all__ = ["Request", "Source", "Sources", "Unread", "read_sources"]


@dataclass(eq=False)
class Sources:
    """What was read, and what was given and not used."""

    captured: Captured
    sources: list[Source] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    """Files that were not recognised."""
    unread: list[Unread] = field(default_factory=list)
    """Every file, or part of one, that was skipped, could not be read, or is superseded by another; these included."""
    refused: list[PtauditError] = field(default_factory=list)
    """Why paths that the user named could not be read, one error a path."""


STANDARD_INPUT = "-"
"""The path that stands for standard input."""


@dataclass(frozen=True)
class Request:
    """What to read: paths, files whose kind is given, layout values, symbols of a crash dump's kernel."""

    paths: tuple[Path, ...]
    kinds: dict[str, Path] = field(default_factory=dict)
    layout: dict[str, int] = field(default_factory=dict)
    symbols: Symbols = field(default_factory=Symbols)
    running: VmcoreFacts | None = None
    """What the memory of the kernel that runs here showed."""
    budget: int = 1
    """How many times as much as usual is read, see `analyzer.sources.budget.Bounds`."""


def read_sources(request: Request) -> Sources:
    """Read everything that is asked for into one evidence set.

    A path that cannot be read, holds no file that ptaudit knows, or does not fit into the budget is left out and named
    (`Sources.refused`).  Raises its `InputError` where nothing else is read, `UsageError` for a directory with several
    captures.
    """
    reading = Reading(request.symbols, request.budget)
    refused: list[PtauditError] = []
    bounds: list[tuple[int, int]] = []
    for path in request.paths:
        before, failed = {kind: len(found) for kind, found in reading.parsed.items()}, len(reading.failures)
        with _named(reading, refused, path):
            if str(path) == STANDARD_INPUT:
                reading.standard_input()
            elif os.path.isdir(path):  # noqa: PTH112 never raises, however long the name
                reading.directory(path)
            else:
                reading.single(path)
        bounds.append((len(reading.sources), len(reading.failures)))
        _refuse_another_host(reading, before, failed)
    if request.running is not None:
        reading.running(request.running)
    for name, path in request.kinds.items():
        if name not in KINDS or not KINDS[name].is_read:
            raise UsageError(f"no such kind {name!r}; known: {readable_kinds()}")
        with _named(reading, refused, path):
            reading.file(Found(str(path), path), KINDS[name])
    for dump in whole_dumps(reading.dumps) if reading.dumps else ():
        with _named(reading, refused, dump[0]):
            reading.vmcore(dump)
    if "vmcore" not in reading.parsed:
        reading.left_out += _without_dump(request.symbols)
    evidence = reading.finish()
    past = of_the_past(given_by(request.paths, bounds, reading.sources, reading.failures))
    past = {kind: reason for kind, reason in past.items() if kind not in request.kinds}
    reading.left_out += (Unread(reading.named[kind][-1], reason) for kind, reason in past.items())
    captured = Captured.of(evidence, request.layout, past)
    return Sources(captured, reading.sources, reading.ignored, reading.unread(), refused)


@contextmanager
def _named(reading: Reading, refused: list[PtauditError], path: Path) -> Iterator[None]:
    """Leave out, and name, a path of the user's that cannot be read or does not fit into the budget."""
    known = len(reading.left_out)
    try:
        yield
    except UsageError:
        raise
    except PtauditError as error:
        reading.failures.append(error.without_frames())
        reason = error.message if not error.path or error.path.startswith(str(path)) else str(error)
        if not any(one.path == str(path) for one in reading.left_out[known:]):
            reading.left_out.append(Unread(str(path), reason))
        if path not in reading.found_dumps:
            refused.append(error.without_frames())


def _refuse_another_host(reading: Reading, before: Mapping[str, int], failed: int) -> None:
    """ArchitectureError where one path gave several files since then, and they are of another architecture."""
    new = {kind: found[before.get(kind, 0) :] for kind, found in reading.parsed.items()}
    failures = reading.failures[failed:]
    if len(failures) + sum(map(len, new.values())) > 1:
        identity.refuse_other_architectures(new, failures)


def _without_dump(symbols: Symbols) -> Iterator[Unread]:
    """Files of symbols where no crash dump was read; InputError for one that is not there."""
    for path in filter(None, (symbols.vmlinux, symbols.system_map, symbols.vmcoreinfo)):
        head_of(path, 1)
        yield Unread(str(path), "no crash dump that it belongs to was read")

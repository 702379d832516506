"""One evidence set, read once: its tables, its audit, its answers."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyzer.audit import Report, judge
from analyzer.collect.on_this_host import live
from analyzer.sources.crashdump import Symbols, read_program
from analyzer.sources.read import Request, Sources, read_sources
from analyzer.tables import event_frames, memory_frames
from analyzer.whatif.foresight import what_if
from analyzer.where.place import where
from parsers.errors import BudgetError, UsageError
from rules.finding import Severity
from rules.model.captured import build_facts

if TYPE_CHECKING:
    import drgn
    import pandas as pd

    from analyzer.whatif.answer import Answer
    from rules.facts import Facts

__all__ = ["LIVE", "Evidence", "open_evidence"]

LIVE = "live"
"""The source for the host this runs on."""
_Path = str | os.PathLike[str]


def open_evidence(
    source: _Path | drgn.Program | Iterable[_Path],
    *,
    kinds: Mapping[str, _Path] | None = None,
    layout: Mapping[str, int] | None = None,
    vmlinux: _Path | None = None,
    system_map: _Path | None = None,
    vmcoreinfo: _Path | None = None,
    budget: int = 1,
) -> Evidence:
    """Open what was captured of one machine, as ``ptaudit audit`` does.

    ``source`` is a path or several (a capture directory, an archive, a crash dump, a trace, a log: whatever the
    command line takes), ``"live"`` for the host this runs on, which needs root, or a ``drgn.Program`` that is open
    on a kernel.  ``kinds`` names files whose kind is not to be guessed, ``layout`` layout values that are known;
    ``vmlinux``, ``system_map`` and ``vmcoreinfo`` belong to a crash dump.  ``budget`` is how many times as much as
    usual is read; what does not fit is in ``read.unread``.

    Everything is read now.  Raises :class:`ptaudit.PtauditError` where a path cannot be read.
    """
    symbols = Symbols(*(None if one is None else Path(one) for one in (vmlinux, system_map, vmcoreinfo)))
    request = Request(
        paths=(),
        kinds={name: Path(path) for name, path in (kinds or {}).items()},
        layout={name: int(value) & (2**64 - 1) for name, value in (layout or {}).items()},
        symbols=symbols,
        budget=budget,
    )
    keep = ExitStack()
    try:
        read = read_sources(_with_source(request, source, keep))
        _raise_refused(read)
        return Evidence(read, keep)
    except BaseException:
        keep.close()
        raise


def _raise_refused(read: Sources) -> None:
    """Raise the error of the first path that could not be read; what does not fit into the budget is in ``unread``."""
    for error in read.refused:
        if not isinstance(error, BudgetError):
            raise error


def _with_source(request: Request, source: Any, keep: ExitStack) -> Request:  # noqa: ANN401 as open_evidence takes it
    if isinstance(source, str) and source == LIVE:
        return keep.enter_context(live(request, None))
    if isinstance(source, (str, os.PathLike)):
        return _with_paths(request, [source])
    if _is_program(source):
        return replace(request, running=read_program(source))
    if isinstance(source, Iterable):
        return _with_paths(request, list(source))
    raise UsageError(f"cannot open a {type(source).__name__}: a path, several paths, 'live' or a drgn.Program")


def _is_program(source: Any) -> bool:  # noqa: ANN401
    """Whether this is a drgn.Program; drgn is not imported for it."""
    drgn = sys.modules.get("drgn")
    return drgn is not None and isinstance(source, drgn.Program)


def _with_paths(request: Request, paths: list[Any]) -> Request:
    if not paths and not request.kinds:
        raise UsageError("nothing to read: name a directory or a file")
    return replace(request, paths=tuple(Path(one) for one in paths))


class Evidence:
    """What was captured of one machine at one time (plus its trace), opened by :func:`ptaudit.open`.

    Tables are pandas DataFrames, new ones at each call.  Their columns and dtypes do not depend on the evidence:
    ``uint64`` where every row has a number, nullable ``UInt64`` where it may be unknown, categorical words,
    ``timedelta64[ns]`` times.  A table that the evidence does not give raises :class:`ptaudit.PtauditError` and says
    what to collect.
    """

    def __init__(self, sources: Sources, keep: ExitStack) -> None:
        self.read = sources
        """What was read, and what was not."""
        self._close = weakref.finalize(self, keep.close)

    @cached_property
    def facts(self) -> Facts:
        """The facts that rules decide on."""
        return build_facts(self.read.captured)

    @cached_property
    def _report(self) -> Report:
        return judge(self.read, self.facts)

    def __repr__(self) -> str:
        named = ", ".join(f"{one.kind} {one.path}" for one in self.read.sources[:4])
        more = f", and {len(self.read.sources) - 4} more" if len(self.read.sources) > 4 else ""
        return f"<ptaudit.Evidence: {named}{more}>"

    def sections(self) -> pd.DataFrame:
        return memory_frames.section_frame(self.facts)

    def coverage(self) -> pd.DataFrame:
        return memory_frames.coverage_frame(self.facts)

    def mapping(self, region: str | None = None) -> pd.DataFrame:
        return memory_frames.mapping_frame(self.facts, region)

    def timeline(self) -> pd.DataFrame:
        return event_frames.timeline_frame(self.facts)

    def findings(self) -> pd.DataFrame:
        return event_frames.finding_frame(self._report)

    def evidence(self) -> pd.DataFrame:
        return event_frames.evidence_frame(self._report)

    sections.__doc__ = memory_frames.section_frame.__doc__
    coverage.__doc__ = memory_frames.coverage_frame.__doc__
    mapping.__doc__ = memory_frames.mapping_frame.__doc__
    timeline.__doc__ = event_frames.timeline_frame.__doc__
    findings.__doc__ = event_frames.finding_frame.__doc__
    evidence.__doc__ = event_frames.evidence_frame.__doc__

    def audit(
        self, *, select: Iterable[str] = (), ignore: Iterable[str] = (), min_severity: Severity | str = Severity.INFO
    ) -> Report:
        """Run the rules: the report that ``ptaudit audit`` prints, with ``findings``, ``verdicts`` and ``worst()``.

        ``select`` and ``ignore`` take codes, families and names.  Raises UsageError for unknown ones.
        """
        wanted, unwanted, least = tuple(select), tuple(ignore), _severity(min_severity)
        if not wanted and not unwanted and least is Severity.INFO:
            return self._report
        return judge(self.read, self.facts, only=wanted, ignore=unwanted, min_severity=least)

    def where(self, what: str | int) -> dict[str, Any]:
        """Everything known of an address: the document ``ptaudit.where/1`` that ``ptaudit where`` prints as JSON.

        ``what`` is a number, or text as on the command line: ``0x…``, ``pfn:…``, ``page:…``, ``phys:…``, ``virt:…``, or
        a symbol (``memunmap_pages+0x1a8``), which needs a crash dump or the memory of a running kernel.  Raises
        UsageError for anything else, and for a symbol that the kernel does not have.
        """
        return where(self._report, f"{what:#x}" if isinstance(what, int) else what)

    def whatif(self, *operations: str, in_sequence: bool = False) -> list[Answer]:
        """What operations of memory hotplug would do: one answer each, as ``ptaudit whatif`` gives them.

        ``operations`` are ``remove:UNIT``, ``offline:memoryN``, ``online:memoryN``, ``add:0xSTART-0xEND``; with
        ``in_sequence`` each comes after the ones before it.  An answer has ``kind``, ``claim``, ``breaks``, ``why``,
        ``instead`` and ``as_dict()``.  Raises UsageError for text that is not an operation, and for unknown units.
        """
        return what_if(self.facts, operations, in_sequence=in_sequence)


def _severity(name: Severity | str) -> Severity:
    try:
        return name if isinstance(name, Severity) else Severity[name.upper()]
    except KeyError:
        raise UsageError(f"no severity {name!r}; known: {', '.join(map(str, Severity))}") from None

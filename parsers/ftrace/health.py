"""What a trace cannot prove: losses, missing probes and returns, impossible values, clocks that go back.

A trace is judged before anything is concluded from it.  Each `Issue` that is ``undecided`` names a window
of time in which an order of events that the trace shows, or does not show, proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from parsers.ftrace.events import NO_TIME, Events, Issue, Origin, Phase, Trace
from parsers.ftrace.functions import FUNCTION_OF_KIND, FUNCTIONS, Kind, Unit, kinds_in
from parsers.ftrace.naming import UNNAMED_ARGUMENT
from parsers.mapping import Bool
from parsers.ranges import distinct

__all__ = ["UNNAMED", "examine", "impossible_rows", "kprobe_misses", "unnamed_calls"]

Rows = NDArray[np.intp]

UNNAMED = "unnamed-arguments"
_EVIDENCE = 5
_MAX_PFN = 1 << 40  # 52 bits of physical address in pages of 4K
_MAX_PA = 1 << 52
_KERNEL_VA = 0xFFF0_0000_0000_0000
_MAX_NODE = 1024

_COUNTING = frozenset({"nop", "function"})
"""Tracers whose head counts the entries (kernel/trace/trace.c print_trace_header(), print_func_help_header())."""
_PHYSICAL = kinds_in(Unit.BYTES)
_VIRTUAL = kinds_in(Unit.STRUCT_PAGE, Unit.VIRTUAL)


def examine(trace: Trace) -> tuple[Issue, ...]:
    """Every issue of ``trace``, in a fixed order: losses first."""
    if not len(trace):
        return (
            *_losses(trace),
            Issue("no-events", "no event of memory hotplug was found in the trace", undecided=True),
        )
    return (
        *_losses(trace),
        *_clocks(trace),
        *_missing_probes(trace),
        *unnamed_calls(trace.events, "which of them is what depends on the kernel's release, which is not known"),
        *_unpaired(trace.events),
        *_impossible(trace.events),
    )


def _losses(trace: Trace) -> Iterator[Issue]:
    timed = trace.events.time_ns[(trace.events.time_ns != NO_TIME) & (trace.events.kind != Kind.LOG)]
    for buffer in trace.buffers:
        if buffer.entries is not None and buffer.written is not None and buffer.written > buffer.entries:
            lost = buffer.written - buffer.entries
            yield Issue(
                "overwritten",
                f"the buffer {buffer.name!r} held {buffer.entries} of {buffer.written} entries: the oldest {lost} were"
                " overwritten, the state at the first event is unknown".replace("buffer '' ", "buffer "),
                undecided=True,
                end_ns=int(timed[0]) if timed.size else None,
                count=lost,
            )
        if buffer.tracer in _COUNTING and buffer.entries is None:
            yield Issue(
                "torn-head",
                f'"# tracer: {buffer.tracer}" is not followed by how many entries the buffer has: lines were lost',
                undecided=True,
            )
        if buffer.entries is not None and buffer.read is not None and buffer.read < buffer.entries:
            yield Issue(
                "entries-missing",
                f"the file holds {buffer.read} of {buffer.entries} entries that its head announces: "
                + ("it is cut short" if trace.is_torn else "lines were lost, where is not known"),
                undecided=True,
                start_ns=int(timed[-1]) if timed.size and trace.is_torn else None,
                count=buffer.entries - buffer.read,
            )
    for damage in trace.diagnostics if trace.format == "trace.dat" else ():
        if damage.offset is not None:
            yield Issue("damaged-file", damage.message, undecided=True, offset=damage.offset)
    for gap in trace.gaps:
        number = "an unknown number of" if gap.count is None else str(gap.count)
        text = "earlier events were overwritten" if gap.reason == "buffer started" else f"{number} events were lost"
        yield Issue(
            gap.reason.replace(" ", "-"),
            f"CPU {gap.cpu}: {text}",
            undecided=True,
            start_ns=gap.start_ns,
            end_ns=gap.end_ns,
            line=gap.line,
            offset=gap.offset,
            count=gap.count,
            cpu=gap.cpu,
        )


def _clocks(trace: Trace) -> Iterator[Issue]:
    events = trace.events
    for number, buffer in enumerate(trace.buffers):
        if buffer.clock in ("counter", "uptime"):
            yield Issue(
                "clock-without-time",
                f"the trace clock {buffer.clock!r} orders events and does not measure time",
                undecided=False,
            )
        rows = np.flatnonzero((events.time_ns != NO_TIME) & (events.buffer == number))
        time = events.time_ns[rows]
        back = np.flatnonzero(time[1:] < time[:-1])
        if back.size:
            first = int(back[0])
            yield Issue(
                "clock-goes-back",
                f"time goes back {back.size} times, first from {time[first]} to {time[first + 1]}: captures"
                " or files of CPUs in a row, or a changed clock; only the order within each part is known",
                undecided=True,
                start_ns=int(time[back + 1].min()),
                end_ns=int(time[back].max()),
                rows=tuple(int(row) for row in rows[back + 1][:_EVIDENCE]),
                line=int(events.line[rows[first + 1]]) or None,
                count=int(back.size),
            )
    if len(events) and not (events.time_ns != NO_TIME).any():
        yield Issue("no-time", "the trace has no times (option funcgraph-abstime): order only", undecided=False)


def _missing_probes(trace: Trace) -> Iterator[Issue]:
    events = trace.events
    calls = events.kind[events.phase != Phase.POINT]
    seen = {Kind(kind) for kind in distinct(calls).tolist()}
    for kind in sorted(seen):
        absent = [one.kind for one in FUNCTIONS if kind in one.always_in and one.kind not in seen]
        for inner in absent:
            names = FUNCTION_OF_KIND[inner].names[0]
            yield Issue(
                "missing-probe",
                f"{FUNCTION_OF_KIND[kind].names[0]} was traced and {names}, which it calls, was not: it has no probe,"
                " is notrace (__meminit, up to 6.10) or was optimised away; its absence is not evidence",
                undecided=False,
                kinds=(inner,),
            )
    for kind in sorted(seen):
        function = FUNCTION_OF_KIND[kind]
        mine = events.kind == kind
        if function.returns and not (mine & (events.phase == Phase.RETURN)).any():
            yield Issue(
                "missing-return-probe",
                f"{function.names[0]} was traced without its return: whether it succeeded is unknown",
                undecided=False,
                kinds=(kind,),
            )
    bare = _without_arguments(events)
    if bare.size:
        kinds = tuple(Kind(kind) for kind in distinct(events.kind[bare]).tolist())
        names = ", ".join(FUNCTION_OF_KIND[kind].names[0] for kind in kinds)
        yield Issue(
            "no-arguments",
            f"calls of {names} were traced without arguments (function tracer): which range they concern is unknown",
            undecided=False,
            kinds=kinds,
            rows=tuple(int(row) for row in bare[:_EVIDENCE]),
            count=int(bare.size),
        )


def _without_arguments(events: Events) -> Rows:
    tracer = (events.origin == Origin.FUNCTION) | (events.origin == Origin.GRAPH)
    has = np.zeros(len(events), dtype=np.bool_)
    has[events.arguments.row] = True
    return np.flatnonzero(tracer & (events.phase == Phase.ENTRY) & ~has)


def unnamed_calls(events: Events, reason: str) -> Iterator[Issue]:
    """The calls whose arguments have the names that the kernel gives to those without one, and why that is so."""
    arguments = events.arguments
    unnamed = [i for i, name in enumerate(arguments.columns) if UNNAMED_ARGUMENT.fullmatch(name)]
    rows = distinct(arguments.row[np.isin(arguments.column, unnamed)])
    rows = rows[np.isin(events.kind[rows], list(FUNCTION_OF_KIND))]
    if rows.size:
        kinds = tuple(Kind(kind) for kind in distinct(events.kind[rows]).tolist())
        names = ", ".join(FUNCTION_OF_KIND[kind].names[0] for kind in kinds)
        yield Issue(
            UNNAMED,
            f"calls of {names} were traced with arguments named arg1, arg2 …: {reason}; name them in the probe"
            " (`ptaudit probes` prints the definitions)",
            undecided=bool((events.phase[rows] != Phase.RETURN).any()),
            kinds=kinds,
            rows=tuple(int(row) for row in rows[:_EVIDENCE]),
            count=int(rows.size),
        )


def _unpaired(events: Events) -> Iterator[Issue]:
    """Entries whose return is missing and returns whose entry is, by task; none of it is a fault of the kernel."""
    for kind in FUNCTION_OF_KIND:
        mine = np.flatnonzero((events.kind == kind) & (events.phase != Phase.POINT) & (events.pid >= 0))
        returns: Bool = events.phase[mine] == Phase.RETURN
        if not returns.any() or returns.all():
            continue
        mine = mine[np.argsort(events.pid[mine], kind="stable")]
        returns = events.phase[mine] == Phase.RETURN
        follows = np.append(events.pid[mine][1:] == events.pid[mine][:-1], np.False_)
        next_returns = np.append(returns[1:], np.False_) & follows
        after_entry = np.insert(~returns[:-1] & follows[:-1], 0, np.False_)
        yield from _missed(events, kind, mine, np.flatnonzero(~returns & ~next_returns), follows)
        orphans = mine[returns & ~after_entry]
        if orphans.size:
            yield _issue_of_rows(
                "return-without-entry", f"{orphans.size} returns of {{}} have no entry in the trace", kind, orphans
            )


def _missed(events: Events, kind: Kind, mine: Rows, missed: Rows, follows: Bool) -> Iterator[Issue]:
    last = missed[~follows[missed]]
    if last.size:
        yield _issue_of_rows(
            "call-unfinished", f"{last.size} calls of {{}} do not end within the trace", kind, mine[last]
        )
    between = missed[follows[missed]]
    if between.size:
        starts, ends = events.time_ns[mine[between]], events.time_ns[mine[between + 1]]
        issue = _issue_of_rows(
            "missed-return",
            f"the return of {between.size} calls of {{}} was missed (maxactive, or lost)",
            kind,
            mine[between],
        )
        for row, start, end in zip(mine[between][:_EVIDENCE].tolist(), starts.tolist(), ends.tolist(), strict=False):
            yield Issue(
                issue.code,
                issue.message,
                undecided=True,
                start_ns=start if start != NO_TIME else None,
                end_ns=end if end != NO_TIME else None,
                kinds=(kind,),
                rows=(row,),
                count=int(between.size),
            )


def _issue_of_rows(code: str, message: str, kind: Kind, rows: Rows) -> Issue:
    return Issue(
        code,
        message.format(FUNCTION_OF_KIND[kind].names[0]),
        undecided=False,
        kinds=(kind,),
        rows=tuple(int(row) for row in rows[:_EVIDENCE]),
        count=int(rows.size),
    )


def _impossible(events: Events) -> Iterator[Issue]:
    """Values that no call has: old records printed with the format of a newer probe, or stale bytes."""
    for column in ("altmap_base_pfn", "altmap_end_pfn"):
        value, present = events.column(column)
        bad = np.flatnonzero(present & (value > _MAX_PFN))
        if bad.size:
            yield Issue(
                "stale-derived",
                f"{column} is impossible: its pointer could not be followed and the field holds stale bytes",
                undecided=False,
                rows=tuple(int(row) for row in bad[:_EVIDENCE]),
                count=int(bad.size),
            )
    bad = np.flatnonzero(impossible_rows(events))
    if bad.size:
        kinds = tuple(Kind(kind) for kind in distinct(events.kind[bad]).tolist())
        times = events.time_ns[bad][events.time_ns[bad] != NO_TIME]
        yield Issue(
            "reused-event-id",
            f"{bad.size} events have arguments that no call can have: records of a deleted probe printed with the"
            " format of a newer one, or a probe on the wrong registers; clear the buffer after the probes are defined",
            undecided=True,
            start_ns=int(times.min()) if times.size else None,
            end_ns=int(times.max()) if times.size else None,
            kinds=kinds,
            rows=tuple(int(row) for row in bad[:_EVIDENCE]),
            count=int(bad.size),
        )


def impossible_rows(events: Events) -> Bool:
    """Rows whose range, node or addresses cannot be what their function was called with."""
    entry = (events.phase == Phase.ENTRY) | (events.phase == Phase.RETURN)
    bad = np.zeros(len(events), dtype=np.bool_)
    for column in ("start_pfn", "nr_pages", "end_pfn"):
        value, present = events.column(column)
        bad |= present & (value > _MAX_PFN)
    start, has_start = events.column("start")
    end, has_end = events.column("end")
    # An `end` of 0 is the top of the address space.
    bad |= has_start & has_end & (end < start) & (end != 0)
    bad |= has_start & np.isin(events.kind, _PHYSICAL) & (start >= _MAX_PA)
    bad |= has_start & np.isin(events.kind, _VIRTUAL) & (start < _KERNEL_VA)
    nid, has_nid = events.signed("nid")
    bad |= has_nid & ((nid < -1) | (nid >= _MAX_NODE))
    impossible: Bool = bad & entry
    return impossible


def kprobe_misses(text: str) -> dict[str, int]:
    """Events that ``kprobe_profile`` says were missed, and how often (its third column)."""
    misses: dict[str, int] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[2].isdigit() and int(words[2]):
            misses[words[0].rsplit("/", 1)[-1]] = int(words[2])
    return misses

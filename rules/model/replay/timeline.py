"""Hotplug replayed: the state that the traced operations led to, and what went wrong on the way.

State is kept for every 2 MiB subsection that the trace touches: valid, struct pages mapped and by what, linear
map, online.  Each is unknown until an operation shows it.  Operations are applied in the order of the trace
(`rules.model.replay.apply`) through the behaviour of the kernel (`rules.model.replay.behaviour`).
"""

from __future__ import annotations

from dataclasses import field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from parsers.errors import FormatError
from parsers.ftrace.events import NO_TIME
from parsers.ftrace.functions import FUNCTION_OF_KIND, Kind, Unit, unit_of
from parsers.ftrace.unnamed import name_arguments
from parsers.ranges import Ranges
from parsers.records import dataclass
from parsers.uname import parse_uname
from rules.finding import Cause, Evidence, UndecidedError
from rules.model.replay.apply import Replay, Step
from rules.model.replay.behaviour import Behaviour
from rules.model.replay.calibration import Calibration, calibrate, seen_behaviour
from rules.model.replay.calls import Calls, calls_of
from rules.model.replay.extents import Extents
from rules.model.replay.state import ESTABLISHED_BY, NO, PREVENTED, SUBSECTION, UNKNOWN, YES, Anomaly, State, Trouble

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.ftrace.events import Issue, Trace
    from parsers.layout import KernelLayout
    from parsers.mapping import Bool
    from parsers.uname import KernelRelease
    from rules.model.memory.snapshots import Earlier, Present

MAX_BASIS = 64
"""Calls that are looked at to find since when the state of some memory is known."""

__all__ = ["Anomaly", "Calibration", "HotplugLog", "State", "Step", "Timeline", "Trouble"]


@dataclass(frozen=True, eq=False)
class HotplugLog:
    """Hotplug as kernel logs report it: that something happened, not what became of it; not enough to replay."""

    traces: tuple[Trace, ...]
    """One a log."""


@dataclass(frozen=True, eq=False)
class Timeline:
    """The replayed trace."""

    calls: Calls
    trace: Trace
    calibration: Calibration
    behaviour: Behaviour
    extents: Extents
    """Where the memory of each call lies, in PFNs and in rows of the state."""
    state: State
    """After the last event."""
    anomalies: tuple[Anomaly, ...]
    blind: dict[Trouble, int]
    """Troubles that could not be judged everywhere: the first call before which the state was not known."""
    counts: dict[Trouble, int]
    """How often each trouble was met; only the first thousand are kept."""
    release: KernelRelease | None
    earlier: Earlier | None
    present: Present | None
    notes: tuple[str, ...] = field(default=())

    @cached_property
    def undecided(self) -> tuple[Issue, ...]:
        """Windows in which order says nothing: lost events, clocks that go back.

        Arguments that no call can have are not a loss where the replay does not use any call of that function.
        """
        unused = {kind for kind in Kind if not self.calls.start_known[self.calls.of(kind)].any()}
        return tuple(
            issue
            for issue in self.trace.health
            if issue.undecided and not (issue.code == "reused-event-id" and unused.issuperset(issue.kinds))
        )

    def is_undecided(self, call: int, since: int | None = None) -> bool:
        """Whether order says nothing at some time from the beginning to the end of a call.

        ``since`` is the row of the events that the time begins after instead, -1 for before the trace.
        """
        row, last = int(self.calls.row[call]), int(self.calls.until[call])
        return self._is_unreliable(row, last if last < len(self.trace) else row, since)

    def _is_unreliable(self, row: int, last: int | None, since: int | None = None) -> bool:
        time = self.trace.events.time_ns
        begin = int(time[row]) if since is None else int(time[since]) + 1 if since >= 0 else NO_TIME
        end = NO_TIME if last is None else int(time[last])
        return any(
            (issue.start_ns is None or end == NO_TIME or issue.start_ns <= end)
            and (issue.end_ns is None or begin <= issue.end_ns)
            for issue in self.undecided
        )

    def is_doubtful(self, anomaly: Anomaly) -> bool:
        """Whether events that the trace lost explain an anomaly as well."""
        if anomaly.trouble in PREVENTED and not self.trace.is_counted:
            return True
        if not self.undecided:
            return False
        if anomaly.trouble is Trouble.FAILED_WITHOUT_CLEANUP:
            return self._is_unreliable(int(self.calls.row[anomaly.call]), None)
        return self.is_undecided(anomaly.call, self.known_since(anomaly))

    def known_since(self, anomaly: Anomaly) -> int:
        """Row of the events from which on the trace shows the state that an anomaly is judged by.

        -1 where it was so before the trace began.
        """
        calls, low, high = self.calls, self.extents.low, self.extents.high
        pfns, row = anomaly.pfns, int(calls.row[anomaly.call])
        mine = calls.of(*ESTABLISHED_BY[anomaly.trouble])
        mine = mine[calls.start_known[mine] & ~calls.failed[mine] & (calls.row[mine] < row)]
        first = row
        for number in mine[pfns.touches(low[mine], high[mine])][::-1][:MAX_BASIS].tolist():
            pfns -= Ranges.one(int(low[number]), int(high[number]))
            first = int(calls.row[number])
            if not pfns:
                return first
        return 0 if self.earlier is None else -1

    def must_show(self, *kinds: Kind) -> None:
        """UndecidedError where the trace cannot show calls of any of these kinds.

        A kind that never occurs did not happen or was not probed, and only a trace.dat says which.
        """
        for issue in self.undecided:
            raise UndecidedError(f"event order is unreliable in parts of the trace: {issue.message}", Timeline)
        self.must_be_counted()
        mine = self.calls.of(*kinds)
        names = " or ".join(f"{FUNCTION_OF_KIND[kind].names[0]}()" for kind in kinds)
        if not mine.size and not any(map(self._is_defined, kinds)):
            raise UndecidedError(f"no call of {names} is in the trace: it was not made, or not traced", Timeline)
        known = np.array([self.calls.start_known[self.calls.of(kind)].all() for kind in kinds])
        if mine.size and not known.any():
            raise UndecidedError(f"calls of {names} were traced without their range", Timeline)

    def must_be_counted(self) -> None:
        """UndecidedError where lines that were lost would not be noticed."""
        if not self.trace.is_counted:
            raise UndecidedError(
                "the trace does not say how many entries it has: whether lines are missing is not known", Timeline
            )

    def _is_defined(self, kind: Kind) -> bool:
        """Whether the trace names an event for calls of ``kind``, though none happened."""
        function = FUNCTION_OF_KIND[kind]
        names = {function.event, *function.aliases, *function.names}
        return any(name.rsplit(":", 1)[-1].removeprefix("mhp_") in names for name in self.trace.defined)

    def where(self, mask: Bool) -> Ranges:
        """PFNs of subsections."""
        start = self.state.start_pfn[mask]
        return Ranges.of(start, start + SUBSECTION // self.calibration.page_size)

    def pfns_of(self, *numbers: int) -> Ranges:
        """PFNs of calls."""
        chosen = list(numbers)
        return Ranges.of(self.extents.low[chosen], self.extents.high[chosen])

    def rows_of(self, call: int) -> slice:
        """Rows of the state that a call concerns."""
        return slice(int(self.extents.first[call]), int(self.extents.end[call]))

    @property
    def lost(self) -> Ranges:
        """Valid PFNs whose struct pages an operation took away."""
        return self._within_leaves(self.state.lost & (self.state.valid == YES))

    @property
    def unmapped(self) -> Ranges:
        """PFNs whose struct pages nothing maps."""
        return self._within_leaves(self.state.mapped == NO)

    def _within_leaves(self, lost: Bool) -> Ranges:
        return self.extents.within_leaves(self.where(lost), self.state.spared(lost))

    def of(self, trouble: Trouble) -> list[Anomaly]:
        """The anomalies of one kind, in order."""
        return [anomaly for anomaly in self.anomalies if anomaly.trouble is trouble]

    def steps(self) -> Iterator[Step]:
        """Every replayed call in the order in which it took effect, with the state before and after."""
        return Replay(self.calls, self.calibration, self.behaviour, self.earlier, self.present).steps()

    def knows_validity(self, pfns: Ranges) -> bool:
        """Whether the trace shows for every subsection of ``pfns`` if it is valid at the end."""
        start, pages = self.state.start_pfn, self.extents.pages
        unknown = self.state.valid == UNKNOWN
        known = Ranges.of(start[~unknown], start[~unknown] + pages)
        return not pfns - known

    def cause_of(self, pfns: Ranges) -> Cause | None:
        """The event that took the struct pages of ``pfns`` away."""
        unit = SUBSECTION // self.calibration.page_size
        touched = pfns.touches(self.state.start_pfn, self.state.start_pfn + unit)
        for blamed in (self.state.damaged_by, self.state.suspect):
            calls = blamed[touched & (blamed >= 0)]
            if calls.size:
                return self.cause(int(calls[0]))
        return None

    def time(self, call: int) -> float | None:
        """Seconds at which a call began, None where the trace has no time."""
        time = int(self.trace.events.time_ns[int(self.calls.row[call])])
        return None if time < 0 else time / 1e9

    def duration(self, call: int) -> float | None:
        """Seconds from entry to return, None where either is not known."""
        time = self.trace.events.time_ns
        first, last = int(self.calls.row[call]), int(self.calls.end_row[call])
        if last >= time.size or time[first] < 0 or time[last] < time[first]:
            return None
        return (int(time[last]) - int(time[first])) / 1e9

    def cause(self, call: int) -> Cause:
        """A call with the operation that it is part of, its task, its time and its stack."""
        calls, trace = self.calls, self.trace
        row = int(calls.row[call])
        events = trace.events
        time = self.time(call)
        parts = [self.describe(call)]
        outer = int(calls.parent[call])
        while outer >= 0:
            parts.append(f"under {self.describe(outer)}")
            outer = int(calls.parent[outer])
        task = f"{trace.strings[int(events.comm[row])]}-{int(events.pid[row])}"
        stack = trace.stacks[int(events.stack[row])]
        when = "" if time is None else f" at {time:.6f}"
        what, operation = f"{' '.join(parts)} by {task}{when}", parts[-1].removeprefix("under ")
        return Cause(Kind(int(calls.kind[call])).name.lower(), time, what, stack, operation, task)

    def describe(self, call: int) -> str:
        """A call in words."""
        calls = self.calls
        kind = Kind(int(calls.kind[call]))
        name = kind.name.lower()
        if not calls.start_known[call]:
            return name
        start, end = int(calls.start[call]), int(calls.end[call])
        return (
            f"{name} of {start:#x} ({(end - start) >> 20} MiB)"
            if unit_of(kind) is Unit.BYTES
            else f"{name} {start:#x}-{end:#x}"
        )

    def evidence(self, *numbers: int) -> tuple[Evidence, ...]:
        """The lines of calls, and of their returns where they matter."""
        rows: list[int] = []
        for number in numbers:
            rows.append(int(self.calls.row[number]))
            if self.calls.ret_known[number]:
                rows.append(int(self.calls.end_row[number]))
        return self.lines(*rows)

    def lines(self, *rows: int) -> tuple[Evidence, ...]:
        """Lines of the trace by row of its event table."""
        trace = self.trace
        return tuple(Evidence(trace.source, trace.quote(row), int(trace.events.line[row]) or None) for row in rows)

    @classmethod
    def replay(
        cls,
        trace: Trace,
        layout: KernelLayout | None,
        release: KernelRelease | None,
        earlier: Earlier | None = None,
        present: Present | None = None,
    ) -> Timeline:
        """Replay a trace.

        ``layout`` and ``release`` fill in what the trace does not say, ``earlier`` what memory
        looked like that the trace does not see added, ``present`` which of it is there at the end.
        """
        release = release or _release_of(trace)
        trace = name_arguments(trace, None if release is None else release.version)
        calls = calls_of(trace)
        calibration = calibrate(calls, layout, release)
        behaviour = Behaviour.of(
            calibration.page_size, calibration.pages_per_section, release, seen_behaviour(calls, calibration)
        )
        replay = Replay(calls, calibration, behaviour, earlier, present)
        replay.run()
        return cls(
            calls,
            trace,
            calibration,
            behaviour,
            replay.extents,
            replay.state,
            tuple(replay.anomalies),
            replay.blind,
            replay.counts,
            release,
            earlier,
            present,
            tuple(replay.notes),
        )


def _release_of(trace: Trace) -> KernelRelease | None:
    """The release that a trace.dat names."""
    try:
        return parse_uname(trace.release.encode(), trace.source) if trace.release else None
    except FormatError:
        return None

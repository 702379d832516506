"""Hotplug replayed: the state that the traced operations led to, and what went wrong on the way.

State is kept for every 2 MiB subsection that the trace touches: valid, struct pages mapped and by what, linear
map, online.  Each is unknown until an operation tells it.  Operations are applied in the order of the trace
(`rules.model.replay`) through the behaviour of the kernel (`rules.model.behaviour`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from parsers.ftrace.functions import Kind
from parsers.ranges import Ranges
from rules.finding import Cause, Evidence
from rules.model.behaviour import Behaviour
from rules.model.calibration import Calibration, calibrate, seen_behaviour
from rules.model.operations import Calls, calls_of
from rules.model.replay import Replay
from rules.model.replay_state import SUBSECTION, YES, Anomaly, State, Trouble

if TYPE_CHECKING:
    from parsers.ftrace.events import Issue, Trace
    from parsers.layout import KernelLayout
    from parsers.mapping import Bool
    from parsers.uname import KernelRelease

__all__ = ["Anomaly", "Calibration", "State", "Timeline", "Trouble"]


@dataclass(frozen=True, eq=False)
class Timeline:
    """The replayed trace."""

    calls: Calls
    trace: Trace
    calibration: Calibration
    behaviour: Behaviour
    state: State
    """After the last event."""
    anomalies: tuple[Anomaly, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def undecided(self) -> tuple[Issue, ...]:
        """Windows in which order says nothing: lost events, clocks that go back."""
        return tuple(issue for issue in self.trace.health if issue.undecided)

    def is_undecided(self, call: int) -> bool:
        """Whether a call lies in a window in which order says nothing."""
        time = int(self.trace.events.time_ns[int(self.calls.row[call])])
        return any(
            (issue.start_ns is None or issue.start_ns <= time) and (issue.end_ns is None or time <= issue.end_ns)
            for issue in self.undecided
        )

    def where(self, mask: Bool) -> Ranges:
        """PFNs of subsections."""
        start = self.state.start_pfn[mask]
        return Ranges.of(start, start + SUBSECTION // self.calibration.page_size)

    @property
    def lost(self) -> Ranges:
        """Valid PFNs whose struct pages an operation took away."""
        return self.where(self.state.lost & (self.state.valid == YES))

    def of(self, trouble: Trouble) -> list[Anomaly]:
        """The anomalies of one kind, in order."""
        return [anomaly for anomaly in self.anomalies if anomaly.trouble is trouble]

    def cause_of(self, pfns: Ranges) -> Cause | None:
        """The event that took the struct pages of ``pfns`` away."""
        unit = SUBSECTION // self.calibration.page_size
        touched = pfns.touches(self.state.start_pfn, self.state.start_pfn + unit)
        for blamed in (self.state.damaged_by, self.state.suspect):
            calls = blamed[touched & (blamed >= 0)]
            if calls.size:
                return self.cause(int(calls[0]))
        return None

    def cause(self, call: int) -> Cause:
        """A call with the operation that it is part of, its task, its time and its stack."""
        calls, trace = self.calls, self.trace
        row = int(calls.row[call])
        events = trace.events
        time = None if events.time_ns[row] < 0 else events.time_ns[row] / 1e9
        parts = [self.describe(call)]
        outer = int(calls.parent[call])
        while outer >= 0:
            parts.append(f"under {self.describe(outer)}")
            outer = int(calls.parent[outer])
        task = f"{trace.strings[int(events.comm[row])]}-{int(events.pid[row])}"
        stack = trace.stacks[int(events.stack[row])]
        when = "" if time is None else f" at {time:.6f}"
        text = f"{' '.join(parts)} by {task}{when}" + (f"; stack: {' < '.join(stack)}" if stack else "")
        return Cause(Kind(int(calls.kind[call])).name.lower(), time, text)

    def describe(self, call: int) -> str:
        """A call in words."""
        calls = self.calls
        name = Kind(int(calls.kind[call])).name.lower()
        if not calls.start_known[call]:
            return name
        if calls.kind[call] == Kind.ARCH_REMOVE_MEMORY or calls.kind[call] == Kind.ARCH_ADD_MEMORY:
            return (
                f"{name} of {int(calls.start[call]):#x} ({(int(calls.end[call]) - int(calls.start[call])) >> 20} MiB)"
            )
        return f"{name} {int(calls.start[call]):#x}-{int(calls.end[call]):#x}"

    def evidence(self, *numbers: int) -> tuple[Evidence, ...]:
        """The lines of calls, and of their returns where they tell."""
        found = []
        for number in numbers:
            rows = [int(self.calls.row[number])]
            if self.calls.ret_known[number]:
                rows.append(int(self.calls.end_row[number]))
            for row in rows:
                line = int(self.trace.events.line[row]) or None
                found.append(Evidence(self.trace.source, self.trace.quote(row), line))
        return tuple(found)

    @classmethod
    def replay(cls, trace: Trace, layout: KernelLayout | None, release: KernelRelease | None) -> Timeline:
        """Replay a trace; ``layout`` and ``release`` fill in what the trace does not tell of itself."""
        calls = calls_of(trace)
        calibration = calibrate(calls, layout)
        behaviour = Behaviour.of(
            calibration.page_size, calibration.pages_per_section, release, seen_behaviour(calls, calibration)
        )
        replay = Replay(calls, calibration, behaviour)
        replay.run()
        return cls(calls, trace, calibration, behaviour, replay.state, tuple(replay.anomalies), tuple(replay.notes))

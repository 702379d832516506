"""Memory hotplug over time, as the page draws it: a plain list of events, the damaging ones marked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.ftrace.functions import Kind
from parsers.records import dataclass
from rules.model.replay.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from parsers.mapping import I64
    from rules.facts import Facts

__all__ = ["Event", "Picture", "events", "picture"]

WIDTH, LANE = 1000.0, 18.0
MAX_LISTED = 500
"""Events in the table: those that did damage, and those nearest to them in time."""
MAX_EVENTS = 4000
MAX_LANES = 12


@dataclass(frozen=True, slots=True)
class Event:
    """One operation; ``end_pfn`` is exclusive."""

    time_s: float | None
    cpu: int | None
    task: str
    kind: str
    start_pfn: int | None
    end_pfn: int | None
    text: str
    damaging: bool = False


@dataclass(frozen=True, slots=True)
class Dot:
    """An event in the picture."""

    x: float
    y: float
    damaging: bool
    number: int


@dataclass(frozen=True, slots=True)
class Picture:
    """Lanes by kind of operation, dots by time, and the events of the table with their numbers."""

    lanes: tuple[tuple[float, str], ...]
    dots: tuple[Dot, ...]
    height: float
    first_s: float
    last_s: float
    listed: tuple[tuple[int, Event], ...]
    total: int


def events(facts: Facts) -> list[Event]:
    """The operations that the replayed trace shows, in order; of very many, those nearest to the damage."""
    timeline = facts.get(Timeline)
    if timeline is None:
        return []
    state, calls = timeline.state, timeline.calls
    damage = np.unique(state.damaged_by[state.lost & (state.damaged_by >= 0)]).astype(np.int64)
    noticed: dict[int, list[str]] = {}
    for anomaly in timeline.anomalies:
        noticed.setdefault(anomaly.call, []).append(anomaly.text)
    shown = np.union1d(damage, np.array(sorted(noticed), dtype=np.int64))
    chosen = _nearest(np.union1d(np.flatnonzero(calls.parent < 0), shown), damage)
    return [_event(timeline, call, call in damage, noticed.get(call, [])) for call in chosen.tolist()]


def _nearest(calls: I64, damage: I64) -> I64:
    """At most `MAX_EVENTS` calls: those nearest to the first damage, or the last ones."""
    point = damage[0] if damage.size else calls[-1] if calls.size else 0
    order = np.argsort(np.abs(calls - point), kind="stable")
    return np.sort(calls[order[:MAX_EVENTS]])


def _event(timeline: Timeline, call: int, damaging: bool, noticed: list[str]) -> Event:
    calls, trace = timeline.calls, timeline.trace
    table, row = trace.events, int(calls.row[call])
    time, cpu, pid = int(table.time_ns[row]), int(table.cpu[row]), int(table.pid[row])
    pfns = timeline.where(timeline.state.damaged_by == call).tuples() if damaging else []
    start, end = pfns[0] if len(pfns) == 1 else _pfns(timeline, call)
    words = [] if start is not None and not pfns else [timeline.describe(call)]
    words += noticed
    if calls.failed[call]:
        words.append(f"returned {int(calls.ret[call])}")
    if damaging:
        words.append(f"took the struct pages of {', '.join(f'{lo:#x}-{hi:#x}' for lo, hi in pfns[:8])} away")
    return Event(
        time_s=None if time < 0 else time / 1e9,
        cpu=None if cpu < 0 else cpu,
        task=trace.strings[int(table.comm[row])] + (f"-{pid}" if pid >= 0 else ""),
        kind=Kind(int(calls.kind[call])).name.lower(),
        start_pfn=start,
        end_pfn=end,
        text="; ".join(words),
        damaging=damaging,
    )


def _pfns(timeline: Timeline, call: int) -> tuple[int | None, int | None]:
    """The PFNs of a call that counts in PFNs or in physical bytes."""
    calls, unit = timeline.calls, 0
    if calls.kind[call] in {Kind.ARCH_ADD_MEMORY, Kind.ARCH_REMOVE_MEMORY}:
        unit = timeline.calibration.page_size
    elif timeline.trace.events.column("start_pfn")[1][int(calls.row[call])]:
        unit = 1
    if not unit or not calls.start_known[call]:
        return None, None
    return int(calls.start[call]) // unit, int(calls.end[call]) // unit


def picture(every: Sequence[Event]) -> Picture | None:
    """The drawing of a list of events; None of an empty one."""
    if not every:
        return None
    times = [event.time_s for event in every if event.time_s is not None]
    first, last = (min(times), max(times)) if times else (0.0, 0.0)
    kinds = list(dict.fromkeys(event.kind for event in every))
    lane = {kind: min(row, MAX_LANES - 1) for row, kind in enumerate(kinds)}
    names = kinds if len(kinds) <= MAX_LANES else [*kinds[: MAX_LANES - 1], "other"]
    dots = [
        Dot(_place(event.time_s, first, last), LANE * (lane[event.kind] + 0.5), event.damaging, number)
        for number, event in enumerate(every, 1)
        if event.time_s is not None
    ]
    return Picture(
        lanes=tuple((LANE * (row + 0.5), name) for row, name in enumerate(names)),
        dots=tuple(sorted(dots, key=lambda dot: dot.damaging)),
        height=LANE * len(names),
        first_s=first,
        last_s=last,
        listed=_listed(every),
        total=len(every),
    )


def _place(time_s: float, first: float, last: float) -> float:
    return round(WIDTH * (time_s - first) / (last - first), 1) if last > first else WIDTH / 2


def _listed(every: Sequence[Event]) -> tuple[tuple[int, Event], ...]:
    """The first events, or where there are very many, those around the damage."""
    numbered = list(enumerate(every, 1))
    if len(numbered) <= MAX_LISTED:
        return tuple(numbered)
    damage = [number for number, event in numbered if event.damaging][:MAX_LISTED]
    if not damage:
        return tuple(numbered[-MAX_LISTED:])
    near = sorted(numbered, key=lambda pair: min(abs(pair[0] - number) for number in damage[:8]))
    kept = {pair[0] for pair in near[:MAX_LISTED]}
    return tuple(pair for pair in numbered if pair[0] in kept)

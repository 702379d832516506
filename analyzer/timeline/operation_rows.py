"""The hotplug operations of a trace, replayed: what each did, to which memory, by whom, and what it led to."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from parsers.errors import InputError
from parsers.ftrace.events import Origin
from parsers.ftrace.functions import Kind, Unit, unit_of
from parsers.records import dataclass
from rules.facts import how_to_collect
from rules.model.replay.calls import NEVER
from rules.model.replay.timeline import HotplugLog, Timeline, Trouble

if TYPE_CHECKING:
    from collections.abc import Sequence

    from parsers.ftrace.events import Trace
    from rules.facts import Facts
    from rules.model.replay.state import Glimpse
    from rules.model.replay.timeline import Step

__all__ = ["OPERATIONS", "OperationRow", "operation_rows", "trace_notes"]

OPERATIONS: dict[Kind, str] = {
    Kind.ARCH_ADD_MEMORY: "add",
    Kind.ARCH_REMOVE_MEMORY: "remove",
    Kind.SPARSE_ADD_SECTION: "add section",
    Kind.SPARSE_REMOVE_SECTION: "remove section",
    Kind.VMEMMAP_POPULATE: "populate",
    Kind.VMEMMAP_FREE: "free",
    Kind.ONLINE_PAGES: "online",
    Kind.OFFLINE_PAGES: "offline",
    Kind.CREATE_MEMORY_BLOCK_DEVICES: "create blocks",
    Kind.REMOVE_MEMORY_BLOCK_DEVICES: "remove blocks",
    Kind.MEMREMAP_PAGES: "map device",
    Kind.MEMUNMAP_PAGES: "unmap device",
    Kind.UNMAP_HOTPLUG_RANGE: "unmap",
    Kind.HUGETLB_VMEMMAP_OPTIMIZE: "optimise huge page",
    Kind.HUGETLB_VMEMMAP_OPTIMIZE_FOLIOS: "optimise huge pages",
    Kind.HUGETLB_VMEMMAP_RESTORE: "restore huge page",
    Kind.HUGETLB_VMEMMAP_RESTORE_FOLIOS: "restore huge pages",
    Kind.VMEMMAP_REMAP_RANGE: "remap struct pages",
}
"""Kinds of calls that are operations, and what they are called."""


@dataclass(frozen=True, slots=True)
class OperationRow:
    """One operation; ``depth`` counts the operations that it is part of."""

    time: float | None
    cpu: int | None
    task: str
    depth: int
    operation: str
    start: int | None
    end: int | None
    unit: str
    """``pfn`` or ``address``: what start and end count."""
    result: str
    sections: tuple[int, int] | None
    """First and last section that the operation concerns."""
    before: Glimpse | None
    """State of these sections before it took effect, None for operations that are not replayed."""
    after: Glimpse | None
    trouble: str
    damage: tuple[tuple[int, int], ...]
    """PFNs whose struct pages it took away."""
    stack: tuple[str, ...]
    source: str
    line: int | None

    @property
    def state(self) -> str:
        """What changed, in one short text: ``16: 64 -> 48 of 64 valid, pmd -> none, 48 lost``."""
        if self.sections is None or self.before is None or self.after is None:
            return ""
        first, last = self.sections
        before, after = self.before, self.after
        name = str(first) if first == last else f"{first}-{last}"
        words = [f"{_change(before.valid, after.valid)} of {after.subsections} valid"]
        if after.unknown:
            words[0] += f" ({after.unknown} unknown)"
        words.append(_change(before.leaf, after.leaf))
        for what in ("linear", "online"):
            was, now = getattr(before, what), getattr(after, what)
            if was != now:
                words.append(f"{what} {_change(was, now)}")
        if after.lost:
            words.append(f"{after.lost} LOST")
        return f"{name}: {', '.join(words)}"

    def as_dict(self) -> dict[str, Any]:
        """Plain data, addresses as text."""
        return {
            **asdict(self),
            "start": None if self.start is None else f"{self.start:#x}",
            "end": None if self.end is None else f"{self.end:#x}",
            "sections": None if self.sections is None else list(range(self.sections[0], self.sections[1] + 1)),
            "before": None if self.before is None else self.before.as_dict(),
            "after": None if self.after is None else self.after.as_dict(),
            "state": self.state,
            "trouble": self.trouble.split(),
            "damage": [{"start": f"{low:#x}", "end": f"{high:#x}"} for low, high in self.damage],
        }


def _change(before: int | str, after: int | str) -> str:
    return str(after) if before == after else f"{before} -> {after}"


def operation_rows(facts: Facts) -> list[OperationRow]:
    """All operations in the order of the trace; InputError, with what to collect, where there is no trace."""
    timeline, log = facts.get(Timeline), facts.get(HotplugLog)
    if log is not None:
        return _logged_once(log.traces)
    if timeline is None:
        raise InputError(f"{facts.why_missing(Timeline)}; collect: {'; '.join(how_to_collect(Timeline))}")
    calls = timeline.calls
    troubles: dict[int, list[Trouble]] = {}
    for anomaly in timeline.anomalies:
        troubles.setdefault(anomaly.call, []).append(anomaly.trouble)
    damage: dict[int, list[tuple[int, int]]] = {}
    for anomaly in timeline.of(Trouble.FREE_WIDER_THAN_REMOVE):
        damage.setdefault(anomaly.call, []).extend(anomaly.pfns.tuples())
    steps = {step.call: step for step in timeline.steps()}
    chosen = np.flatnonzero(np.isin(calls.kind, list(OPERATIONS))).tolist()
    rows = [_row(timeline, call, steps.get(call), troubles.get(call, []), damage.get(call, [])) for call in chosen]
    said = _logged(timeline.trace)
    return sorted(rows + said, key=lambda row: row.line or 0) if said else rows


def _logged_once(traces: Sequence[Trace]) -> list[OperationRow]:
    """What several logs say, in the order of their times, each message once."""
    if len(traces) == 1:
        return _logged(traces[0])
    rows: dict[tuple[object, ...], OperationRow] = {}
    for row in (row for trace in traces for row in _logged(trace)):
        rows.setdefault((row.source, row.line) if row.time is None else (row.time, row.result), row)
    return sorted(rows.values(), key=lambda row: (row.time is None, row.time or 0.0))


def _logged(trace: Trace) -> list[OperationRow]:
    """What the kernel log says about hotplug: when, and in its own words."""
    events = trace.events
    said = events.origin == Origin.LOG
    said &= ~np.isin(events.line, events.line[~said])  # lines of a dumped buffer that read like a message
    text, (start, known), (end, _) = events.text("text"), events.column("start"), events.column("end")
    return [
        OperationRow(
            time=None if events.time_ns[row] < 0 else int(events.time_ns[row]) / 1e9,
            cpu=None,
            task="",
            depth=0,
            operation="log",
            start=int(start[row]) if known[row] else None,
            end=int(end[row]) if known[row] else None,
            unit="address",
            result=trace.strings[int(text[row])],
            sections=None,
            before=None,
            after=None,
            trouble="",
            damage=(),
            stack=(),
            source=trace.source,
            line=int(events.line[row]) or None,
        )
        for row in np.flatnonzero(said).tolist()
    ]


def _row(
    timeline: Timeline, call: int, step: Step | None, troubles: list[Trouble], damage: list[tuple[int, int]]
) -> OperationRow:
    calls, trace = timeline.calls, timeline.trace
    events, row, kind = trace.events, int(calls.row[call]), Kind(int(calls.kind[call]))
    known = bool(calls.start_known[call])
    shown = step is not None and step.after.subsections > 0
    return OperationRow(
        time=timeline.time(call),
        cpu=int(events.cpu[row]),
        task=f"{trace.strings[int(events.comm[row])]}-{int(events.pid[row])}",
        depth=_depth(timeline, call),
        operation=OPERATIONS[kind],
        start=int(calls.start[call]) if known else None,
        end=int(calls.end[call]) if known else None,
        unit="pfn" if unit_of(kind) is Unit.PFN else "address",
        result=_result(timeline, call),
        sections=(step.first_section, step.last_section) if step is not None and shown else None,
        before=step.before if step is not None and shown else None,
        after=step.after if step is not None and shown else None,
        trouble=" ".join(troubles),
        damage=tuple(damage),
        stack=trace.stacks[int(events.stack[row])],
        source=trace.source,
        line=int(events.line[row]) or None,
    )


def trace_notes(facts: Facts) -> list[str]:
    """What limits the trace, and what the kernel's behaviour was taken from."""
    timeline = facts.get(Timeline)
    if timeline is None:
        return []
    behaviour = {True: "base pages for parts of a section", False: "a block for any part", None: "not known"}
    seen = behaviour[timeline.behaviour.whole_sections_only]
    return [
        f"struct pages of part of a section: {seen} (from {timeline.behaviour.source})",
        *timeline.notes,
        *(issue.message for issue in timeline.trace.health),
    ]


def _depth(timeline: Timeline, call: int) -> int:
    depth, outer = 0, int(timeline.calls.parent[call])
    while outer >= 0:
        depth += 1
        outer = int(timeline.calls.parent[outer])
    return depth


def _result(timeline: Timeline, call: int) -> str:
    calls = timeline.calls
    if calls.ret_known[call]:
        return f"error {int(calls.ret[call])}" if calls.failed[call] else "ok"
    return "no return seen" if calls.end_row[call] == NEVER else "done"

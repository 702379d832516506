"""The hotplug operations of a trace, replayed: what each did, to which memory, by whom."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from parsers.errors import InputError
from parsers.ftrace.functions import Kind
from rules.facts import how_to_collect
from rules.model.operations import NEVER
from rules.model.timeline import Timeline, Trouble

if TYPE_CHECKING:
    from rules.facts import Facts

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
    Kind.HUGETLB_VMEMMAP_RESTORE: "restore huge page",
}
"""Kinds of calls that are operations, and what they are called."""


@dataclass(frozen=True, slots=True)
class OperationRow:
    """One operation; ``depth`` counts the operations that it is part of."""

    time: float | None
    cpu: int
    task: str
    depth: int
    operation: str
    start: int | None
    end: int | None
    unit: str
    """``pfn`` or ``address``: what start and end count."""
    result: str
    trouble: str
    source: str
    line: int | None

    def as_dict(self) -> dict[str, Any]:
        """Plain data, addresses as text."""
        return {
            **asdict(self),
            "start": None if self.start is None else f"{self.start:#x}",
            "end": None if self.end is None else f"{self.end:#x}",
        }


def operation_rows(facts: Facts) -> list[OperationRow]:
    """All operations in the order of the trace; InputError, with what to collect, where there is no trace."""
    timeline = facts.get(Timeline)
    if timeline is None:
        raise InputError(f"{facts.why_missing(Timeline)}; collect: {'; '.join(how_to_collect(Timeline))}")
    calls, events, strings = timeline.calls, timeline.trace.events, timeline.trace.strings
    troubles: dict[int, list[Trouble]] = {}
    for anomaly in timeline.anomalies:
        troubles.setdefault(anomaly.call, []).append(anomaly.trouble)
    rows = []
    chosen = np.flatnonzero(np.isin(calls.kind, list(OPERATIONS)))
    by_pages = {Kind.SPARSE_ADD_SECTION, Kind.SPARSE_REMOVE_SECTION, Kind.ONLINE_PAGES, Kind.OFFLINE_PAGES}
    for call in chosen.tolist():
        row, kind = int(calls.row[call]), Kind(int(calls.kind[call]))
        known = bool(calls.start_known[call])
        rows.append(
            OperationRow(
                time=None if events.time_ns[row] < 0 else float(events.time_ns[row]) / 1e9,
                cpu=int(events.cpu[row]),
                task=f"{strings[int(events.comm[row])]}-{int(events.pid[row])}",
                depth=_depth(timeline, call),
                operation=OPERATIONS[kind],
                start=int(calls.start[call]) if known else None,
                end=int(calls.end[call]) if known else None,
                unit="pfn" if kind in by_pages else "address",
                result=_result(timeline, call),
                trouble=" ".join(troubles.get(call, ())),
                source=timeline.trace.source,
                line=int(events.line[row]) or None,
            )
        )
    return rows


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
        return "ok" if calls.ret[call] >= 0 else f"error {int(calls.ret[call])}"
    return "no return seen" if calls.end_row[call] == NEVER else "done"

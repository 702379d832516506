"""TRC-10: a change of memory was announced and never concluded."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from parsers.ftrace.functions import Kind
from parsers.ftrace.notify import NotifyAction, decode_notify
from rules.finding import Hit, Impact, Severity
from rules.model.replay.calls import NEVER
from rules.model.replay.timeline import Timeline
from rules.rule import UndecidedError, rule
from rules.trace.anomalies import MAX_HITS, hit_of_call

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONCLUSIONS = {
    NotifyAction.GOING_ONLINE: (NotifyAction.ONLINE, NotifyAction.CANCEL_ONLINE),
    NotifyAction.GOING_OFFLINE: (NotifyAction.OFFLINE, NotifyAction.CANCEL_OFFLINE),
}


@rule(
    code="TRC-10",
    name="notifier-imbalance",
    severity=Severity.HIGH,
    impact=Impact.LATENT,
    references=("mm/memory_hotplug.c online_pages(), offline_pages(): announce, then conclude or cancel",),
)
def notifier_imbalance(timeline: Timeline) -> Iterator[Hit]:
    """A change of memory was announced and never concluded.

    What it means:
    Subsystems prepare on MEM_GOING_ONLINE and MEM_GOING_OFFLINE and wait for the outcome. Without it they keep
    resources for memory that never came, or refuse memory that is still there.

    How it is detected:
    memory_notify() inside of online_pages() and offline_pages(), in the encoding that the trace shows: each
    announcement needs its conclusion or its cancellation before the call returns.

    When it is not a problem:
    Where the call does not end within the trace, or events were lost.

    What to do:
    Look at the return value of the call and at the notifier that failed.
    """
    calls, events = timeline.calls, timeline.trace.events
    notified = decode_notify(events)
    if not notified.encoding:
        raise UndecidedError("no memory_notify() inside of online_pages() or offline_pages() is in the trace", Timeline)
    mine = calls.of(Kind.MEMORY_NOTIFY)
    action, outer = notified.action[calls.row[mine]], calls.parent[mine]
    ended = (outer >= 0) & (calls.end_row[outer] != NEVER)
    for announced, conclusions in _CONCLUSIONS.items():
        concluded = outer[np.isin(action, conclusions)]
        open_ended = mine[(action == announced) & ended & ~np.isin(outer, concluded)]
        for call in open_ended[:MAX_HITS].tolist():
            around = int(calls.parent[call])
            hit = hit_of_call(
                timeline, around, f"MEM_{announced.name} without its conclusion",
                f"{timeline.describe(around)} announced MEM_{announced.name} and returned without "
                f"{' or '.join(f'MEM_{one.name}' for one in conclusions)}.",
                doubtful=not timeline.trace.is_counted,
            )  # fmt: skip
            yield replace(hit, evidence=(*timeline.evidence(call), *hit.evidence))
    timeline.must_show(Kind.ONLINE_PAGES, Kind.OFFLINE_PAGES)

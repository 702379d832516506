"""TRC-14: one range is offlined again and again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from parsers.ftrace.functions import Kind
from rules.finding import Hit, Impact, Severity
from rules.model.replay.timeline import Timeline
from rules.rule import rule
from rules.trace.anomalies import MAX_HITS, hit_of_call

if TYPE_CHECKING:
    from collections.abc import Iterator

MANY = 10


@rule(
    code="TRC-14",
    name="offline-retry-storm",
    severity=Severity.MEDIUM,
    impact=Impact.PERFORMANCE,
    references=("mm/memory_hotplug.c offline_pages(): isolates and migrates everything again on every attempt",),
)
def offline_retry_storm(timeline: Timeline) -> Iterator[Hit]:
    """One range is offlined again and again.

    What it means:
    Each attempt isolates the whole block, migrates what it can, drains every CPU and gives up. Something in the
    block cannot move: a pinned page, a kernel allocation, a huge page without a place to go.

    How it is detected:
    offline_pages() of the same range ten times or more without an online_pages() in between.

    When it is not a problem:
    virtio-mem retries by design while the hypervisor asks for memory back; it costs time all the same.

    What to do:
    Look for "migrating pfn" and "failed to isolate" in the log: they name the pages that stay. Online the memory as
    ZONE_MOVABLE.
    """
    calls = timeline.calls
    mine = calls.of(Kind.ONLINE_PAGES, Kind.OFFLINE_PAGES)
    mine = mine[calls.start_known[mine]]
    mine = mine[np.argsort(calls.start[mine], kind="stable")]
    online, start = calls.kind[mine] == Kind.ONLINE_PAGES, calls.start[mine]
    # A run ends where the range changes or an online comes between.
    number = np.cumsum(np.append(True, (start[1:] != start[:-1]) | online[1:])[: mine.size])
    mine, number = mine[~online], number[~online]
    attempts = np.bincount(number)
    for run in np.flatnonzero(attempts >= MANY)[:MAX_HITS].tolist():
        first, *_, last = mine[number == run].tolist()
        begin, end = timeline.time(first), timeline.time(last)
        took = "" if begin is None or end is None else f" in {end - begin:.1f} s"
        hit = hit_of_call(
            timeline, first, f"One range was offlined {int(attempts[run])} times",
            f"{timeline.describe(first)} was tried {int(attempts[run])} times{took}.",
        )  # fmt: skip
        yield replace(hit, evidence=timeline.evidence(first, last))
    timeline.must_show(Kind.OFFLINE_PAGES)

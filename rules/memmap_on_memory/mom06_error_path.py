"""MOM-06: a failed hot-add gives self-hosted struct pages to the page allocator."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from parsers.ftrace.functions import Kind
from rules.finding import Hit, Impact, Severity
from rules.model.replay.timeline import Timeline, Trouble
from rules.rule import UndecidedError, rule
from rules.trace.anomalies import MAX_HITS, hit_of_call, judge, places

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="MOM-06",
    name="error-path-null-altmap",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=(
        "Linux commit f42ce5f087eb (v6.7; stable 6.1.72)",
        "mm/memory_hotplug.c: fix incorrect altmap passing in error path (2026; stable 6.12.97)",
    ),
)
def error_path(timeline: Timeline) -> Iterator[Hit]:
    """A failed hot-add gives self-hosted struct pages to the page allocator.

    What it means:
    The memory blocks could not be created, and the memory is taken away again without its altmap: the pages that hold
    its struct pages are freed as RAM, and unmapped. Their next user crashes.

    How it is detected:
    arch_add_memory() with an altmap, create_memory_block_devices() that fails, then arch_remove_memory() of the same
    range without the altmap.

    When it is not a problem:
    With the fix the removal carries the altmap.

    What to do:
    Take a crash dump and reboot; update; do not retry adds that fail.
    """
    calls = timeline.calls
    created = calls.of(Kind.CREATE_MEMORY_BLOCK_DEVICES)
    refused = created[calls.failed[created]]
    for anomaly in timeline.of(Trouble.ALTMAP_MISMATCH):
        before = refused[: np.searchsorted(calls.row[refused], calls.row[anomaly.call])]
        before = before[calls.pid[before] == calls.pid[anomaly.call]]
        same = [call for call in before[-MAX_HITS:].tolist() if anomaly.pfns & timeline.pfns_of(call)]
        if same:
            hit = hit_of_call(
                timeline, anomaly.call, "A failed add is undone without its altmap",
                f"{timeline.describe(same[-1])} failed with {int(calls.ret[same[-1]])}, and "
                f"{timeline.describe(anomaly.call)} undoes the add without the altmap ({places(anomaly.pfns)}).",
                doubtful=timeline.is_doubtful(anomaly),
            )  # fmt: skip
            yield replace(hit, evidence=(*timeline.evidence(same[-1]), *hit.evidence))
    judge(timeline, Trouble.ALTMAP_MISMATCH, Kind.CREATE_MEMORY_BLOCK_DEVICES)
    if not calls.ret_known[created].all():
        raise UndecidedError("whether create_memory_block_devices() succeeded was not traced", Timeline)

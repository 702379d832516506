"""TRC-11: two tasks add or remove memory at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.ftrace.functions import Kind
from rules.finding import Impact, Severity
from rules.model.replay.timeline import Timeline, Trouble
from rules.rule import rule
from rules.trace.anomalies import hits_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rules.finding import Hit


@rule(
    code="TRC-11",
    name="concurrent-operations",
    severity=Severity.HIGH,
    impact=Impact.LATENT,
    references=("mm/memory_hotplug.c mem_hotplug_begin(): serialises them; commit 001002e73712 (v6.7) fixed a gap",),
)
def concurrent_operations(timeline: Timeline) -> Iterator[Hit]:
    """Two tasks add or remove memory at the same time.

    What it means:
    Hotplug holds a lock for the whole operation. Windows that overlap mean that somebody bypasses
    it.

    How it is detected:
    The windows from entry to return of arch_add_memory() and arch_remove_memory() of different
    calls.

    When it is not a problem:
    A missed return makes a window look longer than it was; only windows with both ends are
    compared.

    What to do:
    Look at both stacks; report the driver that does not take the lock.
    """
    yield from hits_of(
        timeline, Trouble.CONCURRENT, "Two hotplug operations overlap", Kind.ARCH_ADD_MEMORY, Kind.ARCH_REMOVE_MEMORY
    )

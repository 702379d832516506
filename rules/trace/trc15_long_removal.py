"""TRC-15: removing memory takes long, or flushes the TLB entry by entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.ftrace.functions import Kind
from rules.finding import Hit, Impact, Severity
from rules.model.replay.flushes import flushes_by_unmap
from rules.model.replay.timeline import Timeline
from rules.rule import UndecidedError, rule
from rules.trace.anomalies import hit_of_call

if TYPE_CHECKING:
    from collections.abc import Iterator

LONG_S, MANY = 10.0, 512
MAX_REMOVALS = 1 << 16


@rule(
    code="TRC-15",
    name="long-removal",
    severity=Severity.MEDIUM,
    impact=Impact.PERFORMANCE,
    references=("Linux commit 48478b9f7913 (v7.1; stable 6.12.86, 6.1.176): one flush for many entries",),
)
def long_removal(timeline: Timeline) -> Iterator[Hit]:
    """Removing memory takes long, or flushes the TLB entry by entry.

    What it means:
    All hotplug, and on old kernels every walker of page tables, waits for the lock. Flushing after each entry costs
    a broadcast to all CPUs a page.

    How it is detected:
    arch_remove_memory() takes ten seconds or more from entry to return, or one unmap_hotplug_range()
    invalidates the TLB 512 times or more.

    When it is not a problem:
    Under emulation everything takes long. Without a probe on the return and on the TLB invalidations
    nothing can be said: undecided.

    What to do:
    Update to a kernel with 48478b9f7913; look for RCU stalls of the same time in the log.
    """
    calls = timeline.calls
    removals = calls.of(Kind.ARCH_REMOVE_MEMORY)
    took = {call: timeline.duration(call) for call in removals[:MAX_REMOVALS].tolist()}
    for call, seconds in took.items():
        if seconds is not None and seconds >= LONG_S:
            yield hit_of_call(
                timeline, call, f"Removing memory took {seconds:.0f} s",
                f"{timeline.describe(call)} took {seconds:.1f} s.",
            )  # fmt: skip
    unmap, count = flushes_by_unmap(calls)
    many = count >= MANY
    for call, flushes in zip(unmap[many].tolist(), count[many].tolist(), strict=True):
        yield hit_of_call(
            timeline, call, f"One unmapping flushed the TLB {flushes} times",
            f"{timeline.describe(call)} invalidated the TLB {flushes} times.",
        )  # fmt: skip
    timeline.must_show(Kind.ARCH_REMOVE_MEMORY)
    if None in took.values() and not unmap.size:
        raise UndecidedError("neither returns of arch_remove_memory() nor TLB invalidations are in the trace", Timeline)

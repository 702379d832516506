"""TRC-06: adding memory failed and what it had added is still there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.ftrace.functions import Kind
from rules.finding import Impact, Severity
from rules.model.replay.timeline import Timeline, Trouble
from rules.rule import UndecidedError, rule
from rules.trace.anomalies import hits_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rules.finding import Hit


@rule(
    code="TRC-06",
    name="failed-without-cleanup",
    severity=Severity.HIGH,
    impact=Impact.LATENT,
    references=("mm/memory_hotplug.c __add_pages(): stops at the first error and keeps what it added",),
)
def failed_without_cleanup(timeline: Timeline) -> Iterator[Hit]:
    """Adding memory failed and what it had added is still there.

    What it means:
    The sections are valid, have no linear map and no owner. A retry fails with -EEXIST, and walkers
    of page frames touch pages that were never initialised.

    How it is detected:
    arch_add_memory() returns an error, and subsections that it added are still valid.

    When it is not a problem:
    The caller may clean up later in the trace; then the sections are removed and nothing is
    reported at the end.

    What to do:
    Free memory before adding, and reboot to clear the range.
    """
    yield from hits_of(
        timeline, Trouble.FAILED_WITHOUT_CLEANUP, "A failed add leaves valid sections behind", Kind.ARCH_ADD_MEMORY
    )
    calls = timeline.calls
    if not calls.ret_known[calls.of(Kind.ARCH_ADD_MEMORY)].all():
        raise UndecidedError("whether arch_add_memory() succeeded was not traced", Timeline)

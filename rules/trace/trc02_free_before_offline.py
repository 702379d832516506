"""TRC-02: struct pages are freed while their memory is online."""

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
    code="TRC-02",
    name="free-before-offline",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=("mm/sparse.c section_deactivate(): depopulates after the section went offline",),
)
def free_before_offline(timeline: Timeline) -> Iterator[Hit]:
    """Struct pages are freed while their memory is online.

    What it means:
    The allocator still hands these pages out, and their struct pages are gone.

    How it is detected:
    vmemmap_free() is called for page frames whose replayed state is online.

    When it is not a problem:
    Where events were lost, the offlining may be among them; the finding is then a suspicion.

    What to do:
    Take a crash dump; the stack in the cause names the caller.
    """
    yield from hits_of(
        timeline, Trouble.FREE_BEFORE_OFFLINE, "Struct pages of online memory are freed", Kind.VMEMMAP_FREE
    )

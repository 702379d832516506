"""TRC-12: memory is onlined before it was added, or after it was removed."""

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
    code="TRC-12",
    name="online-without-memory",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=("mm/memory_hotplug.c online_pages()",),
)
def online_without_memory(timeline: Timeline) -> Iterator[Hit]:
    """Memory is onlined before it was added, or after it was removed.

    What it means:
    The allocator gets pages that do not exist.

    How it is detected:
    online_pages() succeeds for subsections that the replay knows to be removed.

    When it is not a problem:
    Memory that was added before the trace began is unknown, not absent, and is not reported.

    What to do:
    Take a crash dump; find the caller in the stack.
    """
    yield from hits_of(
        timeline, Trouble.ONLINE_WITHOUT_MEMORY, "Memory that is not present goes online", Kind.ONLINE_PAGES
    )

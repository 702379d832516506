"""TRC-13: memory with its own struct pages is removed as if they came from the page allocator."""

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
    code="TRC-13",
    name="altmap-mismatch",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=("Linux commit f42ce5f087eb (v6.7; stable 6.1.72)",),
)
def altmap_mismatch(timeline: Timeline) -> Iterator[Hit]:
    """Memory with its own struct pages is removed as if they came from the page allocator.

    What it means:
    The struct pages live in the removed memory. Freed to the page allocator, they are handed out as
    RAM that is going away.

    How it is detected:
    The range was added with an altmap, and arch_remove_memory() is called without one.

    When it is not a problem:
    A probe that does not fetch the altmap decides nothing.

    What to do:
    Take a crash dump; update to a kernel with f42ce5f087eb.
    """
    yield from hits_of(
        timeline, Trouble.ALTMAP_MISMATCH, "Self-hosted memory is removed without its altmap", Kind.ARCH_REMOVE_MEMORY
    )

"""MOM-04: memory with its own struct pages is removed together with other memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.ftrace.functions import Kind
from rules.finding import Hit, Impact, Severity
from rules.model.replay.timeline import Timeline, Trouble
from rules.rule import rule
from rules.trace.anomalies import hits_of

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="MOM-04",
    name="wrong-removal-granularity",
    severity=Severity.HIGH,
    impact=Impact.CORRUPTION,
    references=("mm/memory_hotplug.c try_remove_memory(): refuses (5.13 to 6.7), warns (since 6.8, 6b8f0798b85a)",),
)
def wrong_granularity(timeline: Timeline) -> Iterator[Hit]:
    """Memory with its own struct pages is removed together with other memory.

    What it means:
    Each self-hosted block has its own altmap. A removal over several takes one altmap for all: struct pages go
    back to the wrong place.

    How it is detected:
    arch_remove_memory() is replayed over memory of which part is self-hosted, or which was added self-hosted by
    more than one operation.

    When it is not a problem:
    The kernel refuses such requests above arch_remove_memory(); what is refused never gets there.

    What to do:
    Take a crash dump; remove memory only block by block, as it was added.
    """
    yield from hits_of(
        timeline,
        Trouble.MIXED_HOSTING,
        "Self-hosted memory is removed together with other memory",
        Kind.ARCH_REMOVE_MEMORY,
    )

"""TRC-01: memory is removed while it is online."""

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
    code="TRC-01",
    name="remove-while-online",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=(
        "mm/memory_hotplug.c try_remove_memory(): refuses online memory; arch_remove_memory() below it does not",
    ),
)
def remove_while_online(timeline: Timeline) -> Iterator[Hit]:
    """Memory is removed while it is online.

    What it means:
    The pages may be in use. Their linear map and struct pages are torn down under the allocator.

    How it is detected:
    The replayed state of the memory is online when arch_remove_memory() begins.

    When it is not a problem:
    Where events were lost, the offlining may be among them; the finding is then a suspicion.

    What to do:
    Take a crash dump. Find the driver that removes memory without offlining it: its stack is in the
    cause.
    """
    yield from hits_of(
        timeline, Trouble.REMOVE_WHILE_ONLINE, "Memory is removed while it is online", Kind.ARCH_REMOVE_MEMORY
    )

"""TRC-07: a removal clears struct pages of memory that stays."""

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
    code="TRC-07",
    name="free-wider-than-remove",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=("Linux commit d4234d131b0a (v6.14; stable 6.12.20, 6.1.132)",),
)
def free_wider_than_remove(timeline: Timeline) -> Iterator[Hit]:
    """A removal clears struct pages of memory that stays.

    What it means:
    The leaf that maps the struct pages of the removed range also maps those of its neighbours. It
    is cleared whole.

    How it is detected:
    vmemmap_free() is replayed on the leaves that were populated; subsections that stay valid and
    lose their struct pages are named.

    When it is not a problem:
    Without a probe on the populate functions and without a known release, either leaf is possible
    and the finding is a suspicion.

    What to do:
    Stop memory hotplug, take a crash dump, reboot, update the kernel.
    """
    yield from hits_of(
        timeline,
        Trouble.FREE_WIDER_THAN_REMOVE,
        "Freeing struct pages takes those of others",
        Kind.VMEMMAP_FREE,
        Kind.ARCH_REMOVE_MEMORY,
    )

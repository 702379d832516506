"""TRC-08: less than a section gets a 2 MiB block of struct pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.ftrace.functions import Kind
from rules.finding import Impact, Severity
from rules.model.replay.timeline import Timeline, Trouble
from rules.rule import rule
from rules.trace.anomalies import hit_of_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rules.finding import Hit


@rule(
    code="TRC-08",
    name="huge-for-partial-section",
    severity=Severity.HIGH,
    impact=Impact.LATENT,
    references=("Linux commit d4234d131b0a (v6.14; stable 6.12.20, 6.1.132)",),
)
def huge_for_partial(timeline: Timeline) -> Iterator[Hit]:
    """Less than a section gets a 2 MiB block of struct pages.

    What it means:
    This is how a kernel without d4234d131b0a behaves: the block will be shared with whatever is
    added to the section next (VMM-01).

    How it is detected:
    vmemmap_populate_hugepages() is called for less than a section.

    When it is not a problem:
    If nothing else is ever added to the section, only memory is wasted.

    What to do:
    Update the kernel; align namespaces and DIMMs to 128 MiB.
    """
    yield from hit_of_all(
        timeline, Trouble.HUGE_FOR_PARTIAL, "A block is used for part of a section", Kind.VMEMMAP_POPULATE
    )

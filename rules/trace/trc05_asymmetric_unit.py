"""TRC-05: part of what one operation added is removed."""

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
    code="TRC-05",
    name="asymmetric-unit",
    severity=Severity.HIGH,
    impact=Impact.LATENT,
    references=("Linux commit d4234d131b0a (v6.14): relies on symmetric add and remove",),
)
def asymmetric_unit(timeline: Timeline) -> Iterator[Hit]:
    """Part of what one operation added is removed.

    What it means:
    Leaves of the linear map and of the vmemmap area were made for the whole range. Removing part of
    it clears a leaf that the rest still needs.

    How it is detected:
    The replay knows which operation added each subsection; a removal that takes some and leaves
    others of one operation is reported.

    When it is not a problem:
    If every leaf ends at the edge of the removal nothing is lost; VMM-02 and LIN-03 report what was.

    What to do:
    Remove memory only in the units in which it was added.
    """
    yield from hits_of(timeline, Trouble.ASYMMETRIC_UNIT, "Less is removed than was added", Kind.ARCH_REMOVE_MEMORY)

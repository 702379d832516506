"""TRC-04: memory that is not present is removed."""

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
    code="TRC-04",
    name="remove-unknown",
    severity=Severity.HIGH,
    impact=Impact.LATENT,
    references=('mm/sparse.c clear_subsection_map(): warns "section already deactivated"',),
)
def remove_unknown(timeline: Timeline) -> Iterator[Hit]:
    """Memory that is not present is removed.

    What it means:
    The range was removed before; the teardown clears entries that may belong to somebody else by
    now.

    How it is detected:
    sparse_remove_section() is called for subsections that an earlier call removed.

    When it is not a problem:
    Memory that was added before the trace began is unknown, not absent, and is not reported.

    What to do:
    Find out who removes the range twice; both stacks are in the trace.
    """
    yield from hits_of(
        timeline, Trouble.REMOVE_UNKNOWN, "Subsections that are not present are removed", Kind.SPARSE_REMOVE_SECTION
    )

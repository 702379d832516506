"""TRC-03: memory is added that is there already."""

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
    code="TRC-03",
    name="double-add",
    severity=Severity.HIGH,
    impact=Impact.LATENT,
    references=("mm/sparse.c fill_subsection_map(): returns -EEXIST",),
)
def double_add(timeline: Timeline) -> Iterator[Hit]:
    """Memory that is already present is added.

    What it means:
    A second add that succeeds maps fresh struct pages over those in use, or two owners share one
    range.

    How it is detected:
    sparse_add_section() returns success for subsections that are valid already.

    When it is not a problem:
    An attempt that is refused with -EEXIST is how the kernel should answer.

    What to do:
    Find out who adds the range twice; both stacks are in the trace.
    """
    yield from hits_of(timeline, Trouble.DOUBLE_ADD, "Valid subsections are added again", Kind.SPARSE_ADD_SECTION)

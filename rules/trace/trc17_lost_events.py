"""TRC-17: events are missing from the trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.model.replay.timeline import Timeline
from rules.rule import rule
from rules.trace.anomalies import MAX_HITS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.ftrace.events import Issue


@rule(
    code="TRC-17",
    name="lost-events",
    severity=Severity.INFO,
    impact=Impact.INFORMATIONAL,
    references=("kernel/trace/ring_buffer.c: events are dropped or overwritten when the buffer is full",),
)
def lost_events(timeline: Timeline) -> Iterator[Hit]:
    """Events are missing from the trace, or their order is not known.

    What it means:
    Within the named times nothing follows from the order of events, nor from the absence of one. Rules about
    order are undecided, and what they find there is a suspicion.

    How it is detected:
    Marks of lost and overwritten events, missed returns, clocks that go back, arguments that no call can have.

    When it is not a problem:
    If nothing was plugged or unplugged at that time.

    What to do:
    Trace again with a larger buffer (buffer_size_kb), fewer events, and more maxactive for return probes.
    """
    for number, issue in enumerate(timeline.undecided[:MAX_HITS]):
        at = Evidence(timeline.trace.source, issue.message, issue.line)
        yield Hit(
            title="The trace is incomplete",
            message=f"{issue.message} ({_when(issue)}).",
            claim=Claim.PROVEN,
            evidence=(at, *timeline.lines(*issue.rows)),
            key=f"{issue.code} {issue.cpu} {number}",
        )


def _when(issue: Issue) -> str:
    first = "the beginning" if issue.start_ns is None else f"{issue.start_ns / 1e9:.6f}"
    last = "the end" if issue.end_ns is None else f"{issue.end_ns / 1e9:.6f}"
    return f"from {first} to {last}"

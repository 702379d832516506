"""From what the replay noticed to hits."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from rules.finding import Claim, Hit, Severity
from rules.model.timeline import Trouble

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.ranges import Ranges
    from rules.model.timeline import Anomaly, Timeline

__all__ = ["hit_of_all", "hits_of"]

MAX_HITS = 256
MAX_QUOTED = 4

# Populating with blocks may have fallen back to pages, which no probe shows: the fallback is inlined.
_CLAIMS = {Trouble.FREE_WIDER_THAN_REMOVE: Claim.PROBABLE}


def hits_of(timeline: Timeline, trouble: Trouble, title: str, severity: Severity | None = None) -> Iterator[Hit]:
    """One hit for each anomaly of a kind, with the line of its call; suspected inside of windows of lost events."""
    for anomaly in timeline.of(trouble)[:MAX_HITS]:
        yield _hit(timeline, [anomaly], title, severity)


def hit_of_all(timeline: Timeline, trouble: Trouble, title: str) -> Iterator[Hit]:
    """One hit for all anomalies of a kind: a habit of the kernel, not an accident."""
    anomalies = timeline.of(trouble)
    if anomalies:
        yield _hit(timeline, anomalies, title, None)


def _hit(timeline: Timeline, anomalies: list[Anomaly], title: str, severity: Severity | None) -> Hit:
    first = anomalies[0]
    weak = not first.certain or timeline.is_undecided(first.call)
    calls = [call for one in anomalies[:MAX_QUOTED] for call in (one.call, *_outer(timeline, one.call))]
    pfns = reduce(or_, (one.pfns for one in anomalies))
    times = f"{len(anomalies)} times, first by " if len(anomalies) > 1 else ""
    return Hit(
        title=title,
        message=f"{times}{timeline.describe(first.call)}: {first.text} ({_places(pfns)}).",
        claim=Claim.SUSPECTED if weak else _CLAIMS.get(first.trouble, Claim.PROVEN),
        severity=min(Severity.MEDIUM, severity or Severity.MEDIUM) if weak else severity,
        pfns=pfns,
        evidence=timeline.evidence(*calls),
        cause=timeline.cause(first.call),
        key=str(first.call),
    )


def _places(pfns: Ranges) -> str:
    shown = ", ".join(f"PFNs {lo:#x}-{hi:#x}" for lo, hi in pfns.tuples()[:4])
    return shown + (" and more" if len(pfns) > 4 else "")


def _outer(timeline: Timeline, call: int) -> list[int]:
    """The call around the anomalous one: what it was part of."""
    outer = int(timeline.calls.parent[call])
    return [outer] if outer >= 0 else []

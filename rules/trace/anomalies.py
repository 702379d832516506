"""From what the replay noticed to hits."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from rules.finding import Claim, Hit, Severity
from rules.model.replay.flushes import live_remaps
from rules.model.replay.timeline import Timeline, Trouble
from rules.rule import UndecidedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.ftrace.functions import Kind
    from parsers.ranges import Ranges
    from rules.model.replay.timeline import Anomaly

__all__ = ["hit_of_all", "hit_of_call", "hits_of", "judge", "live_changes", "places"]

MAX_HITS = 256
MAX_QUOTED = 4

# Populating with blocks may have fallen back to pages, which no probe shows: the fallback is inlined.
_CLAIMS = {Trouble.FREE_WIDER_THAN_REMOVE: Claim.PROBABLE}


def hits_of(timeline: Timeline, trouble: Trouble, title: str, *shown: Kind) -> Iterator[Hit]:
    """One hit for each anomaly of a kind, with the line of its call; suspected inside of windows of lost events.

    UndecidedError, after the hits, where the trace shows no call of ``shown`` or a call could not be judged.
    """
    for anomaly in timeline.of(trouble)[:MAX_HITS]:
        yield _hit(timeline, [anomaly], title)
    judge(timeline, trouble, *shown)


def hit_of_all(timeline: Timeline, trouble: Trouble, title: str, *shown: Kind) -> Iterator[Hit]:
    """One hit for all anomalies of a kind: a habit of the kernel, not an accident."""
    anomalies = timeline.of(trouble)
    if anomalies:
        yield _hit(timeline, anomalies, title)
    judge(timeline, trouble, *shown)


def judge(timeline: Timeline, trouble: Trouble, *shown: Kind) -> None:
    """UndecidedError where the trace does not show everything that the verdict rests on."""
    timeline.must_show(*shown)
    if trouble in timeline.blind:
        call = timeline.blind[trouble]
        raise UndecidedError(f"{timeline.describe(call)}: the state before it was not traced", Timeline)


def hit_of_call(
    timeline: Timeline,
    call: int,
    title: str,
    message: str,
    claim: Claim = Claim.PROVEN,
    *,
    doubtful: bool = False,
) -> Hit:
    """A hit for one call, suspected inside of windows of lost events, and where it is ``doubtful`` otherwise."""
    weak = doubtful or timeline.is_undecided(call)
    return Hit(
        title=title,
        message=message,
        claim=Claim.SUSPECTED if weak else claim,
        severity=Severity.MEDIUM if weak else None,
        pfns=timeline.pfns_of(call),
        evidence=timeline.evidence(call, *_outer(timeline, call)),
        cause=timeline.cause(call),
        key=_key(timeline, call),
    )


def live_changes(timeline: Timeline, title: str, *kinds: Kind) -> Iterator[Hit]:
    """One hit for all live changes of these kinds that were not flushed in time; none where flushes are not traced."""
    changes, _ = live_remaps(timeline.calls, *kinds)
    if changes.size:
        yield hit_of_call(
            timeline, int(changes[0]), title,
            f"{changes.size} changes, first {timeline.describe(int(changes[0]))}: the TLB may hold both translations.",
            Claim.PROBABLE,
        )  # fmt: skip


def _hit(timeline: Timeline, anomalies: list[Anomaly], title: str) -> Hit:
    first, *_ = anomalies
    weak = not first.certain or timeline.is_doubtful(first)
    calls = [call for one in anomalies[:MAX_QUOTED] for call in (one.call, *_outer(timeline, one.call))]
    pfns = reduce(or_, (one.pfns for one in anomalies))
    count = timeline.counts[first.trouble]
    times = f"{count} times, first by " if len(anomalies) > 1 else ""
    return Hit(
        title=title,
        message=f"{times}{timeline.describe(first.call)}: {first.text} ({places(pfns)}).",
        claim=Claim.SUSPECTED if weak else _CLAIMS.get(first.trouble, Claim.PROVEN),
        severity=Severity.MEDIUM if weak else None,
        pfns=pfns,
        evidence=timeline.evidence(*calls),
        cause=timeline.cause(first.call),
        key=_key(timeline, first.call),
    )


def _key(timeline: Timeline, call: int) -> str:
    """What identifies the hit in every trace that shows it, wherever in the trace that is."""
    return f"{int(timeline.calls.kind[call])} {int(timeline.calls.start[call]):x}"


def places(pfns: Ranges) -> str:
    """PFNs in words, the first few of many."""
    shown = ", ".join(f"PFNs {lo:#x}-{hi:#x}" for lo, hi in pfns.tuples()[:4])
    return shown + (" and more" if len(pfns) > 4 else "")


def _outer(timeline: Timeline, call: int) -> list[int]:
    """The call around the anomalous one: what it was part of."""
    outer = int(timeline.calls.parent[call])
    return [outer] if outer >= 0 else []

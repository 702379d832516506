"""HVO-07: page-frame walkers race with the remapping of struct pages."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from parsers.ranges import EMPTY
from parsers.uname import KernelRelease
from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.hvo.hvo06_live_remap import REMAPS
from rules.model.replay.timeline import Timeline
from rules.rule import NotApplicableError, rule
from rules.trace.anomalies import hit_of_call

if TYPE_CHECKING:
    from collections.abc import Iterator

FIXED = (6, 10)


@rule(
    code="HVO-07",
    name="walker-race",
    severity=Severity.HIGH,
    impact=Impact.LATENT,
    references=("Linux commit bd225530a4c7 (v6.10): mm/hugetlb_vmemmap: fix race with speculative PFN walkers",),
)
def walker_race(timeline: Timeline, release: KernelRelease) -> Iterator[Hit]:
    """Page-frame walkers race with the remapping of struct pages.

    What it means:
    Compaction, migration and /proc/kpageflags take references on struct pages that they only guess to be pages. While
    tail struct pages are remapped read-only, such a guess writes to a page that it must not write to, or to one that
    is being freed.

    How it is detected:
    Struct pages of huge pages are remapped in the trace, on a release without the grace period of bd225530a4c7.

    When it is not a problem:
    Vendors backport the fix without changing the release: this stays a suspicion.

    What to do:
    Boot with hugetlb_free_vmemmap=off, or update.
    """
    if release.at_least(*FIXED):
        raise NotApplicableError(f"{release.raw} waits for walkers before it remaps")
    mine = timeline.calls.of(*REMAPS)
    if mine.size:
        hit = hit_of_call(
            timeline, int(mine[0]), "Struct pages are remapped without waiting for walkers of page frames",
            f"{mine.size} calls that remap struct pages on {release.raw}, which lacks bd225530a4c7 (v6.10).",
            Claim.SUSPECTED,
        )  # fmt: skip
        named = Evidence(release.path, release.raw, release.line)
        yield replace(hit, pfns=EMPTY, evidence=(*hit.evidence, named), key="race")
    timeline.must_show(*REMAPS)

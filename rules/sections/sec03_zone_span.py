"""SEC-03: online memory outside of every zone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.ranges import Ranges
from parsers.zoneinfo import Zoneinfo
from rules.finding import Hit, Impact, Severity
from rules.model.sections import SectionTable
from rules.rule import UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="SEC-03",
    name="zone-span",
    severity=Severity.HIGH,
    impact=Impact.LATENT,
    needs=(Zoneinfo, SectionTable),
    references=("mm/memory_hotplug.c resize_zone_range(), shrink_zone_span()",),
)
def zone_span(zoneinfo: Zoneinfo, sections: SectionTable) -> Iterator[Hit]:
    """Online memory lies outside of the span of every zone.

    What it means:
    A page that is online belongs to a zone, and the zone spans it. Walkers that go by zone (compaction,
    isolation) miss such pages or compute with a wrong start.

    How it is detected:
    The PFNs of online memory blocks are compared with start and length of all zones in /proc/zoneinfo.

    When it is not a problem:
    Spans may have holes and reach over device memory. Memory that changes state while it is captured
    can be seen in one file and not in the other: capture again.

    What to do:
    Capture again; if it stays, take a crash dump and report it.
    """
    known = zoneinfo.start_pfn >= 0
    if not known.any():
        raise UndecidedError("/proc/zoneinfo names no zone's start", Zoneinfo)
    start, spanned = zoneinfo.start_pfn[known], zoneinfo.spanned[known]
    spans = Ranges.of(start, start + spanned)
    if not sections.blocks_known:
        raise UndecidedError("which memory is online is not known", "memory blocks")
    lost = (sections.online & sections.ram) - spans
    if lost:
        yield Hit(
            title="Online memory lies outside of every zone",
            message=f"{lost.total} online pages are in no zone's span.",
            claim=sections.claim,
            pfns=lost,
            evidence=(),
        )

"""LIN-03: a leaf-shaped hole in the linear map over live memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.arm64 import PMD
from parsers.ranges import Ranges
from rules.finding import Claim, Hit, Impact, Severity
from rules.linear_map.listed import need_all_listed
from rules.model.memory.regions import LinearMap
from rules.model.memory.resources import Resources
from rules.model.memory.sections import SectionTable
from rules.rule import UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="LIN-03",
    name="linear-hole-over-live-memory",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=("Linux commit f0b13ee23241 (v5.12)", "Linux commit 95a58852b0e5 (v7.1)"),
)
def linear_hole(linear: LinearMap, sections: SectionTable, *, resources: Resources | None) -> Iterator[Hit]:
    """RAM in use has no linear mapping, in the shape of a torn-out leaf.

    What it means:
    The kernel reaches almost all memory through the linear map. Here a whole block entry over System
    RAM is empty: the next access to any page under it oopses.

    How it is detected:
    System RAM and online memory blocks are looked up in the linear map. Empty entries at PMD level
    and above are damage; they are what the removal of a neighbour under the same leaf leaves (LIN-02).

    When it is not a problem:
    Single missing pages are normal: secretmem, KFENCE, debug_pagealloc, modules with permission reset;
    so are entries marked F. No-map memory is listed as "reserved" and is not RAM. The crash kernel
    is protected page by page up to 6.3.

    What to do:
    Stop memory hotplug, take a crash dump, reboot. Remove memory only in the units it was added in.
    """
    nomap = sections.nomap.widen(sections.pages_per_section)  # a block may hold no-map memory alone
    live = sections.ram | (sections.online & sections.hotadded) - nomap
    block = linear.layout.granule.span(PMD)
    gone = linear.pfns(linear.pages(linear.shrink(linear.holes, block))) & live
    unit = block >> linear.layout.page_shift
    for lo, hi in gone.tuples():
        pfns = Ranges.one(lo, hi)
        whole = pfns.shrink(unit)
        offsets = linear.offsets(pfns.shift(-linear.layout.start_pfn))
        online = bool(pfns & sections.online)
        yield Hit(
            title="Live memory has no linear mapping",
            message=(
                f"{hi - lo} pages of System RAM (PFNs {lo:#x}-{hi:#x}) lie under empty entries above the last level: "
                f"{whole.total // unit} whole PMD entries are missing."
            ),
            claim=Claim.PROVEN if online and not pfns & sections.contested else sections.claim_about(pfns),
            pfns=pfns,
            vas=linear.va_ranges(offsets),
            evidence=linear.quote_at(offsets),
        )
    unseen = live - linear.pfns(linear.pages_observed)
    if unseen:
        raise UndecidedError(f"the linear map of {unseen.total} pages of RAM is not in the dump", LinearMap)
    if sections.contested or sections.lacking is not None:
        sections.need_whole_lists()
    if resources is None:
        raise UndecidedError("which part of the boot sections is RAM is not known", "iomem")
    need_all_listed(linear, resources)

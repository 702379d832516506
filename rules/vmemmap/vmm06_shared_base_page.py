"""VMM-06: one vmemmap base page holds struct pages of two units (16K and 64K kernels)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.layout import Fact, Precision
from parsers.ranges import Ranges
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.memory.lists import Units
from rules.model.memory.regions import Vmemmap
from rules.model.memory.sections import SectionTable
from rules.model.replay.state import YES
from rules.model.replay.timeline import Timeline, Trouble
from rules.rule import NotApplicableError, rule
from rules.trace.anomalies import MAX_HITS, hit_of_call, places
from rules.trace.leaves import hit_of_state, leaves_of_parts
from rules.vmemmap.devices import need_devices

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="VMM-06",
    name="shared-base-page",
    severity=Severity.HIGH,
    impact=Impact.LATENT,
    references=(
        "mm/sparse-vmemmap.c vmemmap_populate_basepages(), arch/arm64/mm/mmu.c unmap_hotplug_pte_range() (6.12 to 7.3)",
        "Seen on Debian's 6.12.117 and 7.3.4 (docs/kernel-findings.md); no upstream report known",
    ),
)
def shared_base_page(vmemmap: Vmemmap, sections: SectionTable) -> Iterator[Hit]:
    """A page of struct pages is shared by ranges that are removed separately.

    What it means:
    With 64K pages one page of struct pages describes 64 MiB, with 16K pages 4 MiB, and device memory
    may be added in units of 2 MiB. Removing one of two ranges that share such a page frees it under
    the other, whose struct pages are gone (VMM-02).

    How it is detected:
    Ranges that were added separately and whose edge lies inside of a vmemmap page that another valid
    range uses too. Without page tables, /proc/iomem and the page size show it for device-dax memory.

    When it is not a problem:
    Ranges inside of a boot section use the boot memmap, which is never freed. Memory blocks are whole
    pages of struct pages. A range that shares its edge page with no other is safe.

    What to do:
    Do not remove either range before a reboot. Align namespaces and device-dax ranges to 64 MiB (64K
    pages) or 4 MiB (16K pages).
    """
    layout, units = vmemmap.layout, sections.device_units
    if layout.page_size == 4096:
        raise NotApplicableError("4K pages: a page of struct pages describes less than a subsection")
    for index, window in _shared(sections, units, layout.page_size // layout.struct_page_size):
        (start, end), pfns = window.tuples()[0], _pfns(units, index, window)
        offsets = vmemmap.of_pfns(window)
        yield Hit(
            title=f"One page of struct pages serves {units.label[index]} and {units.label[index + 1]}",
            message=(
                f"The {layout.granule.name} vmemmap page at {vmemmap.va(int(offsets.start[0])):#x} holds struct pages "
                f"of PFNs {start:#x}-{end:#x}: of {units.label[index]} and of {units.label[index + 1]}. "
                "Removing one of them frees the page under the other."
            ),
            claim=sections.claim,
            pfns=pfns,
            vas=vmemmap.va_ranges(offsets),
            evidence=vmemmap.quote_at(offsets) + units.evidence(np.array([index, index + 1])),
        )
    need_devices(vmemmap, sections)


@shared_base_page.fallback
def listed_in_iomem(sections: SectionTable, *, timeline: Timeline | None) -> Iterator[Hit]:
    """Ranges in /proc/iomem that share a page of struct pages if they have any: no kernel gives them pages apart."""
    layout, units = sections.layout, sections.listed_units
    if layout.page_size == 4096:
        return
    size = layout.facts.get("struct_page_size", Fact(64, "nearly every kernel", Precision.INFERRED))
    for index, window in _shared(sections, units, layout.page_size // size.value):
        pfns = _pfns(units, index, window)
        if timeline is not None and timeline.knows_validity(pfns):
            continue
        pair = units.label[index], units.label[index + 1]
        (start, end) = window.tuples()[0]
        certain = all("dax" in label for label in pair) and size.precision is not Precision.INFERRED
        yield Hit(
            title=f"One page of struct pages serves {pair[0]} and {pair[1]}",
            message=(
                f"A {layout.granule.name} page holds the struct pages of PFNs {start:#x}-{end:#x}: of {pair[0]} and of "
                f"{pair[1]}, where /proc/iomem places them. Removing one of them frees the page under the other. "
                + ("" if certain else "Whether both have struct pages, the page tables would show.")
            ).rstrip(),
            claim=Claim.PROBABLE if certain else Claim.SUSPECTED,
            severity=None if certain else Severity.MEDIUM,
            pfns=pfns,
            evidence=units.evidence(np.array([index, index + 1])),
        )


def _shared(sections: SectionTable, units: Units, per_page: int) -> Iterator[tuple[int, Ranges]]:
    """Units that share a page of struct pages with the next one, and the PFNs that this page describes."""
    page_end = -(-units.end_pfn[:-1] // per_page) * per_page
    shared = (units.start_pfn[1:] < page_end) & ~sections.ram_sections.touches(page_end - per_page, page_end)
    for index in np.flatnonzero(shared).tolist():
        yield index, Ranges.one(int(page_end[index]) - per_page, int(page_end[index]))


def _pfns(units: Units, index: int, window: Ranges) -> Ranges:
    return window & Ranges.of(units.start_pfn[[index, index + 1]], units.end_pfn[[index, index + 1]])


@shared_base_page.fallback
def predicted_by_trace(timeline: Timeline) -> Iterator[Hit]:
    """Pages of struct pages that several operations share, and last pages that were not populated."""
    if timeline.calibration.page_size == 4096:
        return  # a subsection's struct pages fill whole pages: nothing to search
    for rows, owners in leaves_of_parts(timeline, timeline.calibration.page_size, timeline.state.mapped == YES):
        if len(owners) > 1:
            yield hit_of_state(
                timeline, rows, owners, f"One page of struct pages serves {len(owners)} ranges that were added apart",
                "removing one of them frees the page under the others",
            )  # fmt: skip
    for anomaly in timeline.of(Trouble.POPULATED_TOO_LITTLE)[:MAX_HITS]:
        yield hit_of_call(
            timeline, anomaly.call, "The last struct pages of a range are not populated",
            f"{timeline.describe(anomaly.call)}: {anomaly.text} ({places(anomaly.pfns)}).", Claim.PROBABLE,
            doubtful=timeline.is_doubtful(anomaly),
        )  # fmt: skip

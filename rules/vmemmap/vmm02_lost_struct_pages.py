"""VMM-02: valid memory without mapped struct pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import PTE
from parsers.ranges import EMPTY, Ranges
from parsers.vmcore.rows import StructPageRows
from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.model.memory.regions import LinearMap, Vmemmap
from rules.model.memory.sections import SectionTable
from rules.model.oops import Oopses
from rules.model.plausibility import struct_page_standing
from rules.model.replay.state import YES
from rules.model.replay.timeline import Timeline, Trouble
from rules.rule import UndecidedError, rule
from rules.trace.anomalies import places
from rules.vmemmap.blank import blank_struct_pages, unproven_blanks
from rules.vmemmap.devices import need_boot_memmap, shared_leaves
from rules.vmemmap.skipped import populate_skipped

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="VMM-02",
    name="lost-struct-pages",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=(
        "Linux commit d4234d131b0a (v6.14; stable 6.12.20, 6.1.132)",
        "Linux commit bbd6ec605c0f (v5.7): arm64/mm: Enable memory hot remove",
    ),
)
def lost_struct_pages(
    vmemmap: Vmemmap,
    section_table: SectionTable,
    *,
    linear_map: LinearMap | None,
    struct_page_rows: StructPageRows | None,
    timeline: Timeline | None,
) -> Iterator[Hit]:
    """Valid memory whose struct pages are not mapped.

    What it means:
    pfn_valid() says that these pages exist, and their struct pages are gone.  The next walker of page
    frames (compaction, /proc/kpageflags, a core dump, the driver that unmaps the memory) oopses with a
    translation fault in the vmemmap area.  Where a later add mapped blank ones, all zero, walkers take the pages
    for unused ones of the first zone of node 0, and a driver meets a count that underflows and no pgmap.

    How it is detected:
    The struct pages of every valid section and subsection are looked up in the vmemmap area of the page
    tables.  With a dump alone, memory that is in the linear map stands for valid memory, and the
    finding is a suspicion; so it is where only an oops shows a struct page that was not mapped (OOP-01, OOP-02).
    Struct pages that were lost and mapped again by a later add show in a crash dump, as zeros in the middle of memory
    that is in use, and in a trace of both operations. Without either, memory whose leaf others share is undecided.

    When it is not a problem:
    Struct pages that were never populated are another matter (VMM-08).  A dump that does not cover the
    vmemmap area proves nothing and is undecided.  Memory that was being added or removed while the dump was
    taken looks like this for a moment: capture twice.

    What to do:
    Stop all memory hotplug.  Keep tools away that walk page frames (/proc/kpage*, crash on the live
    system).  Take a crash dump, reboot, and update the kernel.
    """
    valid = section_table.valid - section_table.early
    missing = valid & vmemmap.pfns(vmemmap.pages_missing) - populate_skipped(vmemmap, section_table)
    for lost in _by_section(missing, section_table.pages_per_section):
        offsets = vmemmap.of_pfns(lost)
        yield Hit(
            title="Struct pages of valid memory are not mapped",
            message=(
                f"{lost.total} pages of {section_table.describe(lost)} "
                f"({places(lost)}) are valid and have no struct "
                f"page mapped. {_shape(vmemmap, offsets)}"
            ),
            claim=section_table.claim_about(lost),
            pfns=lost,
            vas=vmemmap.va_ranges(offsets),
            evidence=vmemmap.quote_at(offsets) + _owners(section_table, lost),
            cause=None if timeline is None else timeline.cause_of(lost),
        )
    blank = blank_struct_pages(struct_page_rows, section_table) - missing
    yield from _blank(vmemmap, section_table, blank, timeline)
    if timeline is not None:
        yield from _hidden(timeline, missing | blank)
    if not section_table.devices_known and section_table.claim is not Claim.PROVEN:
        known = section_table.valid if timeline is None else section_table.valid | timeline.lost
        yield from _of_unlisted_devices(vmemmap, linear_map, known)
    section_table.need_whole_lists()
    need_boot_memmap(vmemmap, section_table)
    unseen = valid - vmemmap.pfns(vmemmap.pages_observed)
    if struct_page_rows is not None and not section_table.devices_known and struct_page_rows.blank.any():
        zeros = int(struct_page_rows.blank.sum())
        message = f"the struct pages of {zeros} subsections are zero: whether a driver left them so is not known"
        raise UndecidedError(message, "iomem")
    if zeros := unproven_blanks(struct_page_rows, section_table):
        raise UndecidedError(f"all struct pages in the sections of {zeros} subsections in use are zero", "vmcore")
    if unseen:
        raise UndecidedError(f"the struct pages of {unseen.total} valid pages are not in the dump", Vmemmap)
    if struct_page_rows is not None and _left_out(struct_page_rows, section_table):
        raise UndecidedError(
            "pages that hold struct pages are not in the dump: whether they are zero is unknown", "vmcore"
        )
    shared = (shared_leaves(vmemmap, section_table.device_units) & section_table.device) - section_table.ram_sections
    if struct_page_rows is None and (shared - _watched(timeline)):
        raise UndecidedError(
            f"ranges that can be removed separately share leaves of struct pages ({places(shared)}): whether one was "
            "removed and added again, which leaves blank ones to the others, the page tables do not show",
            "vmcore",
            Timeline,
        )


def _watched(timeline: Timeline | None) -> Ranges:
    """PFNs that the trace shows from when they were added on."""
    if timeline is None or timeline.undecided or not timeline.trace.is_counted:
        return EMPTY
    state = timeline.state
    return timeline.where((state.valid == YES) & (state.added_by >= 0))


def _left_out(rows: StructPageRows, sections: SectionTable) -> bool:
    """Whether pages of RAM with struct pages are not in the dump; a device's own memory never is."""
    return bool((sections.ram.contains(rows.absent) if sections.ram else np.ones(rows.absent.size, np.bool_)).any())


@lost_struct_pages.fallback
def in_linear_map_only(vmemmap: Vmemmap, linear_map: LinearMap) -> Iterator[Hit]:
    """Two witnesses inside one dump: what is in the linear map has struct pages."""
    yield from _unmapped(vmemmap, linear_map, linear_map.pages_mapped & vmemmap.pages_missing)


@lost_struct_pages.fallback
def predicted_by_trace(timeline: Timeline) -> Iterator[Hit]:
    """What a trace alone says must have happened."""
    yield from _hidden(timeline, EMPTY)


@lost_struct_pages.fallback
def seen_by_oops(oopses: Oopses) -> Iterator[Hit]:
    """What the kernel died of."""
    for oops in oopses.all:
        if not oops.current or not oops.lost_struct_page or oops.at_boot:
            continue
        standing = struct_page_standing(oops)
        if standing.has_reason and not standing.excluded:
            yield Hit(
                title="The kernel died on a struct page that is not mapped",
                message=f"{oops.who}: {oops.describe()}. {oops.assumptions()}",
                claim=Claim.SUSPECTED,
                pfns=oops.pfns,
                vas=oops.vas,
                evidence=oops.evidence,
            )


def _hidden(timeline: Timeline, seen: Ranges) -> Iterator[Hit]:
    """Memory that lost its struct pages in the trace, and does not show it in the tables (or there are none).

    A later populate maps fresh pages there: the addresses translate, and the struct pages are blank.
    """
    for lost in _by_section(timeline.lost - seen, timeline.calibration.pages_per_section):
        cause = timeline.cause_of(lost)
        takers = [anomaly for anomaly in timeline.of(Trouble.FREE_WIDER_THAN_REMOVE) if (anomaly.pfns & lost)]
        doubtful = any(timeline.is_doubtful(taker) for taker in takers)
        yield Hit(
            title="A removal took the struct pages of valid memory away",
            message=(
                f"{lost.total} pages ({places(lost)}) are valid "
                "and lost their struct pages to a removal next to them. If they are mapped again, they are blank."
            ),
            claim=Claim.SUSPECTED if timeline.undecided else Claim.PROBABLE,  # an add may be among what is lost
            severity=Severity.MEDIUM if doubtful else None,
            pfns=lost,
            evidence=timeline.evidence(*(taker.call for taker in takers)),
            cause=cause,
        )


def _blank(vmemmap: Vmemmap, sections: SectionTable, blank: Ranges, timeline: Timeline | None) -> Iterator[Hit]:
    """Memory in use whose struct pages are mapped and zero.

    Only of a leaf that others share is a part torn and mapped again; elsewhere the dump may have zeros.
    """
    shared = shared_leaves(vmemmap, sections.units) if blank else EMPTY
    for lost in _by_section(blank, sections.pages_per_section):
        last = int(lost.end[-1]) - 1
        offsets = vmemmap.of_pfns(lost)
        struct_page = vmemmap.va(int(vmemmap.of_pfns(Ranges.one(last, last + 1)).start[0]))
        yield Hit(
            title="Struct pages of valid memory are blank",
            message=(
                f"{lost.total} pages of {sections.describe(lost)} "
                f"({places(lost)}) are in use, and their struct "
                "pages are mapped and zero: they were taken away and mapped again, or never initialised."
            ),
            # An add that the dump interrupted looks the same.
            claim=Claim.PROBABLE if lost & shared else Claim.SUSPECTED,
            severity=None if lost & shared else Severity.MEDIUM,
            pfns=lost,
            vas=vmemmap.va_ranges(offsets),
            evidence=(
                Evidence(vmemmap.mapping.source, f"struct page of PFN {last:#x}: zeros", None, struct_page),
                *vmemmap.quote_at(offsets),
                *_owners(sections, lost),
            ),
            cause=None if timeline is None else timeline.cause_of(lost),
        )


def _unmapped(vmemmap: Vmemmap, linear: LinearMap, lost: Ranges) -> Iterator[Hit]:
    """A hit for page indices that the linear map has and the vmemmap area has not, if there are any."""
    if lost:
        offsets = vmemmap.offsets(lost)
        yield Hit(
            title="Memory in the linear map has no struct pages",
            message=(
                f"{lost.total} pages are mapped in the linear map and their struct pages are not mapped. "
                f"{_shape(vmemmap, offsets)} Without the section table this is a suspicion."
            ),
            claim=Claim.SUSPECTED,
            severity=Severity.HIGH,
            pfns=linear.pfns(lost) if linear.layout.knows("phys_offset") else EMPTY,
            vas=vmemmap.va_ranges(offsets),
            evidence=vmemmap.quote_at(offsets) + linear.quote_at(linear.offsets(lost)),
        )


def _of_unlisted_devices(vmemmap: Vmemmap, linear: LinearMap | None, known: Ranges) -> Iterator[Hit]:
    """Where no list names device memory, what is in the linear map and in no section of RAM is that."""
    if linear is None:
        raise UndecidedError("which device memory has struct pages is not known", "iomem", LinearMap)
    lost = linear.pages_mapped & vmemmap.pages_missing - known.shift(-linear.layout.start_pfn)
    yield from _unmapped(vmemmap, linear, lost)
    if linear.unobserved:
        raise UndecidedError("which device memory has struct pages is not known: not all is in the dump", LinearMap)


def _by_section(pfns: Ranges, pages_per_section: int) -> Iterator[Ranges]:
    """One group a run of adjacent sections: damage is done section by section."""
    for lo, hi in pfns.divide(pages_per_section, outward=True).scale(pages_per_section).tuples():
        yield pfns & Ranges.one(lo, hi)


def _shape(vmemmap: Vmemmap, offsets: Ranges) -> str:
    """What kind of hole it is."""
    rows = vmemmap.rows_at(offsets)
    rows = rows[~vmemmap.valid[rows]]
    if not vmemmap.hole[rows].all():
        return "The entries are there and not valid: they were damaged."
    if not rows.size or (vmemmap.level[rows] == PTE).any():
        return "The hole is made of single page-table entries."
    return "The hole is made of whole empty PMD entries: a block was torn out."


def _owners(sections: SectionTable, lost: Ranges) -> tuple[Evidence, ...]:
    units = sections.device_units
    chosen = lost.touches(units.start_pfn, units.end_pfn)
    return units.evidence(chosen.nonzero()[0])

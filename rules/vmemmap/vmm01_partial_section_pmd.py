"""VMM-01: one vmemmap block over ranges that are added and removed separately."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.ranges import Ranges, distinct
from parsers.uname import KernelRelease
from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.model.bugs import bug, describe_fixes
from rules.model.memory.regions import Vmemmap
from rules.model.memory.sections import SectionTable
from rules.model.replay.behaviour import Leaf
from rules.model.replay.extents import PMD_BYTES
from rules.model.replay.state import UNKNOWN, YES
from rules.model.replay.timeline import Timeline, Trouble
from rules.rule import NotApplicableError, rule
from rules.trace.anomalies import MAX_HITS, hit_of_call, places
from rules.trace.leaves import hit_of_state, leaves_of_parts, leaves_whole_sections
from rules.vmemmap.blocks import Blocks
from rules.vmemmap.devices import need_devices

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.mapping import Bool

FIX = bug("partial-section-pmd")
PAGES_OF_BLOCK = PMD_BYTES // 64
"""Pages that one block of struct pages of 64 bytes describes: a section of 128 MiB."""


@rule(
    code="VMM-01",
    name="partial-section-pmd",
    severity=Severity.HIGH,
    impact=Impact.LATENT,
    references=(
        "Linux commit d4234d131b0a (v6.14; stable 6.12.20, 6.1.132): arm64: mm: populate vmemmap at the page level "
        "if not section aligned",
        "Fixes: ba72b4c8cf60 (v5.3)",
    ),
)
def partial_section_pmd(vmemmap: Vmemmap, sections: SectionTable) -> Iterator[Hit]:
    """A PMD block maps struct pages of hot-added ranges that can be removed separately.

    What it means:
    arm64 removes a vmemmap block as a whole, even if other memory uses it.  Where one block holds the struct
    pages of several devices, namespaces or DIMMs, or of a section that is only partly populated, the
    next removal of one of them takes the struct pages of the others away (VMM-02).

    How it is detected:
    Every PMD block of the vmemmap area is compared with the subsections that are valid under it and
    with the ranges that were added one by one.  (a) part of what the block describes is valid;
    (b) all of it is valid, and more than one operation added it.  Without page tables, several devices that
    /proc/iomem lists in one section are suspected on a release without the fix.

    When it is not a problem:
    Boot memory always has its memmap section by section and is never removed.  Device memory placed
    into a boot section shares the boot memmap.  A section that was added whole is legitimately one
    block.  16K and 64K kernels never map struct pages with blocks.

    What to do:
    Do not remove, destroy or unplug any device, namespace or DIMM in these sections before a reboot.
    Update to a kernel with d4234d131b0a, and align namespaces and DIMMs to the section size (128 MiB).
    """
    layout = vmemmap.layout
    if layout.page_size != 4096:
        raise NotApplicableError(f"{layout.granule.name} pages: struct pages are always mapped with base pages")
    blocks = Blocks.of(vmemmap, at=sections.device)
    units = sections.device_units
    first = np.searchsorted(units.end_pfn, blocks.start_pfn, side="right")
    after = np.searchsorted(units.start_pfn, blocks.end_pfn, side="left")
    # A block may reach into the next section, where struct page has not 64 bytes (VMM-05).
    partial = sections.valid.covered(blocks.start_pfn, blocks.end_pfn) != blocks.pages
    partial &= sections.in_part.touches(blocks.start_pfn, blocks.end_pfn)
    several = units.share_a_section(first, after, layout.pages_per_section)
    # What no list names and the linear map has may be of the same unit: then a list lacks lines.
    covered = (sections.valid | sections.unlisted).covered(blocks.start_pfn, blocks.end_pfn)
    explained = partial & (covered == blocks.pages) & ~several
    wrong = (partial | several) & ~explained & ~blocks.touching(sections.ram_sections)
    for index in np.flatnonzero(wrong).tolist():
        yield _hit(vmemmap, sections, blocks, index, range(int(first[index]), int(after[index])), partial)
    need_devices(vmemmap, sections)


@partial_section_pmd.fallback
def listed_in_iomem(sections: SectionTable, release: KernelRelease, *, timeline: Timeline | None) -> Iterator[Hit]:
    """Devices that /proc/iomem lists in one section, on a release that maps its struct pages with one block."""
    layout, units = sections.layout, sections.listed_units
    if layout.page_size != 4096 or (layout.get("struct_page_size") or 64) != 64 or not FIX.possible_in(release):
        return
    window = units.start_pfn // PAGES_OF_BLOCK
    last = (units.end_pfn - 1) // PAGES_OF_BLOCK
    for block in distinct(window[1:][window[1:] == last[:-1]]).tolist():
        start, end = block * PAGES_OF_BLOCK, (block + 1) * PAGES_OF_BLOCK
        owners = np.flatnonzero((units.start_pfn < end) & (units.end_pfn > start))
        pfns = Ranges.one(start, end) & Ranges.of(units.start_pfn[owners], units.end_pfn[owners])
        if sections.ram_sections & Ranges.one(start, end) or (timeline is not None and timeline.knows_validity(pfns)):
            continue
        labels = ", ".join(units.label[owner] for owner in owners.tolist())
        # Device-dax always has struct pages, a namespace in raw or sector mode has none.
        # A sublevel that the vendor moves says which fixes are in; one that stays 0 says nothing.
        dated = not release.is_vendor or release.version[2] > 0 or release.upstream is not None
        dax = sum("dax" in units.label[owner] for owner in owners.tolist())
        yield Hit(
            title=f"One PMD block may map struct pages of {owners.size} ranges that were added separately ({labels})",
            message=(
                f"VMM-01b: /proc/iomem lists {owners.size} ranges in PFNs {start:#x}-{end:#x} ({labels}), "
                f"and {release.raw} is from before the fix ({describe_fixes(FIX)}), as far as its release says: one "
                "2 MiB block maps their struct pages, and removing one range clears it. The page tables would show it."
            ),
            claim=Claim.SUSPECTED,
            severity=None if dated and dax > 1 else Severity.MEDIUM,
            pfns=pfns,
            evidence=(*units.evidence(owners[:MAX_HITS]), Evidence(release.path, release.raw, release.line)),
        )


@partial_section_pmd.fallback
def predicted_by_trace(timeline: Timeline) -> Iterator[Hit]:
    """Blocks over parts of sections that stand at the end, and removals of less than was added whole."""
    if timeline.calibration.page_size != 4096:
        return
    state = timeline.state
    for rows, owners in leaves_of_parts(timeline, PMD_BYTES, state.leaf == Leaf.PMD):
        mine = state.valid[rows] == YES
        if leaves_whole_sections(timeline, rows):
            continue
        if len(owners) > 1 or (state.valid[rows] != UNKNOWN).all():
            case = "VMM-01b" if len(owners) > 1 else "VMM-01"
            yield hit_of_state(
                timeline, rows[mine], owners, f"{case}: one PMD block maps the struct pages of part of a section",
                f"populated by {len(owners)} adds; removing one clears the block for all that it maps",
            )  # fmt: skip
    for anomaly in timeline.of(Trouble.ASYMMETRIC_UNIT)[:MAX_HITS]:
        removed = timeline.pfns_of(anomaly.call)
        if removed != removed.widen(timeline.calibration.pages_per_section):
            yield hit_of_call(
                timeline, anomaly.call, "VMM-01c: part of a section is removed that was added whole",
                f"{timeline.describe(anomaly.call)} leaves {places(anomaly.pfns)} of what one operation added: "
                "the block that maps the struct pages of both is cleared.",
                Claim.PROBABLE,
                doubtful=timeline.is_doubtful(anomaly),
            )  # fmt: skip


def _hit(vmemmap: Vmemmap, sections: SectionTable, blocks: Blocks, index: int, owners: range, partial: Bool) -> Hit:
    start, end = int(blocks.start_pfn[index]), int(blocks.end_pfn[index])
    offsets = blocks.offsets(np.array([index]))
    labels = [sections.device_units.label[owner] for owner in owners]
    pages = sections.valid & Ranges.one(start, end)
    if len(owners) > 1:
        case = "VMM-01b"
        what = f"the struct pages of {len(owners)} ranges that were added separately ({', '.join(labels)})"
    else:
        case = "VMM-01"
        what = f"the struct pages of {labels[0] if labels else 'a range'}"
    populated = f"{pages.total} of {end - start} pages are valid" if partial[index] else "all pages are valid"
    return Hit(
        title=f"One PMD block maps {what}",
        message=(
            f"{case}: the 2 MiB vmemmap block at {vmemmap.va(int(blocks.start[index])):#x} maps {what}; {populated} "
            f"of PFNs {start:#x}-{end:#x}. Removing one range clears the block and with it the struct pages of the "
            "rest."
        ),
        claim=sections.claim,
        pfns=pages,
        vas=vmemmap.va_ranges(offsets),
        evidence=vmemmap.quote_at(offsets) + sections.device_units.evidence(np.arange(owners.start, owners.stop)),
    )

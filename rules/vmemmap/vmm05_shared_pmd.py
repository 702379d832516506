"""VMM-05: one vmemmap block across two sections, because sizeof(struct page) does not divide it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import PMD
from parsers.layout import Precision
from parsers.mapping import Mapping
from parsers.ranges import Ranges, distinct
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.memory.regions import Vmemmap
from rules.model.memory.sections import SectionTable
from rules.model.replay.behaviour import Leaf
from rules.model.replay.extents import PMD_BYTES
from rules.model.replay.timeline import Timeline
from rules.rule import NotApplicableError, UndecidedError, rule
from rules.trace.leaves import hit_of_state, leaves_of_parts
from rules.vmemmap.blocks import Blocks
from rules.vmemmap.devices import need_devices

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="VMM-05",
    name="shared-pmd-across-sections",
    severity=Severity.HIGH,
    impact=Impact.LATENT,
    references=("Derived from arch/arm64/mm/mmu.c unmap_hotplug_pmd_range() (v5.7 to 6.12); no upstream report known",),
)
def shared_pmd_across_sections(vmemmap: Vmemmap, sections: SectionTable, *, mapping: Mapping | None) -> Iterator[Hit]:
    """A vmemmap block holds struct pages of two hot-added sections.

    What it means:
    With a struct page of other than 64 bytes, the memmap of a section is not a whole number of 2 MiB
    blocks, and neighbouring sections share one. arm64 clears a block without asking who else uses it:
    removing one section takes struct pages of its neighbour away.

    How it is detected:
    PMD blocks whose struct pages describe more than one removable unit of hot-added memory, on kernels
    whose section memmap is not a multiple of 2 MiB.

    When it is not a problem:
    With 64-byte struct pages (nearly every kernel) it cannot happen. Boot sections are never removed.

    What to do:
    Do not unplug memory on this kernel, or build it so that struct page has 64 bytes.
    """
    layout = vmemmap.layout
    if layout.page_size != 4096:
        raise NotApplicableError(f"{layout.granule.name} pages: struct pages are always mapped with base pages")
    if layout.pages_per_section * layout.struct_page_size % layout.granule.span(PMD) == 0:
        torn = mapping is not None and mapping.observed_start.size != 1
        if torn and layout.facts["struct_page_size"].precision is Precision.INFERRED:
            raise UndecidedError("the size of a struct page is inferred from a dump that is not whole", "vmcoreinfo")
        raise NotApplicableError("the memmap of a section is a whole number of PMD blocks")
    units = sections.units
    blocks = Blocks.of(vmemmap, at=Ranges.of(units.start_pfn, units.end_pfn))
    first = np.searchsorted(units.end_pfn, blocks.start_pfn, side="right")
    after = np.searchsorted(units.start_pfn, blocks.end_pfn, side="left")
    between = (after - first > 1) & ~units.share_a_section(first, after, layout.pages_per_section)  # else VMM-01
    for index in np.flatnonzero(between).tolist():
        owners = np.arange(first[index], after[index])
        offsets = blocks.offsets(np.array([index]))
        pfns = Ranges.one(int(blocks.start_pfn[index]), int(blocks.end_pfn[index]))
        what = "memory blocks" if not sections.device & pfns else "ranges that can leave one by one"
        yield Hit(
            title=f"One PMD block maps struct pages of {owners.size} {what}",
            message=(
                f"The vmemmap block at {vmemmap.va(int(blocks.start[index])):#x} maps struct pages of "
                f"{', '.join(units.label[owner] for owner in owners.tolist())} (struct page has "
                f"{layout.struct_page_size} bytes). Removing one clears the block for all."
            ),
            claim=sections.claim if layout.facts["struct_page_size"].precision == "exact" else Claim.SUSPECTED,
            pfns=pfns,
            vas=vmemmap.va_ranges(offsets),
            evidence=vmemmap.quote_at(offsets) + units.evidence(owners),
        )
    need_devices(vmemmap, sections)
    if not sections.blocks_known and Blocks.of(vmemmap, at=sections.hotadded - sections.device).start.size:
        raise UndecidedError("which hot-added memory is removed block by block is not known", "memory blocks")
    if Blocks.of(vmemmap, at=sections.early_unknown).start.size:
        raise UndecidedError("whether the sections that share blocks were hot-added is not known", "dmesg")


@shared_pmd_across_sections.fallback
def predicted_by_trace(timeline: Timeline) -> Iterator[Hit]:
    """Blocks that reach over the edge of a section into memory that another operation added."""
    calibration, state = timeline.calibration, timeline.state
    for rows, owners in leaves_of_parts(timeline, PMD_BYTES, state.leaf == Leaf.PMD):
        sections = distinct(state.start_pfn[rows] // calibration.pages_per_section)
        if len(owners) > 1 and sections.size > 1:
            yield hit_of_state(
                timeline, rows, owners, "One PMD block maps struct pages of two sections",
                f"struct page has {calibration.struct_page_size} bytes; removing one section clears the block for both",
            )  # fmt: skip

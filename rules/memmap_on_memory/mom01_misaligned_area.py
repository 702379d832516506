"""MOM-01: a self-hosted area that is not made of whole page blocks, or does not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import PMD
from parsers.ranges import Ranges
from parsers.vmcore.rows import BlockRows
from rules.finding import Hit, Impact, Severity
from rules.memmap_on_memory.self_hosted import hosts
from rules.model.memory.quotes import block_pfns, quote_blocks
from rules.model.memory.sections import SectionTable
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="MOM-01",
    name="misaligned-self-hosted-area",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=(
        "mm/memory_hotplug.c mhp_supports_memmap_on_memory(), arch_supports_memmap_on_memory() (v5.13 to 6.12)",
        "mm/memory_hotplug.c online_pages(), offline_pages(): WARN_ON_ONCE unless aligned to page blocks",
    ),
)
def misaligned_area(blocks: BlockRows, sections: SectionTable) -> Iterator[Hit]:
    """The pages that a block sets aside for its own struct pages have an impossible number or place.

    What it means:
    The rest of the block goes to the page allocator by whole page blocks. If the area is not a whole number of them,
    offlining trips over its edge; if it is too small, or elsewhere, struct pages lie in memory that the allocator gives
    away.

    How it is detected:
    struct memory_block: the area is compared with the struct pages of the block, with a PMD's span (arm64 refuses
    anything else), and its base with the start of the block.

    When it is not a problem:
    Never. Whether a block may hold its own struct pages is checked before it is added.

    What to do:
    Do not offline or remove the block. Keep the crash dump, and disable memmap_on_memory after the reboot.
    """
    rows = hosts(blocks)
    layout = sections.layout
    area = blocks.nr_vmemmap_pages[rows].astype(np.int64)
    first, end = (column[rows] for column in block_pfns(blocks, sections.pages_per_section))
    base = blocks.altmap_base_pfn[rows].astype(np.int64)
    unit = layout.granule.span(PMD) // layout.page_size
    for wrong, why in (
        (area % unit != 0, f"is not a multiple of {unit} pages, a PMD's span"),
        (area * layout.page_size < (end - first) * layout.struct_page_size, "is too small for the struct pages"),
        ((base != 0) & (base != first), "does not begin where the block begins"),
        (area >= end - first, "leaves nothing of the block"),
    ):
        if wrong.any():
            yield Hit(
                title=f"The self-hosted area of {int(wrong.sum())} memory block(s) {why}",
                message=f"The area that the block sets aside for its own struct pages {why}.",
                claim=sections.claim,
                pfns=Ranges.of(first[wrong], end[wrong]),
                evidence=quote_blocks(blocks, rows[wrong], sections.source),
                key=why.split(",")[0],
            )

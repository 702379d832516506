"""MOM-09: offline blocks that hold their own struct pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

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
    code="MOM-09",
    name="offline-self-hosted",
    severity=Severity.INFO,
    impact=Impact.INFORMATIONAL,
    references=("mm/memory_hotplug.c mhp_deinit_memmap_on_memory() (v5.13 to 6.12)",),
)
def offline_self_hosted(blocks: BlockRows, sections: SectionTable) -> Iterator[Hit]:
    """An offline block still holds its own struct pages.

    What it means:
    Offline is not unused here: the first pages of the block hold its struct pages until it is removed. Whoever powers
    down or hands over offline memory that is still plugged destroys them.

    How it is detected:
    struct memory_block: the state is offline, and an altmap is set.

    When it is not a problem:
    It is not a problem in itself: this is how memmap_on_memory works.

    What to do:
    Remove the block before its memory is switched off, reset or given to somebody else.
    """
    rows = hosts(blocks)
    offline = rows[[blocks.state[row] == "offline" for row in rows.tolist()]]
    if offline.size:
        start, end = block_pfns(blocks, sections.pages_per_section)
        area = Ranges.of(start[offline], start[offline] + blocks.nr_vmemmap_pages[offline].astype(np.int64))
        yield Hit(
            title=f"{offline.size} offline memory block{'s' if offline.size > 1 else ''} hold their own struct pages",
            message=f"{area.total} pages of offline blocks are in use as struct pages.",
            claim=sections.claim,
            pfns=Ranges.of(start[offline], end[offline]),
            evidence=quote_blocks(blocks, offline, sections.source),
        )

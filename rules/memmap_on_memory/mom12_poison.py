"""MOM-12: poisoned pages among those that hold a block's own struct pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.dmesg import Dmesg
from parsers.memmap_on_memory import MemmapOnMemory, MemmapOnMemoryMode
from parsers.ranges import EMPTY, Ranges
from parsers.vmcore.rows import BlockRows
from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.model.log import need_whole_log
from rules.model.memory.quotes import block_pfns, quote_blocks
from rules.model.memory.sections import SectionTable
from rules.rule import UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="MOM-12",
    name="poison-in-self-hosted-area",
    severity=Severity.HIGH,
    impact=Impact.LATENT,
    references=("drivers/base/memory.c memory_block_online(): -EHWPOISON (v6.2); mm/memory-failure.c",),
)
def poison_in_area(
    dmesg: Dmesg,
    sections: SectionTable,
    *,
    block_rows: BlockRows | None,
    memmap_on_memory: MemmapOnMemory | None,
) -> Iterator[Hit]:
    """A page with an uncorrectable error holds the struct pages of its own block.

    What it means:
    The struct pages in it cannot be trusted, and every walker of page frames that comes by raises an abort. Once the
    block is offline it cannot be onlined again, and removing it reads the poisoned page.

    How it is detected:
    "Memory failure" lines of the log name the page frames. In a crash dump each block says how many of its first
    pages hold its struct pages; otherwise that follows from block size and sizeof(struct page), for hot-added
    blocks of a kernel with memmap_on_memory on.

    When it is not a problem:
    Poison elsewhere in the block costs that page alone.

    What to do:
    Do not offline or remove the block. Move the workload away, shut down and replace the memory.
    """
    pfn = dmesg.boot.poison.pfn.astype(np.int64)
    if not pfn.size:
        need_whole_log(dmesg)
        return
    poison = Ranges.of(pfn, pfn + 1)
    area, claim = _area(poison, sections, block_rows, memmap_on_memory)
    bad = poison & area
    if not bad:
        sections.need_whole_lists()
        if block_rows is None and claim is Claim.SUSPECTED and poison & sections.early_unknown:
            raise UndecidedError("whether the poisoned blocks were added after boot is not known", Dmesg)
        return
    lines = tuple(
        Evidence(dmesg.path, f"Memory failure: {number:#x}", line)
        for number, line in zip(pfn.tolist(), dmesg.boot.poison.line.tolist(), strict=True)
        if bad.contains(number)
    )
    yield Hit(
        title="Poisoned memory holds the struct pages of its own block",
        message=f"{bad.total} poisoned pages lie among those that blocks set aside for their own struct pages.",
        claim=claim,
        pfns=bad,
        evidence=(*lines[:6], *_quoted(bad, sections, block_rows)),
    )


def _area(
    poison: Ranges, sections: SectionTable, blocks: BlockRows | None, parameter: MemmapOnMemory | None
) -> tuple[Ranges, Claim]:
    """Pages that hold struct pages of their own block, and how sure that is."""
    if blocks is not None:
        first, _ = block_pfns(blocks, sections.pages_per_section)
        return Ranges.of(first, first + blocks.nr_vmemmap_pages.astype(np.int64)), sections.claim
    if parameter is not None and parameter.mode is MemmapOnMemoryMode.OFF:
        return EMPTY, Claim.PROBABLE
    unsure = sections.hotadded | sections.early_unknown
    if not poison & unsure:
        return EMPTY, Claim.PROBABLE
    if parameter is None:
        raise UndecidedError("whether blocks hold their own struct pages is not known", MemmapOnMemory)
    units, layout = sections.block_units, sections.layout
    layout.need("block_size")
    pages = (units.end_pfn - units.start_pfn) * layout.struct_page_size // layout.page_size
    return Ranges.of(units.start_pfn, units.start_pfn + pages), Claim.SUSPECTED


def _quoted(bad: Ranges, sections: SectionTable, blocks: BlockRows | None) -> tuple[Evidence, ...]:
    """The blocks that the poison is in."""
    if blocks is None:
        units = sections.block_units
        return units.evidence(np.flatnonzero(bad.touches(units.start_pfn, units.end_pfn))[:6])
    first, end = block_pfns(blocks, sections.pages_per_section)
    return quote_blocks(blocks, np.flatnonzero(bad.touches(first, end)), sections.source)

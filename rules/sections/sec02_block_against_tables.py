"""SEC-02: a memory block that the page tables know nothing about, or whose sections are in another state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.memory_blocks import BlockState, MemoryBlocks
from parsers.ranges import EMPTY, Ranges
from parsers.vmcore.rows import BlockRows, SectionRows
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.memory.quotes import (
    block_pfns,
    blocks_of_no_section,
    name_sections,
    quote_blocks,
    quote_sections,
    quote_state,
    section_pfns,
)
from rules.model.memory.regions import LinearMap, Vmemmap
from rules.model.memory.sections import SectionTable
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="SEC-02",
    name="block-against-tables",
    severity=Severity.HIGH,
    impact=Impact.LATENT,
    references=(
        "drivers/base/memory.c memory_block_online(); mm/sparse.c online_mem_sections() (v6.12)",
        "drivers/base/memory.c; a removed block lingered in sysfs until the reference leak was fixed (stable 6.12.92)",
    ),
)
def block_against_tables(
    blocks: MemoryBlocks,
    linear: LinearMap,
    vmemmap: Vmemmap,
    *,
    block_rows: BlockRows | None,
    section_rows: SectionRows | None,
    section_table: SectionTable | None,
) -> Iterator[Hit]:
    """A memory block is listed whose memory is neither mapped nor described by struct pages, or is in another state.

    What it means:
    sysfs shows a block of memory that was removed underneath, or one whose sections disagree with it about being
    online. Onlining it, or any tool that walks blocks, touches struct pages that do not exist.

    How it is detected:
    The PFNs of every block are looked up in the linear map and in the vmemmap area. A block with
    nothing in either is stale. In a crash dump the state of every block is also compared with the ONLINE and PRESENT
    flags of its sections, and every present section of RAM must have a block.

    When it is not a problem:
    A block of no-map memory has struct pages and no linear map. A block that is being removed, onlined or offlined
    while the capture is taken looks like this for a moment. Device memory has no blocks.

    What to do:
    Do not online the block. If it is offline, it is probably a leaked device: update (6.12.92). Reboot.
    """
    pages = linear.layout.need("block_size") // linear.layout.page_size
    if block_rows is not None and section_rows is not None and section_table is not None:
        gone = blocks_of_no_section(block_rows, section_rows)
        start, end = block_pfns(block_rows, section_table.pages_per_section)
        lingering = Ranges.of(start[gone], end[gone])
        yield from _states(block_rows, section_rows, section_table)
        yield from _without_block(block_rows, section_rows, section_table)
    else:
        lingering = EMPTY
    yield from _stale(blocks, pages, linear, vmemmap, lingering)
    if block_rows is None and section_table is not None:
        section_table.need_whole_lists()


def _stale(blocks: MemoryBlocks, pages: int, linear: LinearMap, vmemmap: Vmemmap, lingering: Ranges) -> Iterator[Hit]:
    """Blocks of so many ``pages`` that nothing maps; those that are ``lingering`` and offline are SEC-13."""
    start = blocks.block * pages
    empty = ~lingering.contains(start) | blocks.online
    for region in (linear, vmemmap):
        missing = region.pfns(region.pages_missing).covered(start, start + pages)
        empty &= missing == pages
    for row in np.flatnonzero(empty).tolist():
        online = blocks.state[row] == BlockState.ONLINE
        pfns = Ranges.one(int(start[row]), int(start[row]) + pages)
        yield Hit(
            title=f"Memory block {int(blocks.block[row])} has neither struct pages nor a linear map",
            message=(
                f"memory{int(blocks.block[row])} is listed as {blocks.state_word[row] or 'present'}, and nothing maps "
                "its memory or its struct pages."
            ),
            claim=Claim.PROVEN if online else Claim.PROBABLE,
            severity=None if online else Severity.MEDIUM,
            pfns=pfns,
            evidence=(
                quote_state(blocks, row),
                *vmemmap.quote_at(vmemmap.of_pfns(pfns)),
            ),
        )


def _states(blocks: BlockRows, rows: SectionRows, sections: SectionTable) -> Iterator[Hit]:
    """Blocks that say one thing and their sections another."""
    first = blocks.start_section_nr.astype(np.int64)
    last = first + blocks.sections_per_block
    number = rows.section_nr.astype(np.int64)
    present, online = Ranges.of(number[rows.present], number[rows.present] + 1), rows.present & rows.online
    up = Ranges.of(number[online], number[online] + 1).covered(first, last)
    all_up = up == present.covered(first, last)
    start, end = block_pfns(blocks, sections.pages_per_section)
    for state, wrong in (("online", ~all_up), ("offline", up > 0)):
        chosen = np.flatnonzero(np.array([word == state for word in blocks.state], dtype=np.bool_) & wrong)
        if chosen.size:
            pfns = Ranges.of(start[chosen], end[chosen])
            members = rows.present & pfns.contains(number * sections.pages_per_section)
            yield Hit(
                title=f"{chosen.size} {state} memory block{'s' if chosen.size > 1 else ''} with sections that are not",
                message=f"The block is {state}, and the ONLINE flag of its sections says otherwise.",
                claim=sections.claim,
                pfns=pfns,
                evidence=(
                    *quote_blocks(blocks, chosen, sections.source),
                    *quote_sections(rows, members & (rows.online == (state == "offline")), sections.source),
                ),
                key=f"{state} block",
            )


def _without_block(blocks: BlockRows, rows: SectionRows, sections: SectionTable) -> Iterator[Hit]:
    """Present sections of RAM that no block stands for; what is neither online nor RAM is VMM-14's."""
    if not len(blocks):
        return
    pages = sections.pages_per_section
    start = rows.section_nr.astype(np.int64) * pages
    ram = rows.online | sections.ram.touches(start, start + pages)
    blocks_start, blocks_end = block_pfns(blocks, pages)
    wrong = rows.present & ram & ~Ranges.of(blocks_start, blocks_end).contains(start)
    if wrong.any():
        yield Hit(
            title=f"{name_sections(rows, wrong)}: RAM without a memory block",
            message="The section is present and holds RAM, and has no memory block: it cannot be offlined.",
            claim=sections.claim,
            severity=Severity.MEDIUM,
            pfns=section_pfns(rows, wrong, pages),
            evidence=quote_sections(rows, wrong, sections.source),
            key="no block",
        )

"""SEC-02: a memory block that the page tables know nothing about."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.memory_blocks import BlockState, MemoryBlocks
from parsers.ranges import Ranges
from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.model.coverage import LinearMap, Vmemmap
from rules.rule import UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="SEC-02",
    name="block-against-tables",
    severity=Severity.HIGH,
    impact=Impact.LATENT,
    needs=(MemoryBlocks, LinearMap, Vmemmap),
    references=(
        "drivers/base/memory.c; a removed block lingered in sysfs until the reference leak was fixed (stable 6.12.92)",
    ),
)
def block_against_tables(blocks: MemoryBlocks, linear: LinearMap, vmemmap: Vmemmap) -> Iterator[Hit]:
    """A memory block is listed whose memory is neither mapped nor described by struct pages.

    What it means:
    sysfs shows a block of memory that was removed underneath. Onlining it, or any tool that walks
    blocks, touches struct pages that are not there.

    How it is detected:
    The PFNs of every block are looked up in the linear map and in the vmemmap area. A block with
    nothing in either is stale.

    When it is not a problem:
    A block of no-map memory has struct pages and no linear map. A block that is being removed while the
    capture is taken looks like this for a moment.

    What to do:
    Do not online the block. If it is offline, it is probably a leaked device: update (6.12.92). Reboot.
    """
    if not blocks.block_size_bytes:
        raise UndecidedError("the block size is not known", MemoryBlocks)
    pages = blocks.block_size_bytes // linear.layout.page_size
    start = blocks.block * pages
    empty = np.ones(start.size, dtype=np.bool_)
    for region in (linear, vmemmap):
        missing = region.pfns(region.pages_missing).covered(start, start + pages)
        empty &= missing == pages
    for row in np.flatnonzero(empty).tolist():
        online = blocks.state[row] == BlockState.ONLINE
        line = None if blocks.line is None else int(blocks.line[row]) or None
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
                Evidence(blocks.path, f"memory{int(blocks.block[row])}/state:{blocks.state_word[row]}", line),
                *vmemmap.quote_at(vmemmap.of_pfns(pfns)),
            ),
        )

"""SEC-04: /proc/iomem and the memory blocks disagree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.memory_blocks import MemoryBlocks
from parsers.ranges import EMPTY, Ranges
from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.model.memory.quotes import quote_state
from rules.model.memory.regions import LinearMap
from rules.model.memory.resources import Resources
from rules.model.memory.sections import SectionTable
from rules.rule import UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="SEC-04",
    name="iomem-against-blocks",
    severity=Severity.HIGH,
    impact=Impact.LATENT,
    references=("mm/memory_hotplug.c register_memory_resource(), create_memory_block_devices()",),
)
def iomem_against_blocks(
    resources: Resources, blocks: MemoryBlocks, sections: SectionTable, *, linear_map: LinearMap | None
) -> Iterator[Hit]:
    """System RAM without a memory block, or an online block without System RAM.

    What it means:
    Adding memory makes both the resource and the blocks, removing it deletes both. One without the
    other is what a failed add or a half-done removal leaves.

    How it is detected:
    "System RAM" in /proc/iomem is compared with the memory blocks in sysfs, both ways. Two lists that disagree do not
    show which of them is wrong, and a copy may have lost lines: that is suspected, and of medium severity. Where the
    linear map lacks the memory as well, nothing but the one entry is left of it.

    When it is not a problem:
    Blocks of no-map memory have no System RAM ("reserved" instead). Kernels without memory hotplug have no
    blocks at all. Memory that is added or removed during the capture shows up in one file only. A /proc/iomem that ends
    below the block may have lost its end: that is suspected only.

    What to do:
    Capture again. If it stays, look in the log for a failed add or remove of that range.
    """
    if not blocks.block_size_bytes or not len(blocks):
        raise UndecidedError("the memory blocks are not known", MemoryBlocks)
    page = sections.layout.page_size
    unknown = sections.possible - sections.valid  # the dump does not say: nor does the lack of a block
    unmapped = EMPTY
    if linear_map is not None and sections.layout.knows("phys_offset"):
        unmapped = linear_map.pfns(linear_map.pages_observed - linear_map.pages_mapped)
        unmapped -= resources.pfns(resources.crash_kernel, page)  # kexec takes it out of the linear map
    orphans = resources.pfns(resources.ram, page) - sections.blocks - unknown
    for lo, hi in orphans.tuples():
        lone = not Ranges.one(lo, hi) - unmapped
        yield Hit(
            title="System RAM without a memory block",
            message=(
                f"PFNs {lo:#x}-{hi:#x} are System RAM in /proc/iomem and in no memory block"
                + (", nor in the linear map." if lone else ". One of the lists may have lost lines.")
            ),
            claim=Claim.PROBABLE if lone else Claim.SUSPECTED,
            severity=None if lone else Severity.MEDIUM,
            pfns=Ranges.one(lo, hi),
            evidence=(_iomem_line(resources, lo * page),),
            key="no block",
        )
    memory = resources.ram | resources.nomap
    pages = blocks.block_size_bytes // page
    start = blocks.block * pages
    bare = blocks.online & ~resources.pfns(memory, page).touches(start, start + pages)
    first, listed = int(resources.everything.start[0]), int(resources.everything.end[-1])
    for row in np.flatnonzero(bare).tolist():
        beyond = int(start[row]) * page >= listed
        within = first <= int(start[row]) * page and not beyond  # the list may have lost its head as well
        lone = within and not Ranges.one(int(start[row]), int(start[row]) + pages) - unmapped
        yield Hit(
            title=f"Online memory block {int(blocks.block[row])} without System RAM",
            message=f"memory{int(blocks.block[row])} is online, and /proc/iomem has no RAM there"
            + (
                f", nor anything above {listed:#x}: its end may have been cut off."
                if beyond
                else ", nor has the linear map."
                if lone
                else ". One of the lists may have lost lines."
            ),
            claim=Claim.PROBABLE if lone else Claim.SUSPECTED,
            severity=None if lone else Severity.MEDIUM,
            pfns=Ranges.one(int(start[row]), int(start[row]) + pages),
            evidence=(quote_state(blocks, row),),
            key="no RAM",
        )


def _iomem_line(resources: Resources, address: int) -> Evidence:
    """The line of /proc/iomem that lists ``address`` first."""
    iomem = resources.iomem
    rows = np.flatnonzero((iomem.start <= np.uint64(address)) & (iomem.last >= np.uint64(address)))
    row = int(rows[0])
    text = f"{int(iomem.start[row]):08x}-{int(iomem.last[row]):08x} : {iomem.name[row]}"
    return Evidence(iomem.path, text, int(iomem.line[row]))

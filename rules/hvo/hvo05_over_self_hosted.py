"""HVO-05: shared struct pages of memory that holds its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.arm64 import Attr
from parsers.ranges import Ranges
from parsers.vmcore.rows import BlockRows
from rules.finding import Claim, Hit, Impact, Severity
from rules.memmap_on_memory.self_hosted import hosts
from rules.model.memory.quotes import block_pfns, quote_blocks
from rules.model.memory.regions import Vmemmap
from rules.model.memory.walk import Outputs, PageWalk
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="HVO-05",
    name="hvo-over-self-hosted",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=("Linux commit 66361095129b (v6.0): hugetlb vmemmap optimisation refuses self-hosted struct pages",),
)
def over_self_hosted(vmemmap: Vmemmap, walk: PageWalk, blocks: BlockRows) -> Iterator[Hit]:
    """Struct pages of a memory block that holds its own were shared by the HugeTLB optimisation.

    What it means:
    The optimisation gives the pages that held the tails to the page allocator. In a block with
    memmap_on_memory they are part of the block's own reserved area, and removal frees them once more.

    How it is detected:
    Read-only entries that share a page, from the walk of a crash dump, in the struct pages of a block whose
    memory_block says that it holds them.

    When it is not a problem:
    Huge pages in other memory. Kernels since 6.0 refuse; before, the two features excluded each other.

    What to do:
    Do not remove the block. Reboot with one of hugetlb_free_vmemmap and memmap_on_memory off.
    """
    first, end = block_pfns(blocks, vmemmap.layout.pages_per_section)
    own = hosts(blocks)
    outputs = Outputs.of(vmemmap, walk)
    shared = outputs.shared()
    read_only = outputs[vmemmap.has(Attr.RDONLY)[outputs.row]]
    tails = read_only[shared.touches(read_only.pa, read_only.pa_end)]
    pfns = vmemmap.pfns(vmemmap.pages_touched(tails.offsets)) & Ranges.of(first[own], end[own])
    if pfns:
        offsets = vmemmap.of_pfns(pfns)
        yield Hit(
            title="The HugeTLB optimisation shared struct pages that a block holds itself",
            message=(
                f"{pfns.total} pages ({', '.join(f'PFNs {a:#x}-{b:#x}' for a, b in pfns.tuples()[:4])}) in blocks with "
                "their own struct pages have them shared, read-only: the pages after them were given away."
            ),
            claim=Claim.PROVEN,
            pfns=pfns,
            vas=vmemmap.va_ranges(offsets)[:64],
            evidence=vmemmap.quote_at(offsets)
            + quote_blocks(blocks, own[pfns.touches(first[own], end[own])], walk.source),
        )

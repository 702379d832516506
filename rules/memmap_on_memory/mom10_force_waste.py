"""MOM-10: memmap_on_memory=force that wastes memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.layout import KernelLayout
from parsers.meminfo import Meminfo
from parsers.memmap_on_memory import MemmapOnMemory, MemmapOnMemoryMode
from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.rule import NotApplicableError, UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="MOM-10",
    name="force-waste",
    severity=Severity.LOW,
    impact=Impact.WASTE,
    needs=(KernelLayout, MemmapOnMemory),
    uses=(Meminfo,),
    references=("mm/memory_hotplug.c memory_block_memmap_on_memory_pages() (v6.6)",),
)
def force_waste(layout: KernelLayout, parameter: MemmapOnMemory, *, meminfo: Meminfo | None) -> Iterator[Hit]:
    """Forced memmap_on_memory rounds every block's struct pages up to page blocks.

    What it means:
    With ``force`` a block gives up whole page blocks for its own struct pages, also where they need less; the
    rest of the last page block is never used.

    How it is detected:
    Block size, page size and sizeof(struct page) give the struct pages of a block; the page block is as
    large as a default huge page.

    When it is not a problem:
    Without ``force`` the kernel uses the feature only where nothing is wasted.

    What to do:
    Use memmap_on_memory=on, or larger memory blocks.
    """
    if parameter.mode is not MemmapOnMemoryMode.FORCE:
        raise NotApplicableError(f"memmap_on_memory is {parameter.mode}")
    if not layout.knows("block_size", "page_size"):
        raise UndecidedError("the memory block size is not known", "memory blocks")
    if layout.page_size != 4096:
        raise NotApplicableError(f"{layout.granule.name} pages: memmap_on_memory is never used (ENV-06)")
    block = layout.need("block_size")
    memmap = block // layout.page_size * (layout.get("struct_page_size") or 64)
    huge = meminfo.get("Hugepagesize") if meminfo is not None else None
    pageblock = huge or layout.granule.span(2)
    wasted = -memmap % pageblock
    if wasted:
        yield Hit(
            title=f"Every hot-added block wastes {wasted >> 10} KiB",
            message=(
                f"A block of {block >> 20} MiB needs {memmap >> 10} KiB of struct pages and gives up "
                f"{(memmap + wasted) >> 10} KiB: {wasted // layout.page_size} pages are wasted in each."
            ),
            claim=Claim.PROBABLE,
            evidence=(Evidence(parameter.path, parameter.raw, parameter.line),),
        )

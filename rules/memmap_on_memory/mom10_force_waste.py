"""MOM-10: memmap_on_memory=force that wastes memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.arm64 import PMD
from parsers.kconfig import Kconfig
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
    references=(
        "mm/memory_hotplug.c memory_block_memmap_on_memory_pages(), mhp_supports_memmap_on_memory() (v6.6 to 6.12)",
        "include/linux/pageblock-flags.h pageblock_order (v6.12)",
    ),
)
def force_waste(
    layout: KernelLayout, parameter: MemmapOnMemory, *, kconfig: Kconfig | None, meminfo: Meminfo | None
) -> Iterator[Hit]:
    """Forced memmap_on_memory rounds every block's struct pages up to page blocks.

    What it means:
    With ``force`` a block gives up whole page blocks for its own struct pages, also where they need less; the
    rest of the last page block is never used.

    How it is detected:
    Block size, page size and sizeof(struct page) give the struct pages of a block. A page block is a PMD's span
    where the kernel has huge pages, and the largest allocation where it has none.

    When it is not a problem:
    Without ``force`` the kernel uses the feature only where nothing is wasted. Where the struct pages of a
    block are not a whole number of PMD blocks it is never used (ENV-06), whatever waste the log announces.

    What to do:
    Use memmap_on_memory=on, or larger memory blocks.
    """
    if parameter.mode is not MemmapOnMemoryMode.FORCE:
        raise NotApplicableError(f"memmap_on_memory is {parameter.mode}")
    block = layout.need("block_size")
    memmap = block // layout.page_size * layout.struct_page_size
    if memmap % layout.granule.span(PMD):
        raise NotApplicableError("a block's struct pages are not a whole number of PMD blocks: never used (ENV-06)")
    wasted = -memmap % _page_block(layout, kconfig, meminfo)
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


def _page_block(layout: KernelLayout, kconfig: Kconfig | None, meminfo: Meminfo | None) -> int:
    """Bytes of a page block."""
    if meminfo is not None and meminfo.get("Hugepagesize") is not None:
        return layout.granule.span(PMD)
    if kconfig is None:
        raise UndecidedError("whether the kernel has huge pages is not known", Kconfig)
    if kconfig.is_enabled("CONFIG_HUGETLB_PAGE") or kconfig.is_enabled("CONFIG_TRANSPARENT_HUGEPAGE"):
        return layout.granule.span(PMD)
    order = kconfig.integer("CONFIG_ARCH_FORCE_MAX_ORDER")
    if order is None:
        raise UndecidedError("the largest allocation is not known", Kconfig)
    return layout.page_size << order

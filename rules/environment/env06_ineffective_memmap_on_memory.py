"""ENV-06: memmap_on_memory on a kernel where it cannot work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.arm64 import PMD
from parsers.layout import KernelLayout
from parsers.memmap_on_memory import MemmapOnMemory, MemmapOnMemoryMode
from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="ENV-06",
    name="ineffective-memmap-on-memory",
    severity=Severity.INFO,
    impact=Impact.INFORMATIONAL,
    references=("arch/arm64: the struct pages of a block must be a multiple of PMD_SIZE (v5.13)",),
)
def ineffective(layout: KernelLayout, parameter: MemmapOnMemory) -> Iterator[Hit]:
    """memmap_on_memory is asked for and has no effect.

    What it means:
    The struct pages of a memory block must fill whole PMD blocks. With 16K and 64K pages they never do
    (512 KiB against 32 or 512 MiB), so the kernel silently allocates them elsewhere.

    How it is detected:
    The parameter, the page size and the block size.

    When it is not a problem:
    Memory hotplug works; only the struct pages come from other memory.

    What to do:
    Do not count on the feature for adding memory to a machine that is short of it.
    """
    if parameter.mode is MemmapOnMemoryMode.OFF:
        return
    # A memory block of arm64 is a section.
    if layout.section_size // layout.page_size * layout.struct_page_size % layout.granule.span(PMD):
        yield Hit(
            title="memmap_on_memory has no effect on this kernel",
            message=(
                f"memmap_on_memory is {parameter.mode}; with {layout.granule.name} pages a block's struct pages are "
                "not a whole number of PMD blocks."
            ),
            claim=Claim.PROVEN,
            evidence=(Evidence(parameter.path, parameter.raw, parameter.line),),
        )

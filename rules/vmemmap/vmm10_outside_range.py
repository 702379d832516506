"""VMM-10: struct pages where none can be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.ranges import Ranges
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.memory.regions import Vmemmap
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_PA_BITS = 52


@rule(
    code="VMM-10",
    name="vmemmap-outside-range",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=("arch/arm64/mm/mmu.c vmemmap_populate(), vmemmap_free(): the range checks that warn (v5.10 to 6.12)",),
)
def vmemmap_outside_range(vmemmap: Vmemmap) -> Iterator[Hit]:
    """The vmemmap area maps struct pages of page frames that cannot exist.

    What it means:
    A vmemmap mapping describes a physical address beyond 52 bits, or below zero: the tables are
    corrupt, or struct pages were populated for a wrong range.

    How it is detected:
    Each mapped struct page is turned into its PFN, which must be one that Arm can address.

    When it is not a problem:
    A wrong sizeof(struct page) or PHYS_OFFSET shifts everything; both are printed with their source.

    What to do:
    Check the layout in the report. If it is right, take a crash dump and stop memory hotplug.
    """
    layout = vmemmap.layout
    pfns = vmemmap.pfns(vmemmap.pages_touched(vmemmap.mapped))
    impossible = pfns - Ranges.one(0, 1 << (MAX_PA_BITS - layout.page_shift))
    if impossible:
        offsets = vmemmap.of_pfns(impossible)
        inferred = layout.facts["phys_offset"].precision == "inferred"
        yield Hit(
            title="Struct pages of impossible page frames are mapped",
            message=f"{impossible.total} struct pages describe page frames outside of the 52-bit physical space.",
            claim=Claim.SUSPECTED if inferred else Claim.PROVEN,
            severity=Severity.HIGH if inferred else None,
            vas=vmemmap.va_ranges(offsets)[:16],
            evidence=vmemmap.quote_at(offsets),
        )

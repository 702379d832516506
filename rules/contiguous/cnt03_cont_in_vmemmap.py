"""CNT-03: the contiguous bit in the vmemmap area."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.arm64 import Attr
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.memory.regions import Vmemmap
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="CNT-03",
    name="contiguous-in-vmemmap",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=("arch/arm64/mm/mmu.c vmemmap_free(): contiguous entries are not supported there (7.1, 6.12.86)",),
)
def contiguous_in_vmemmap(vmemmap: Vmemmap) -> Iterator[Hit]:
    """Struct pages are mapped with the Contiguous bit.

    What it means:
    No arm64 kernel sets the Contiguous bit in the vmemmap area, and removal there clears entries one
    by one: runs would be left half valid.

    How it is detected:
    Any row of the vmemmap area with the Contiguous bit.

    When it is not a problem:
    The linear map, the kernel image and vmalloc use contiguous runs legitimately; they are not looked at here.

    What to do:
    Take a crash dump, and look for code that writes page tables on its own.
    """
    rows = vmemmap.valid & vmemmap.has(Attr.CONT)
    if rows.any():
        offsets = vmemmap.where(rows)
        yield Hit(
            title="Struct pages are mapped with contiguous entries",
            message=f"{offsets.total >> 10} KiB of the vmemmap area have the Contiguous bit set.",
            claim=Claim.PROVEN,
            vas=vmemmap.va_ranges(offsets),
            evidence=vmemmap.quote(rows),
        )

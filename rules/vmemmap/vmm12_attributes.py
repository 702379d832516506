"""VMM-12: struct pages mapped with wrong attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import Attr, MemType
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.memory.regions import Vmemmap
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOT_NORMAL = (MemType.DEVICE_nGnRnE, MemType.DEVICE_nGnRE, MemType.DEVICE_GRE, MemType.NORMAL_NC)


@rule(
    code="VMM-12",
    name="vmemmap-attributes",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=("arch/arm64/mm/mmu.c vmemmap_populate(): PROT_SECT_NORMAL and PAGE_KERNEL (v4.14 to 6.18)",),
)
def vmemmap_attributes(vmemmap: Vmemmap) -> Iterator[Hit]:
    """Struct pages are mapped executable, for user space, or not as Normal memory.

    What it means:
    The kernel maps struct pages as Normal write-back memory, never executable and never for user
    space. Anything else means corrupt tables; device or non-cacheable struct pages break atomics.

    How it is detected:
    The attributes of every mapped row in the vmemmap area.

    When it is not a problem:
    Read-only rows are another matter (HVO-02). vmemmap is plain Normal also where the linear map is tagged.

    What to do:
    Take a crash dump. Look for modules that write page tables.
    """
    wrong = {
        "mapped as device or non-cacheable memory": np.isin(vmemmap.memtype, _NOT_NORMAL),
        "accessible from user space": vmemmap.has(Attr.USER),
        "executable": ~vmemmap.has(Attr.PXN) | ~vmemmap.has(Attr.UXN),
    }
    for what, mask in wrong.items():
        rows = vmemmap.valid & mask
        if rows.any():
            offsets = vmemmap.where(rows)
            yield Hit(
                title=f"Struct pages are {what}",
                message=f"{offsets.total >> 10} KiB of the vmemmap area are {what}.",
                claim=Claim.PROVEN,
                severity=Severity.HIGH if what == "executable" else None,
                vas=vmemmap.va_ranges(offsets),
                evidence=vmemmap.quote(rows),
                key=what,
            )

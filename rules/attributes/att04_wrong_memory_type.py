"""ATT-04: RAM mapped as device or non-cacheable memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import MemType
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.coverage import LinearMap
from rules.model.sections import SectionTable
from rules.rule import UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOT_CACHED = (MemType.DEVICE_nGnRnE, MemType.DEVICE_nGnRE, MemType.DEVICE_GRE, MemType.NORMAL_NC)


@rule(
    code="ATT-04",
    name="wrong-memory-type",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    needs=(LinearMap,),
    uses=(SectionTable,),
    references=("mm/memremap.c: PCI peer-to-peer memory is mapped with pgprot_noncached() (v5.7)",),
)
def wrong_memory_type(linear: LinearMap, *, section_table: SectionTable | None) -> Iterator[Hit]:
    """The linear map of RAM is device or non-cacheable memory.

    What it means:
    RAM is Normal write-back memory. A device mapping of it loses coherency with every other
    mapping, and unaligned or atomic accesses fault.

    How it is detected:
    Rows of the linear map with a device or non-cacheable type, over System RAM or a memory block.

    When it is not a problem:
    Peer-to-peer memory of PCI devices lies in the linear map as device memory; it is no RAM.

    What to do:
    Take a crash dump, find out who changed the attributes.
    """
    rows = linear.valid & np.isin(linear.memtype, _NOT_CACHED)
    if not rows.any():
        return
    if section_table is None:
        raise UndecidedError("what the device mappings in the linear map belong to is not known", SectionTable)
    wrong = linear.pfns(linear.pages_touched(linear.where(rows)))
    ram = wrong & (section_table.ram | section_table.blocks)
    if ram:
        offsets = linear.offsets(ram.shift(-linear.layout.start_pfn))
        yield Hit(
            title="RAM is mapped as device or non-cacheable memory",
            message=f"{ram.total} pages of RAM are mapped in the linear map with a device or non-cacheable type.",
            claim=max(section_table.claim, Claim.PROBABLE),
            pfns=ram,
            vas=linear.va_ranges(offsets),
            evidence=linear.quote(np.flatnonzero(rows & offsets.touches(linear.start, linear.end))),
        )

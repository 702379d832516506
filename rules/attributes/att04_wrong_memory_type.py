"""ATT-04: RAM mapped as device or non-cacheable memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import MemType
from parsers.mapping import Mapping
from parsers.ranges import Ranges, distinct
from rules.finding import Claim, Evidence, Hit, Impact, Severity, VaRange
from rules.model.memory.regions import LinearMap
from rules.model.memory.sections import SectionTable
from rules.model.memory.walk import Outputs, PageWalk
from rules.rule import UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEVICE = (MemType.DEVICE_nGnRnE, MemType.DEVICE_nGnRE, MemType.DEVICE_GRE)
_NOT_CACHED = (*_DEVICE, MemType.NORMAL_NC)
MAX_ALIASES = 64


@rule(
    code="ATT-04",
    name="wrong-memory-type",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=(
        "mm/memremap.c: PCI peer-to-peer memory is mapped with pgprot_noncached() (v5.7)",
        "Arm ARM B2.16: mismatched memory attributes",
    ),
)
def wrong_memory_type(
    linear: LinearMap, *, section_table: SectionTable | None, page_walk: PageWalk | None
) -> Iterator[Hit]:
    """RAM is mapped as device or non-cacheable memory, in the linear map or beside it.

    What it means:
    RAM is Normal write-back memory. A device mapping of it loses coherency with every other
    mapping, and unaligned or atomic accesses fault.

    How it is detected:
    Rows of the linear map with a device or non-cacheable type, over System RAM or a memory block. In a crash
    dump also the output addresses of device mappings elsewhere (ioremap) that the linear map holds as RAM.

    When it is not a problem:
    Peer-to-peer memory of PCI devices lies in the linear map as device memory; it is not RAM. Non-cacheable
    aliases of RAM are DMA buffers.

    What to do:
    Take a crash dump, find out who changed the attributes (/proc/vmallocinfo names who mapped an address).
    """
    if page_walk is not None:
        yield from _aliases(linear, section_table, page_walk, linear.mapping)
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
    section_table.need_whole_lists()


def _aliases(linear: LinearMap, sections: SectionTable | None, walk: PageWalk, mapping: Mapping) -> Iterator[Hit]:
    """Device mappings outside of the linear map, of memory that the linear map holds as cacheable."""
    outputs = Outputs.of(linear, walk)
    cached = outputs[np.isin(linear.memtype[outputs.row], (MemType.NORMAL, MemType.NORMAL_TAGGED))].memory
    if mapping.pa is None:
        return
    device = mapping.valid & np.isin(mapping.memtype, _DEVICE) & ~walk.repeated
    device[linear.rows] = False
    chosen = np.flatnonzero(device)
    start = mapping.pa[chosen].astype(np.int64)
    end = start + mapping.size[chosen].astype(np.int64)
    memory = (sections.ram | sections.blocks).scale(linear.layout.page_size) if sections is not None else cached
    both = cached & memory
    for row in chosen[both.touches(start, end)].tolist()[:MAX_ALIASES]:
        va, size, pa = int(mapping.start[row]), int(mapping.size[row]), int(mapping.pa[row])
        hit = both & Ranges.one(pa, pa + size)
        yield Hit(
            title="RAM has a device mapping beside its cacheable one",
            message=(
                f"{MemType(int(mapping.memtype[row])).name} at {va:#x} leads to physical {int(hit.start[0]):#x}-"
                f"{int(hit.end[-1]):#x}, which the linear map holds as Normal memory."
            ),
            claim=Claim.PROVEN,
            pfns=hit.divide(linear.layout.page_size, outward=True),
            vas=(VaRange(va, va + size, linear.layout.region_of(va)),),
            evidence=(
                Evidence(mapping.source, mapping.describe(row)),
                *linear.quote(distinct(outputs[hit.touches(outputs.pa, outputs.pa_end)].row)),
            ),
            key="alias",
        )

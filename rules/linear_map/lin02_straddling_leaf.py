"""LIN-02: a leaf of the linear map reaches across the edge of what one removal takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.ranges import Ranges, distinct
from rules.finding import Hit, Impact, Severity
from rules.model.memory.regions import LinearMap
from rules.model.memory.sections import SectionTable
from rules.rule import UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.mapping import I64


@rule(
    code="LIN-02",
    name="leaf-straddles-removable-boundary",
    severity=Severity.HIGH,
    impact=Impact.LATENT,
    references=(
        "Linux commit f0b13ee23241 (v5.12): sections of 128 MiB, smaller than a 1 GiB block",
        "Linux commit 95a58852b0e5 (v7.1): offlining is refused where a leaf would split",
    ),
)
def straddling_leaf(linear: LinearMap, sections: SectionTable) -> Iterator[Hit]:
    """A block or contiguous run of the linear map covers more than one removable unit.

    What it means:
    Removing one unit clears the whole leaf: the linear map of the neighbours under the same leaf goes
    with it (LIN-03), or entries of a contiguous run are left behind (CNT-01).

    How it is detected:
    The edges of every hot-added memory block and device range are looked up in the linear map; an
    edge strictly inside of a leaf is reported with all units under that leaf.

    When it is not a problem:
    Boot memory cannot be removed on arm64. Memory that leaves exactly as it was added (a whole DIMM)
    takes the whole leaf with it; only the removal of less than was added does harm. Blocks of plain RAM
    are therefore of medium severity: nothing shows how they were added.

    What to do:
    Remove memory only in the units in which it was added. Boot with rodata=full to map the linear map
    with pages, or add memory in units no larger than those removed.
    """
    units = sections.units
    size = linear.leaf_size
    edges = distinct(np.concatenate((units.start_pfn, units.end_pfn)))
    straddled = _straddled(linear, edges, size)
    for leaf_start, leaf_end, row in straddled:
        pfns = linear.pfns(linear.pages(Ranges.one(leaf_start, leaf_end)))
        under = np.flatnonzero(pfns.touches(units.start_pfn, units.end_pfn))
        if under.size < 2 and pfns & (sections.unlisted | sections.unnamed):
            continue  # what else the leaf covers is in no list: it may be of the same unit
        separate = bool(sections.device.touches(units.start_pfn[under], units.end_pfn[under]).any())
        yield Hit(
            title=f"One linear-map leaf covers {under.size} removable ranges",
            message=(
                f"A leaf of {(leaf_end - leaf_start) >> 20} MiB at {linear.va(leaf_start):#x} covers "
                f"{', '.join(units.label[i] for i in under[:8].tolist())}: removing one takes the others' linear map."
                + ("" if separate else " Memory blocks that were added together and leave together are safe.")
            ),
            claim=sections.claim,
            severity=None if separate else Severity.MEDIUM,
            pfns=pfns & (sections.hotadded | sections.device),
            vas=linear.va_ranges(Ranges.one(leaf_start, leaf_end)),
            evidence=linear.quote([row]) + units.evidence(under),
        )
    large = linear.pfns(linear.pages(linear.where(linear.valid & (size > linear.page_bytes))))
    if large & sections.unlisted:
        sections.need_whole_lists()
    if unnamed := large & sections.unnamed:
        message = f"/proc/iomem does not name {unnamed.total} pages under large leaves: it may be cut"
        raise UndecidedError(message, "iomem")
    unknown = sections.early_unknown if sections.blocks_known else sections.valid - sections.early - sections.device
    over_sections = linear.valid & (size > sections.pages_per_section * linear.page_bytes)
    if unknown & linear.pfns(linear.pages(linear.where(over_sections))):
        raise UndecidedError(
            "whether the memory under large leaves can be removed in parts is not known", "dmesg", "memory blocks"
        )
    if not sections.devices_known and large - sections.ram_sections:
        raise UndecidedError("what the large leaves outside of RAM belong to is not known", "iomem")


def _straddled(linear: LinearMap, edges: I64, size: I64) -> list[tuple[int, int, int]]:
    """Start, end and row of the leaves that an edge lies strictly inside of."""
    offset = (edges - linear.layout.start_pfn) * linear.page_bytes
    offset = offset[linear.mapped.contains(offset)]
    row = np.searchsorted(linear.start, offset, side="right") - 1
    # Leaves are aligned in the virtual address space, and the region's base is aligned to every leaf.
    start = offset // size[row] * size[row]
    inside = start != offset
    start, first = np.unique(start[inside], return_index=True)
    row = row[inside][first]
    return list(zip(start.tolist(), (start + size[row]).tolist(), row.tolist(), strict=True))

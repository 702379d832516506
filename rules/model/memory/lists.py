"""What the lists of memory name one by one, and whether a list is seen to lack lines.

/proc/iomem has all memory from boot, "System RAM" and no-map memory, and whatever was added; the memory blocks of
sysfs stand for all memory that can be online.  /proc/zoneinfo is a witness of both: a zone's ``present`` pages are
online memory, and its span begins and ends in such a section (mm/memory_hotplug.c resize_zone_range(),
shrink_zone_span(), adjust_present_page_count(); mm/mm_init.c for boot memory).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from parsers.ranges import EMPTY, Ranges
from parsers.records import dataclass
from rules.finding import Evidence

if TYPE_CHECKING:
    from parsers.layout import KernelLayout
    from parsers.mapping import I64, Bool
    from parsers.memory_blocks import MemoryBlocks
    from parsers.zoneinfo import Zoneinfo
    from rules.model.memory.resources import Resources

__all__ = ["NO_UNITS", "Lacking", "Units", "device_units", "lacks_boot_memory", "memory_block_units", "what_lists_lack"]


_LARGEST_PAGE = 1 << 16


class Lacking(NamedTuple):
    """What shows that lines of a list are missing, and what to collect again."""

    reason: str
    collect: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Units:
    """Ranges that were added by one operation and leave by one: columns, ascending ``start_pfn``."""

    start_pfn: I64
    end_pfn: I64
    label: tuple[str, ...]
    line: tuple[int | None, ...]
    source: str

    def __len__(self) -> int:
        return len(self.label)

    def evidence(self, chosen: I64) -> tuple[Evidence, ...]:
        """Where the chosen units were seen."""
        return tuple(
            Evidence(
                self.source,
                f"{self.label[row]}: PFNs {int(self.start_pfn[row]):#x}-{int(self.end_pfn[row]):#x}",
                self.line[row],
            )
            for row in chosen.tolist()
        )

    def starting_in(self, pfns: Ranges) -> Units:
        """The units whose first page is in ``pfns``."""
        chosen = np.flatnonzero(pfns.contains(self.start_pfn))
        return Units(
            self.start_pfn[chosen],
            self.end_pfn[chosen],
            tuple(self.label[row] for row in chosen.tolist()),
            tuple(self.line[row] for row in chosen.tolist()),
            self.source,
        )

    def share_a_section(self, first: I64, after: I64, pages_per_section: int) -> Bool:
        """Of each run ``[first, after)`` of neighbouring units, whether one begins inside a section of another."""
        inside = np.append(0, np.cumsum(self.start_pfn % pages_per_section != 0))
        return np.asarray((after - first > 1) & (inside[after] > inside[np.minimum(first + 1, after)]))


NO_UNITS = Units(EMPTY.start, EMPTY.end, (), (), "")


def memory_block_units(blocks: MemoryBlocks | None, layout: KernelLayout) -> Units:
    """Memory blocks as units, ascending."""
    if blocks is None or not blocks.block_size_bytes:
        return NO_UNITS
    pages = blocks.block_size_bytes // layout.page_size
    order = np.argsort(blocks.block, kind="stable")
    number = blocks.block[order]
    line = np.zeros(order.size, dtype=np.uint32) if blocks.line is None else blocks.line[order]
    labels = tuple(f"memory{one}" for one in number.tolist())
    return Units(number * pages, (number + 1) * pages, labels, tuple(one or None for one in line.tolist()), blocks.path)


def device_units(resources: Resources | None, pages: Ranges, layout: KernelLayout) -> Units:
    """Claimed device ranges, as far as they have ``pages``, in whole subsections."""
    if resources is None:
        return NO_UNITS
    unit = layout.pages_per_subsection
    rows: list[tuple[int, int, str, int]] = []
    for device in resources.devices:
        claimed = Ranges.one(device.start // layout.page_size, -(-device.end // layout.page_size))
        rows += [(lo, hi, device.name, device.line) for lo, hi in (claimed & pages).shrink(unit).tuples()]
    rows.sort()
    table = np.array([row[:2] for row in rows], dtype=np.int64).reshape(-1, 2)
    names, lines = tuple(row[2] for row in rows), tuple(row[3] for row in rows)
    return Units(table[:, 0], table[:, 1], names, lines, resources.iomem.path)


def lacks_boot_memory(resources: Resources | None, boot_memory: Ranges) -> bool:
    """Whether /proc/iomem lacks memory of a boot log, which stays: it is cut, or the log is of another boot.

    The edges of pages are not compared.
    """
    return resources is not None and bool(boot_memory.shrink(_LARGEST_PAGE) - resources.everything)


def what_lists_lack(
    layout: KernelLayout,
    resources: Resources | None,
    blocks: MemoryBlocks | None,
    zoneinfo: Zoneinfo | None,
    boot_memory: Ranges | None,
) -> Lacking | None:
    """What shows that a list lacks lines; None where nothing does."""
    if boot_memory is not None and lacks_boot_memory(resources, boot_memory):
        reason = "/proc/iomem lacks memory that the boot log lists: it may be cut, or the log is of another boot"
        return Lacking(reason, ("iomem", "dmesg"))
    if blocks is not None and not blocks.complete:
        return Lacking("lines of the list of memory blocks are missing", ("memory blocks",))
    units = memory_block_units(blocks, layout)
    if len(units) and resources is not None:
        nomap = resources.pfns(resources.nomap, layout.page_size).widen(layout.pages_per_section)
        if nomap - Ranges.of(units.start_pfn, units.end_pfn):
            reason = "no-map memory of /proc/iomem has no memory block: the list of blocks may be cut"
            return Lacking(reason, ("memory blocks", "iomem"))
    if zoneinfo is None:
        return None
    rows = np.flatnonzero((zoneinfo.start_pfn >= 0) & (zoneinfo.present > 0))
    start, present = zoneinfo.start_pfn[rows], zoneinfo.present[rows]
    end = start + zoneinfo.spanned[rows]
    lists: list[tuple[str, str, Ranges]] = []
    if resources is not None:
        memory = resources.pfns(resources.ram | resources.nomap, layout.page_size)
        lists.append(("/proc/iomem", "iomem", memory))
    if blocks is not None and len(units):
        online = blocks.online[np.argsort(blocks.block, kind="stable")]
        memory = Ranges.of(units.start_pfn[online], units.end_pfn[online])
        lists.append(("the list of memory blocks", "memory blocks", memory))
    for what, kind, memory in lists:
        sections = memory.widen(layout.pages_per_section)  # a span may begin and end with a hole of a section
        short = (memory.covered(start, end) < present) | ~sections.contains(start) | ~sections.contains(end - 1)
        if short.any():
            row = int(np.flatnonzero(short)[0])
            zone = f"zone {zoneinfo.zone[rows[row]]} of node {int(zoneinfo.node[rows[row]])}"
            reason = (
                f"{what} has less memory than {zone} in /proc/zoneinfo, {int(present[row])} pages from PFN "
                f"{int(start[row]):#x} to {int(end[row]):#x}: it may be cut, or of another moment"
            )
            return Lacking(reason, (kind, "zoneinfo"))
    return None

"""Single vmemmap leaves: a dump's row merges neighbours, every aligned piece of it is one leaf."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import Attr
from parsers.ranges import Ranges
from rules.finding import VaRange

if TYPE_CHECKING:
    from parsers.mapping import I64, Bool
    from rules.model.coverage import Vmemmap

__all__ = ["Blocks"]


@dataclass(frozen=True, eq=False)
class Blocks:
    """Block leaves of the vmemmap area, one row a leaf."""

    vmemmap: Vmemmap
    row: I64
    """Row of the region that the leaf is part of."""
    start: I64
    """Byte offset in the region."""
    end: I64
    start_pfn: I64
    """First PFN whose struct page the leaf holds, if only a part of it."""
    end_pfn: I64

    @classmethod
    def of(cls, vmemmap: Vmemmap, mask: Bool, at: Ranges) -> Blocks:
        """The leaves of the block rows in ``mask`` that describe any PFN of ``at``."""
        rows = np.flatnonzero(mask & vmemmap.valid & vmemmap.has(Attr.BLOCK))
        size = np.array([vmemmap.layout.granule.span(int(level)) for level in vmemmap.level[rows]], dtype=np.int64)
        offsets = vmemmap.of_pfns(at)
        count = np.where(
            offsets.touches(vmemmap.start[rows], vmemmap.end[rows]), vmemmap.end[rows] - vmemmap.start[rows], 0
        )
        count //= np.maximum(size, 1)
        row = np.repeat(rows, count)
        step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        start = vmemmap.start[row] + step * np.repeat(size, count)
        end = start + np.repeat(size, count)
        used = offsets.touches(start, end)
        start, end = start[used], end[used]
        first, struct_page = vmemmap.layout.start_pfn, vmemmap.layout.struct_page_size
        return cls(vmemmap, row[used], start, end, start // struct_page + first, -(-end // struct_page) + first)

    def touching(self, pfns: Ranges) -> Bool:
        """Which leaves describe any of ``pfns``."""
        return pfns.touches(self.start_pfn, self.end_pfn)

    def va(self, index: int) -> int:
        """Address of a leaf."""
        return self.vmemmap.va(int(self.start[index]))

    def va_range(self, index: int) -> tuple[VaRange, ...]:
        """Addresses of a leaf."""
        return self.vmemmap.va_ranges(Ranges.one(int(self.start[index]), int(self.end[index])))

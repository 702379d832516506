"""Single vmemmap leaves: a dump's row merges neighbours, every aligned piece of it is one leaf."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import PMD
from parsers.ranges import Ranges
from parsers.records import dataclass

if TYPE_CHECKING:
    from parsers.mapping import I64, Bool
    from rules.model.memory.regions import Vmemmap

__all__ = ["Blocks"]


@dataclass(frozen=True, eq=False)
class Blocks:
    """PMD blocks of the vmemmap area, one row a leaf."""

    start: I64
    """Byte offset in the region."""
    end: I64
    start_pfn: I64
    """First PFN whose struct page the leaf holds, if only a part of it."""
    end_pfn: I64

    @classmethod
    def of(cls, vmemmap: Vmemmap, at: Ranges) -> Blocks:
        """The PMD blocks that describe any PFN of ``at``."""
        size = vmemmap.layout.granule.span(PMD)
        blocks = vmemmap.where(vmemmap.valid & (vmemmap.level == PMD)) & vmemmap.widen(vmemmap.of_pfns(at), size)
        count = (blocks.end - blocks.start) // size
        number = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        start = np.repeat(blocks.start, count) + number * size
        first, struct_page = vmemmap.layout.start_pfn, vmemmap.layout.struct_page_size
        return cls(start, start + size, start // struct_page + first, -(-(start + size) // struct_page) + first)

    @property
    def pages(self) -> I64:
        """How many pages each describes, if only a part of them."""
        return self.end_pfn - self.start_pfn

    def touching(self, pfns: Ranges) -> Bool:
        """Which leaves describe any of ``pfns``."""
        return pfns.touches(self.start_pfn, self.end_pfn)

    def offsets(self, chosen: Bool | I64) -> Ranges:
        """Byte offsets of the chosen leaves."""
        return Ranges.of(self.start[chosen], self.end[chosen])

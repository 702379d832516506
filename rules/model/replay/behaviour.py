"""What each generation of arm64 kernels does with struct pages at hot-add (one table), and what a trace shows of it.

arch/arm64/mm/mmu.c vmemmap_populate() and mm/sparse-vmemmap.c, 5.0 to 7.3.  What a trace shows beats the release;
without either, an unknown kernel may do both.  vmemmap_populate_hugepages() asks for a block and falls back to pages,
both inlined; what it asked for is seen in vmemmap_alloc_block_buf(), or else in the page allocator.
"""

from __future__ import annotations

from enum import IntEnum
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from parsers.ftrace.functions import Kind
from parsers.ranges import distinct
from parsers.records import dataclass
from rules.model.bugs import bug
from rules.model.replay.calls import innermost

if TYPE_CHECKING:
    from parsers.mapping import I8, I64, Bool
    from parsers.uname import KernelRelease
    from rules.model.replay.calls import Calls

__all__ = ["Behaviour", "Leaf", "leaves_of"]


class Leaf(IntEnum):
    """What maps struct pages."""

    UNKNOWN = -1
    NONE = 0
    PTE = 1
    PMD = 2


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How this kernel populates; ``whole_sections_only`` is None where either may be."""

    page_size: int
    pages_per_section: int
    whole_sections_only: bool | None
    """Blocks for whole sections only (d4234d131b0a), or for whatever is added."""
    source: str

    @classmethod
    def of(cls, page_size: int, pages_per_section: int, release: KernelRelease | None, seen: bool | None) -> Behaviour:
        """The behaviour; ``seen`` is what the trace itself betrays."""
        if seen is not None:
            return cls(page_size, pages_per_section, seen, "the trace")
        if release is None:
            return cls(page_size, pages_per_section, None, "an unknown kernel")
        if bug("partial-section-pmd").possible_in(release):
            unfixed = None if release.is_vendor else False  # a vendor may have fixed it without telling
            return cls(page_size, pages_per_section, unfixed, f"release {release.raw}")
        return cls(page_size, pages_per_section, True, f"release {release.raw}")

    def leaf(self, nr_pages: int) -> Leaf:
        """What maps the struct pages of ``nr_pages`` pages added to one section."""
        if self.page_size != 4096:
            return Leaf.PTE
        if nr_pages >= self.pages_per_section or self.whole_sections_only is False:
            return Leaf.PMD
        return Leaf.UNKNOWN if self.whole_sections_only is None else Leaf.PTE

    def pieces(self, first_pfn: int, end_pfn: int) -> list[tuple[int, int, Leaf]]:
        """``[first, end)`` cut where __add_pages() cuts it, at the edges of sections, equal neighbours joined."""
        size = self.pages_per_section
        inner, outer = -(-first_pfn // size) * size, end_pfn // size * size
        if inner >= outer:
            cuts = sorted({first_pfn, *(cut for cut in (inner,) if first_pfn < cut < end_pfn), end_pfn})
        else:
            cuts = sorted({first_pfn, inner, outer, end_pfn})
        return [(low, high, self.leaf(high - low)) for low, high in pairwise(cuts)]


_PMD_BYTES = 2 << 20
_PMD_ORDER = 9


def leaves_of(calls: Calls) -> tuple[I8, Bool]:
    """(`Leaf` that each populate or add was seen to use, whether vmemmap_populate_hugepages() was called in it)."""
    leaf = np.full(len(calls), Leaf.UNKNOWN, dtype=np.int8)
    huge = np.zeros(len(calls), dtype=np.bool_)
    huge[_populates_of(calls, Kind.VMEMMAP_POPULATE_HUGEPAGES)] = True
    leaf[huge] = Leaf.PMD
    leaf[_from_allocator(calls, _PMD_ORDER)] = Leaf.PMD
    leaf[_populates_of(calls, Kind.VMEMMAP_SET_PMD)] = Leaf.PMD
    leaf[_populates_of(calls, Kind.VMEMMAP_CHECK_PMD)] = Leaf.PMD
    leaf[_populates_of(calls, Kind.VMEMMAP_POPULATE_BASEPAGES)] = Leaf.PTE
    asked = calls.of(Kind.VMEMMAP_ALLOC_BLOCK_BUF)
    size, known = calls.argument("size")
    by_pages = asked[known[asked] & (size[asked] < _PMD_BYTES)]
    leaf[calls.parent[by_pages][calls.parent[by_pages] >= 0]] = Leaf.PTE
    return leaf, huge


def _populates_of(calls: Calls, kind: Kind) -> I64:
    """The populates that a call of ``kind`` was part of."""
    outer = calls.parent[calls.of(kind)]
    outer = outer[outer >= 0]
    nested = calls.kind[outer] == Kind.VMEMMAP_POPULATE_HUGEPAGES
    outer = np.where(nested, calls.parent[outer], outer)
    return np.asarray(outer[outer >= 0])


def _from_allocator(calls: Calls, order: int) -> I64:
    """Adds without populate probes during which the page allocator gave out pages of ``order``."""
    events = calls.trace.events
    size, known = events.column("order")
    rows = np.flatnonzero((events.kind == Kind.MM_PAGE_ALLOC) & known & (size == order))
    adds = innermost(calls, Kind.ARCH_ADD_MEMORY, rows.astype(np.int64))
    return distinct(adds[adds >= 0])

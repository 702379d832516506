"""What each generation of arm64 kernels does with struct pages at hot-add: one table.

arch/arm64/mm/mmu.c vmemmap_populate() and mm/sparse-vmemmap.c, 5.0 to 7.3.  What a trace shows beats the
release, which beats nothing at all: an unknown kernel may do either.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import TYPE_CHECKING

from rules.model.kernels import bug

if TYPE_CHECKING:
    from parsers.uname import KernelRelease

__all__ = ["Behaviour", "Leaf"]


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

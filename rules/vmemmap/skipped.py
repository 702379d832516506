"""Which missing struct pages were never populated, as opposed to torn out: the line between VMM-08 and VMM-02."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.arm64 import PTE
from parsers.layout import Precision
from parsers.ranges import EMPTY

if TYPE_CHECKING:
    from parsers.ranges import Ranges
    from rules.model.memory.regions import Vmemmap
    from rules.model.memory.sections import SectionTable

__all__ = ["populate_skipped"]


def populate_skipped(vmemmap: Vmemmap, sections: SectionTable) -> Ranges:
    """PFNs of wholly valid, hot-added sections whose struct pages are empty entries in a last-level table.

    Hot-remove frees the tables that it empties, and clears blocks where a section was populated whole: only a
    table that was there before leaves such holes.  Nothing is returned where the section table is not exact, or
    where struct pages are always in base pages (16K, 64K).
    """
    if sections.precision is not Precision.EXACT or vmemmap.layout.page_size != 4096:
        return EMPTY
    unit = sections.pages_per_section
    whole = (sections.valid - sections.early).shrink(unit)
    holes = vmemmap.where(vmemmap.hole & (vmemmap.level == PTE))
    return whole & vmemmap.pfns(vmemmap.pages_touched(holes))

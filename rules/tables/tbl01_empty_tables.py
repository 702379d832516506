"""TBL-01: translation tables with nothing in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import PTE
from parsers.ranges import Ranges
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.memory.regions import LinearMap, RegionMap, Vmemmap
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator

BOUNDED_LEAK = 16
"""Empty tables that a few removals may leave at their edges: two edges with up to three levels each (2019 review)."""


@rule(
    code="TBL-01",
    name="empty-table-leak",
    severity=Severity.LOW,
    impact=Impact.WASTE,
    references=("arch/arm64/mm/mmu.c free_empty_tables() (v5.7, bbd6ec605c0f)",),
)
def empty_table_leak(linear: LinearMap, vmemmap: Vmemmap) -> Iterator[Hit]:
    """Empty translation tables are left in the linear map or the vmemmap area.

    What it means:
    Hot-remove frees the tables that it empties. A table without a single entry, still linked, is
    leaked memory; it also makes a later hot-add take another path (VMM-08).

    How it is detected:
    An empty row's level shows which table it is empty in: a last-level hole that spans what a whole
    table translates is an empty table; the same holds for the levels above.

    When it is not a problem:
    The vmalloc and fixmap areas never free tables, so they are not looked at. A few tables at the
    edges of removals are a known, bounded leak and reported as information only.

    What to do:
    Compare the number with the number of removals; report it if it grows with each.
    """
    for region in (linear, vmemmap):
        levels = empty_tables(region)
        count = sum(levels.values())
        if count:
            holes = _whole_tables(region, max(levels))
            yield Hit(
                title=f"{count} empty page tables in the {region.name} area",
                message=(
                    f"{count} translation tables of the {region.name} area hold no entry ("
                    + ", ".join(f"{number} at level {level}" for level, number in sorted(levels.items()))
                    + f"): {count * region.layout.page_size >> 10} KiB."
                ),
                claim=Claim.PROVEN,
                severity=Severity.LOW if count > BOUNDED_LEAK else Severity.INFO,
                vas=region.va_ranges(holes)[:64],
                evidence=region.quote_at(holes),
                key=region.name,
            )


def empty_tables(region: RegionMap) -> dict[int, int]:
    """Number of empty tables by their level."""
    first = region.layout.granule.first_level(region.layout.va_bits_actual)
    counts = {}
    for level in range(PTE, first, -1):
        span = region.layout.granule.span(level - 1)
        number = _whole_tables(region, level).total // span
        if number:
            counts[level] = number
    return counts


def _whole_tables(region: RegionMap, level: int) -> Ranges:
    """Byte offsets of empty rows of ``level`` that span whole tables of that level."""
    rows = np.equal(region.level, level) & region.hole
    return region.shrink(region.where(rows), region.layout.granule.span(level - 1))

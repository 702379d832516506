"""TBL-03: tables that an audited area shares with its neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import PTE
from parsers.layout import KernelLayout
from parsers.mapping import Mapping
from rules.finding import Claim, Evidence, Hit, Impact, Severity, VaRange
from rules.model.coverage import LinearMap, Vmemmap
from rules.model.walk import PageWalk
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.mapping import Bool


@rule(
    code="TBL-03",
    name="shared-edge-table",
    severity=Severity.INFO,
    impact=Impact.INFORMATIONAL,
    needs=(Mapping, KernelLayout, LinearMap, Vmemmap),
    uses=(PageWalk,),
    references=(
        "arch/arm64/mm/mmu.c free_empty_tables(): floor and ceiling keep tables that an edge goes through (v5.7)",
    ),
)
def shared_edge_table(
    mapping: Mapping, layout: KernelLayout, linear: LinearMap, vmemmap: Vmemmap, *, page_walk: PageWalk | None
) -> Iterator[Hit]:
    """An area that hot-remove frees tables of shares a table in use with the area beside it.

    What it means:
    Where the edge of the linear map or of the vmemmap area is not a multiple of what a table
    translates, one table serves both sides. vmalloc and fixmap walk it without the hotplug lock, so hot-remove
    must not free it when its own side is empty. Linux does not; a kernel that frees tables only because they
    are empty would.

    How it is detected:
    The edges of the areas against the span of a table of each level; reported where both sides are mapped.

    When it is not a problem:
    Always, on an unmodified kernel: this is what to know when a trace shows tables being freed.

    What to do:
    Nothing. On a vendor's kernel, see that its free_empty_tables() has a floor and a ceiling.
    """
    edges = {
        "linear": (linear.base + linear.first, linear.base + linear.size),
        "vmemmap": (vmemmap.base, vmemmap.base + vmemmap.size),
    }
    top = layout.granule.first_level(layout.va_bits_actual)
    for name, bounds in edges.items():
        for edge in bounds:
            for level in range(top + 1, PTE + 1):
                span = layout.granule.span(level - 1)
                start = edge // span * span
                if start != edge and _used(mapping, start, edge).any() and _used(mapping, edge, start + span).any():
                    yield _hit(mapping, page_walk, name, level, (start, edge, start + span))


def _used(mapping: Mapping, start: int, end: int) -> Bool:
    """Rows that translate anything in ``[start, end)``."""
    return np.asarray(mapping.valid & (mapping.start <= np.uint64(end - 1)) & (mapping.last >= np.uint64(start)))


def _hit(mapping: Mapping, walk: PageWalk | None, name: str, level: int, window: tuple[int, int, int]) -> Hit:
    start, edge, end = window
    rows = [int(np.flatnonzero(_used(mapping, start, edge))[-1]), int(np.flatnonzero(_used(mapping, edge, end))[0])]
    evidence = [
        Evidence(mapping.source, mapping.describe(row), None if mapping.line is None else int(mapping.line[row]))
        for row in rows
    ]
    if walk is not None:
        here = (walk.tables.level == level) & (walk.tables.va == np.uint64(start))
        evidence += [
            Evidence(walk.source, f"the table is at {pa:#x}", address=pa) for pa in walk.tables.pa[here].tolist()
        ]
    return Hit(
        title=f"The {name} area shares a level {level} table with its neighbour",
        message=(
            f"The edge of the {name} area at {edge:#x} lies inside of what one level {level} table translates "
            f"({start:#x}-{end:#x}), and both sides are in use."
        ),
        claim=Claim.PROVEN,
        vas=(VaRange(edge, end, name),),
        evidence=tuple(evidence),
    )

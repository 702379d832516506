"""TBL-03: tables that an audited area shares with its neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from parsers.arm64 import PTE
from parsers.layout import KernelLayout
from parsers.mapping import Mapping
from rules.finding import Claim, Evidence, Hit, Impact, Severity, VaRange
from rules.model.memory.snapshots import Earlier
from rules.rule import NotApplicableError, UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Shared(NamedTuple):
    """A table that an edge of an area goes through."""

    area: str
    level: int
    first: int
    """First and last address that it translates."""
    last: int
    beside: tuple[int, int]
    """First and end, or last, of those that are not the area's."""


@rule(
    code="TBL-03",
    name="shared-edge-table",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=(
        "arch/arm64/mm/mmu.c free_empty_tables(): floor and ceiling keep tables that an edge goes through "
        "(bbd6ec605c0f, v5.7, with the first teardown)",
    ),
)
def shared_edge_table(
    mapping: Mapping,
    layout: KernelLayout,
    *,
    earlier: Earlier | None,
) -> Iterator[Hit]:
    """A table that hot-remove shares with vmalloc or the fixmap was freed.

    What it means:
    Where the edge of the linear map or of the vmemmap area is not a multiple of what a table translates, one
    table serves both sides. vmalloc and the fixmap walk it without the hotplug lock: freed when its own side was
    empty, it is used after it was freed, and what the other side had in it does not translate any more.

    How it is detected:
    Two dumps of one boot: a table that an edge goes through is linked in the first and not in the second. One dump
    is enough where all such tables are linked: none was freed. Which tables these are follows from page size, VA bits
    and release (the vmemmap area begins and ends in the middle of one with 16K and 64K pages, and in 5.10). Most of
    them also hold what is never removed: the fixmap, PCI I/O, or the struct pages of boot memory.

    When it is not a problem:
    No kernel frees such a table on purpose. Linux has kept them since it frees tables at all; a vendor's kernel that
    frees whatever is empty would not.

    What to do:
    Reboot. See that the kernel's free_empty_tables() has a floor and a ceiling.
    """
    shared = list(_shared(layout))
    if not shared:
        raise NotApplicableError("no edge of the linear map or the vmemmap area goes through a table")
    before = None if earlier is None else earlier.linear.mapping
    gone: list[_Shared] = []
    unknown: list[_Shared] = []
    for table in shared:
        if any(table.first in range(above.first, above.last) for above in gone) or _linked(mapping, table):
            continue
        if not _covered(mapping, table):
            unknown.append(table)
        elif before is not None and _linked(before, table):
            gone.append(table)
            yield _hit(before, mapping, table)
        elif before is None or not _covered(before, table):
            unknown.append(table)
    if unknown and not gone:
        raise UndecidedError(_why_unknown(mapping, unknown[0]), Earlier)


def _why_unknown(mapping: Mapping, table: _Shared) -> str:
    name = f"the level {table.level} table at {table.first:#x} that the {table.area} area shares with its neighbour"
    if not _covered(mapping, table):
        return f"the dump does not cover all of what {name} translates"
    return f"{name} does not exist: only an earlier dump of the same boot shows whether it was freed"


def _shared(layout: KernelLayout) -> Iterator[_Shared]:
    """Every table below the root that an edge goes through, the uppermost first."""
    areas = (
        ("linear", layout.linear_start, layout.linear_end),
        ("vmemmap", layout.vmemmap_first, layout.vmemmap_end),
    )
    root = layout.granule.first_level(layout.va_bits_actual)
    for area, start, end in areas:
        for above in range(root, PTE):
            span = layout.granule.span(above)
            for edge in (start, end):
                first, last = edge // span * span, edge // span * span + span - 1
                if first != edge:
                    yield _Shared(area, above + 1, first, last, (first, edge) if edge == start else (edge, last))


def _rows(mapping: Mapping, first: int, before: int) -> slice:
    """Rows that end after ``first`` and begin before ``before``."""
    begin = np.searchsorted(mapping.last, np.uint64(first))
    return slice(int(begin), int(np.searchsorted(mapping.start, np.uint64(before))))


def _linked(mapping: Mapping, table: _Shared) -> bool:
    """Whether the source shows entries of the table, or of tables below it."""
    return bool((mapping.level[_rows(mapping, table.first, table.last)] >= table.level).any())


def _covered(mapping: Mapping, table: _Shared) -> bool:
    """Whether the source covers all of the table's range."""
    first, last = np.uint64(table.first), np.uint64(table.last)
    return bool(((mapping.observed_start <= first) & (mapping.observed_last >= last)).any())


def _hit(before: Mapping, now: Mapping, table: _Shared) -> Hit:
    beside = _rows(before, *table.beside)
    mapped = before.valid[beside]
    rows = [(before, int(row)) for row in np.flatnonzero(mapped)[:2] + beside.start]
    rows += [(now, _rows(now, table.first, table.last).start)]
    lost = "what was mapped beside it is gone" if mapped.any() else "what walks it beside the area uses freed memory"
    return Hit(
        title=f"A level {table.level} table that the {table.area} area shares with its neighbour was freed",
        message=(
            f"The edge of the {table.area} area lies inside of what one level {table.level} table translates "
            f"({table.first:#x}-{table.last + 1:#x}). The table is in the earlier dump and not in the later: {lost}."
        ),
        claim=Claim.PROBABLE,
        severity=Severity.CRITICAL if mapped.any() else Severity.HIGH,
        vas=(VaRange(table.first, table.last + 1, table.area),),
        evidence=tuple(
            Evidence(one.source, one.describe(row), None if one.line is None else int(one.line[row]))
            for one, row in rows
        ),
    )

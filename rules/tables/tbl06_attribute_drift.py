"""TBL-06: table descriptors whose attributes differ from their like."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.layout import KernelLayout
from parsers.ranges import distinct
from parsers.vmcore.descriptors import TABLE_ATTRIBUTES
from rules.finding import Claim, Evidence, Hit, Impact, Severity, VaRange
from rules.model.memory.walk import PageWalk
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.mapping import Bool

MAX_QUOTED = 6
NEVER = ("APTable[0]", "APTable[1]", "NSTable")
USUAL = ("PXNTable", "UXNTable")


@rule(
    code="TBL-06",
    name="hierarchical-attribute-drift",
    severity=Severity.MEDIUM,
    impact=Impact.SECURITY,
    references=("Linux commit 87143f404f33 (v5.13): arm64: mm: use XN table mapping attributes for the linear region",),
)
def attribute_drift(walk: PageWalk, layout: KernelLayout) -> Iterator[Hit]:
    """Tables of one area and level are not restricted alike.

    What it means:
    Since 5.13 the descriptors of the tables of the linear map forbid execution of all below them. A table
    without that is guarded by its leaves alone. APTable and NSTable are never set by Linux: they would make
    memory read-only that every dump shows as writable.

    How it is detected:
    The descriptor that leads to each table wholly inside of the linear map or the vmemmap area, compared
    with those of its level: bits that most have and some lack, and bits that none should have.

    When it is not a problem:
    Kernels before 5.13 set none. Where the leaves forbid execution (ATT-03) a missing PXNTable is for
    information. A table that the areas share is left out.

    What to do:
    Find out what made the table: a patched hot-add path, or a module.
    """
    regions = {
        "linear": (layout.linear_start, layout.linear_end),
        "vmemmap": (layout.vmemmap_first, layout.vmemmap_end),
    }
    tables, descriptor = walk.tables, walk.table_descriptor
    linked = descriptor != 0  # the root is not
    for name, (start, end) in regions.items():
        for level in distinct(tables.level[linked]).tolist():
            span = layout.granule.span(level - 1)
            inside = (tables.level == level) & linked & (tables.va >= np.uint64(start))
            inside &= tables.va <= np.uint64(end - span)
            for bit in USUAL:
                held = inside & (descriptor & np.uint64(TABLE_ATTRIBUTES[bit]) != 0)
                lacking = inside & ~held
                if lacking.any() and np.count_nonzero(held) > np.count_nonzero(lacking):
                    yield _hit(walk, name, span, f"lack {bit}, which the others have", lacking, Severity.INFO)
    for bit in NEVER:
        odd = descriptor & np.uint64(TABLE_ATTRIBUTES[bit]) != 0
        if odd.any():
            yield _hit(walk, "kernel", layout.page_size, f"have {bit} set, which Linux never sets", odd, None)


def _hit(walk: PageWalk, name: str, span: int, what: str, chosen: Bool, severity: Severity | None) -> Hit:
    rows, tables = np.flatnonzero(chosen), walk.tables
    first = int(rows[0])
    return Hit(
        title=f"Table descriptors of the {name} area {what}",
        message=(
            f"{rows.size} level {int(tables.level[first])} table(s), the first at {int(tables.pa[first]):#x} for "
            f"{int(tables.va[first]):#x}, {what}."
        ),
        claim=Claim.PROVEN,
        severity=severity,
        vas=tuple(VaRange(int(tables.va[row]), int(tables.va[row]) + span, name) for row in rows[:16].tolist()),
        evidence=tuple(
            Evidence(
                walk.source,
                f"level {int(tables.level[row]) - 1} entry at {int(tables.parent_pa[row]):#x}: "
                f"{int(walk.table_descriptor[row]):#018x}",
                address=int(tables.parent_pa[row]),
            )
            for row in rows[:MAX_QUOTED].tolist()
        ),
        key=what,
    )

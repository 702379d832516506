"""LIN-05: a linear-map entry that translates to the wrong physical address."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rules.finding import Claim, Hit, Impact, Severity
from rules.model.memory.regions import LinearMap
from rules.model.memory.walk import PageWalk
from rules.rule import UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="LIN-05",
    name="wrong-linear-offset",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=("arch/arm64/include/asm/memory.h __phys_to_virt(): va = PAGE_OFFSET + (pa - memstart_addr)",),
)
def wrong_linear_offset(linear: LinearMap, *, page_walk: PageWalk | None) -> Iterator[Hit]:
    """A linear address translates to the wrong page.

    What it means:
    The linear map is physical memory at a constant offset. An entry with another output address makes
    the kernel read and write memory that belongs to something else.

    How it is detected:
    The output address of every leaf in the linear map, from a walk of the tables in a crash dump.

    When it is not a problem:
    Never. The KASAN shadow, which lies above the linear map, is cut off first.

    What to do:
    The page tables are corrupt: report the walk to the authors of the code that writes page tables.
    """
    if linear.pa is None:
        raise UndecidedError("a text dump has no output addresses", "vmcore")
    expected = linear.start.astype(np.uint64) + np.uint64(linear.layout.phys_offset)
    wrong = linear.valid & (linear.pa != expected)
    if page_walk is not None:
        wrong |= linear.valid & page_walk.repeated[linear.rows]  # only one of the entries can be right
    for row in np.flatnonzero(wrong).tolist()[:64]:
        offsets = linear.where(np.arange(wrong.size) == row)
        yield Hit(
            title="A linear address translates to the wrong page",
            message=(
                f"{linear.va(int(linear.start[row])):#x} translates to {int(linear.pa[row]):#x}, "
                f"where {int(expected[row]):#x} is right"
                + (", and so do the entries that follow." if linear.pa[row] == expected[row] else ".")
            ),
            claim=Claim.PROVEN,
            pfns=linear.pfns(linear.pages(offsets)),
            vas=linear.va_ranges(offsets),
            evidence=linear.quote([row]),
        )

"""OOP-20: no contiguous memory for struct pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rules.finding import Claim, Hit, Impact, Severity
from rules.model.oops import Oopses
from rules.oops.hits import need_whole, spoken_hits
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="OOP-20",
    name="vmemmap-alloc-failure",
    severity=Severity.MEDIUM,
    impact=Impact.PERFORMANCE,
    references=(
        "mm/sparse-vmemmap.c vmemmap_alloc_block()",
        "Linux commit 9f84f39f5515 (v5.11): falls back to base pages",
    ),
)
def vmemmap_allocation(oopses: Oopses) -> Iterator[Hit]:
    """There was no contiguous memory for a block of struct pages.

    What it means:
    The kernel falls back to base pages (since 5.11): more tables and TLB entries for that memory (VMM-07).
    Before, and with struct pages in the device itself (since 6.2), adding fails.

    How it is detected:
    The message "vmemmap alloc failure: order:" with the order of a block.

    When it is not a problem:
    Failures of smaller orders: there was no memory at all.

    What to do:
    Add memory early after the boot, compact memory first (/proc/sys/vm/compact_memory), or use memmap_on_memory.
    """
    yield from spoken_hits(
        oopses,
        r"vmemmap alloc failure: order:(?:9|1\d)\b",
        "No contiguous memory for struct pages",
        "an allocation for a block of struct pages failed: base pages instead (VMM-07), or the memory was not added.",
        Claim.PROBABLE,
    )
    need_whole(oopses)

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
    """There was no memory for struct pages, or no contiguous memory for a block of them.

    What it means:
    Without memory for a block the kernel falls back to base pages (since 5.11): more tables and TLB entries for that
    memory (VMM-07). Before, with struct pages in the device itself (since 6.2), and where there is not even a single
    page, adding fails with -ENOMEM (-12), and what it had added until then may stay (VMM-14).

    How it is detected:
    The message "vmemmap alloc failure: order:", with the order of a block or of a page.

    When it is not a problem:
    The kernel takes back what a failed add had done, mostly: where it did not, VMM-14, TRC-06 and MOM-05 report it.

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
    yield from spoken_hits(
        oopses,
        r"vmemmap alloc failure: order:[0-8]\b",
        "No memory for struct pages",
        "no page could be allocated for struct pages: the memory was not added (-ENOMEM), and what had been added "
        "until then may be left behind (VMM-14).",
        Claim.PROBABLE,
    )
    need_whole(oopses)

"""OOP-16: a CPU was stuck in the removal of memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.oops import ReportKind
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.bugs import judge
from rules.model.oops import Oopses
from rules.oops.hits import need_whole, oops_hit
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="OOP-16",
    name="stall-removal",
    severity=Severity.MEDIUM,
    impact=Impact.PERFORMANCE,
    references=("Linux commit 48478b9f7913 (v7.1; stable 6.12.86, 6.1.176): flushes the TLB once a range",),
)
def removal_stall(oopses: Oopses) -> Iterator[Hit]:
    """A CPU stalled while memory was unmapped.

    What it means:
    Unmapping flushes the TLB for each page; a large range with page mappings keeps a CPU busy for seconds
    (CNT-04).

    How it is detected:
    A report of an RCU stall whose call trace passes unmap_hotplug_*_range() or the TLB flush of a memory removal.

    When it is not a problem:
    A host that is starved otherwise: look at the steal time.

    What to do:
    Remove memory in smaller pieces, or update.
    """
    for oops in oopses.of_kind(ReportKind.STALL):
        remover = oops.report.passes("unmap_hotplug_", "__remove_pgd_mapping", "arch_remove_memory", "vmemmap_free")
        if remover:
            judged = judge("cont-tlb-shatter", oops.release, oops.layout.get("page_size"), (f"stuck in {remover}()",))
            yield oops_hit(
                oops,
                "A CPU stalled in the removal of memory",
                f"{oops.who}: stuck in {remover}() (CNT-04). {judged}",
                Claim.SUSPECTED,
            )
    need_whole(oopses)

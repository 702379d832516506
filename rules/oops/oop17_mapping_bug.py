"""OOP-17: the kernel died while it mapped added memory."""

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

_ADDERS = ("arch_add_memory", "__create_pgd_mapping", "pgd_pgtable_alloc", "__pgd_pgtable_alloc")


@rule(
    code="OOP-17",
    name="bug-mapping",
    severity=Severity.HIGH,
    impact=Impact.CORRUPTION,
    references=(
        "Linux commit bfc184cb1ba7 (v6.19): arch_add_memory() returns an error instead",
        "arch/arm64/mm/mmu.c alloc_init_pud(), __create_pgd_mapping() (4.14 to 6.18)",
    ),
)
def mapping_bug(oopses: Oopses) -> Iterator[Hit]:
    """The kernel hit a BUG while it built page tables for memory.

    What it means:
    Either no page was left for a page table (LIN-09), or the range was mapped already with other attributes:
    added twice, or left over from an earlier removal (LIN-01).

    How it is detected:
    "kernel BUG at arch/arm64/mm/mmu.c", or a BUG on the way of arch_add_memory().

    When it is not a problem:
    The same during boot is a machine without enough memory.

    What to do:
    Keep memory free before memory is added (0.2 % of what is added with page mappings), and update. To tell the
    two apart: meminfo from before, and a page-table dump.
    """
    for oops in oopses.of_kind(ReportKind.BUG):
        adder = oops.report.passes(*_ADDERS)
        if not (oops.report.place.startswith("arch/arm64/mm/mmu.c:") or adder):
            continue
        allocating = oops.report.passes("pgd_pgtable_alloc", "__pgd_pgtable_alloc")
        supports = (f"{allocating}() found no page",) if allocating else ()
        against = () if allocating else ("no table was being allocated: an old mapping was in the way (LIN-01)",)
        judged = judge("table-oom-bug", oops.release, oops.layout.get("page_size"), supports, against)
        yield oops_hit(
            oops,
            "The kernel died while it mapped memory",
            f"{oops.who}: BUG at {oops.report.place or 'an unknown place'} (LIN-09 or LIN-01). {judged}",
            Claim.PROBABLE if adder else Claim.SUSPECTED,
        )
    need_whole(oopses)

"""OOP-10: a page-table page was freed without its destructor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.oops import ReportKind
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.bugs import judge
from rules.model.oops import Oopses
from rules.oops.hits import need_whole, oops_hit, said
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="OOP-10",
    name="bad-page-table",
    severity=Severity.MEDIUM,
    impact=Impact.LATENT,
    references=("Linux commit c594b83457cc (v7.1)",),
)
def table_page_state(oopses: Oopses) -> Iterator[Hit]:
    """A page that was a page table was freed as an ordinary page.

    What it means:
    The removal of memory freed a table page without undoing its constructor (TBL-04): the allocator complains and
    leaks the page.

    How it is detected:
    "Bad page state" whose page_type says table, on the way of a memory removal.

    When it is not a problem:
    Other sources of bad page state: the call trace does not pass the removal of memory.

    What to do:
    Update to a kernel with the fix. A page is lost with each; nothing is corrupted.
    """
    for oops in said(oopses, r"page_type: \S*\(table\)", ReportKind.BAD_PAGE):
        remover = oops.report.passes("arch_remove_memory", "free_hotplug_", "free_empty_", "try_remove_memory")
        supports = ("the page was a table",) + ((f"{remover}() freed it",) if remover else ())
        against = () if remover else ("no removal of memory in the call trace",)
        judged = judge("pgtable-dtor", oops.release, oops.layout.get("page_size"), supports, against)
        yield oops_hit(
            oops,
            "A page table was freed without its destructor",
            f"{oops.who}: PFN {oops.report.pfn or 0:#x} was a page table when it was freed (TBL-04). {judged}",
            Claim.PROBABLE if remover else Claim.SUSPECTED,
        )
    need_whole(oopses)

"""OOP-15: a struct page was used that was never initialised."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.oops import ReportKind
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.oops import Oopses
from rules.oops.hits import need_whole, oops_hit, said, spoken_hits
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


_TITLE = "A struct page was used that was never initialised"
_MEANING = "Its memory was added in part, or is not online (VMM-14)."


@rule(
    code="OOP-15",
    name="oops-poisoned-page",
    severity=Severity.HIGH,
    impact=Impact.CORRUPTION,
    references=("include/linux/page-flags.h PagePoisoned(): flags are all ones (page_init_poison(), mm/debug.c)",),
)
def poisoned_page(oopses: Oopses) -> Iterator[Hit]:
    """The kernel used a struct page that was never initialised.

    What it means:
    The struct page is mapped, and still holds the pattern that it is filled with when memory is added: the memory
    was added in part, or not brought online (VMM-14).

    How it is detected:
    "VM_BUG_ON_PAGE(PagePoisoned", or "page is uninitialized and poisoned".

    When it is not a problem:
    A page frame number beyond the memory of a section that is valid as a whole; a walker that does not test
    pfn_to_online_page().

    What to do:
    Compare the memory blocks with /proc/iomem: is the range half added, or offline? A crash dump shows the struct
    pages.
    """
    for oops in said(oopses, "PagePoisoned|uninitialized and poisoned", ReportKind.PAGE_DUMP, ReportKind.BUG):
        yield oops_hit(oops, _TITLE, f"{oops.who}: {oops.report.headline}. {_MEANING}", Claim.PROBABLE)
    if not any(oops.current for oops in said(oopses, "PagePoisoned", ReportKind.PAGE_DUMP, ReportKind.BUG)):
        yield from spoken_hits(oopses, "is uninitialized and poisoned", _TITLE, _MEANING, Claim.PROBABLE)
    need_whole(oopses)

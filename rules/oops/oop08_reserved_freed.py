"""OOP-08: the removal of memory met struct pages of the boot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.oops import ReportKind
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.oops import Oopses
from rules.oops.hits import need_whole, oops_hit
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


_FUNCTIONS = ("free_hotplug_page_range",)


@rule(
    code="OOP-08",
    name="warn-reserved-freed",
    severity=Severity.HIGH,
    impact=Impact.CORRUPTION,
    references=("arch/arm64/mm/mmu.c free_hotplug_page_range() (5.7 to 7.1): WARN_ON(PageReserved(page))",),
)
def reserved_freed(oopses: Oopses) -> Iterator[Hit]:
    """The removal of memory was about to free pages that the boot had reserved.

    What it means:
    Struct pages or tables that were made at boot were torn down like hot-added ones: memory of the boot loses its
    struct pages (VMM-13).

    How it is detected:
    A WARN in free_hotplug_page_range().

    When it is not a problem:
    It is always a problem.

    What to do:
    Remove no more memory. Take a crash dump, and look for boot sections whose struct pages are not mapped
    (VMM-13).
    """
    for oops in oopses.of_kind(ReportKind.WARNING):
        if oops.report.function.startswith(_FUNCTIONS):
            yield oops_hit(
                oops,
                "Pages reserved at boot were freed by a memory removal",
                f"{oops.who} at {oops.report.place}: a removal of memory frees pages of the boot (VMM-13).",
                Claim.PROBABLE,
            )
    need_whole(oopses)

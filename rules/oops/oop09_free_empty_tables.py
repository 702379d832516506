"""OOP-09: tables that should be empty were not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.oops import ReportKind
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.oops import Oopses
from rules.oops.hits import need_whole, oops_hit
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


_FUNCTIONS = ("free_empty_",)


@rule(
    code="OOP-09",
    name="warn-free-empty-tables",
    severity=Severity.HIGH,
    impact=Impact.CORRUPTION,
    references=("arch/arm64/mm/mmu.c free_empty_tables() and what it calls (5.7 to 7.1)",),
)
def free_empty_tables(oopses: Oopses) -> Iterator[Hit]:
    """After the unmapping of a range its tables were not empty.

    What it means:
    Removal unmaps first and frees empty tables then. The second pass met an entry that the first should have
    cleared: the two disagree about the range, or something mapped into it in between.

    How it is detected:
    A WARN in free_empty_pte_table(), free_empty_pmd_table(), free_empty_pud_table() or free_empty_p4d_table().

    When it is not a problem:
    It is always a problem.

    What to do:
    Remove no more memory, take a crash dump, reboot. Capture a trace of the next removal (ptaudit probes).
    """
    for oops in oopses.of_kind(ReportKind.WARNING):
        if oops.report.function.startswith(_FUNCTIONS):
            yield oops_hit(
                oops,
                "Tables of removed memory were not empty",
                f"{oops.who} at {oops.report.place}: tables of a removed range are not empty after its unmapping.",
                Claim.PROBABLE,
            )
    need_whole(oopses)

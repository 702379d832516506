"""OOP-11: memory was removed twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rules.finding import Claim, Hit, Impact, Severity
from rules.model.oops import Oopses
from rules.oops.hits import need_whole, spoken_hits
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="OOP-11",
    name="warn-section-deactivated",
    severity=Severity.HIGH,
    impact=Impact.LATENT,
    references=("mm/sparse.c section_deactivate() (5.3 to 6.18)",),
)
def already_deactivated(oopses: Oopses) -> Iterator[Hit]:
    """Memory that was not present was removed.

    What it means:
    The kernel was asked to remove subsections that are not populated: a second removal of the same range, or one
    that does not match what was added (TRC-04). It refused; the driver's books and the kernel's differ.

    How it is detected:
    The WARN "section already deactivated".

    When it is not a problem:
    It is always a problem, if only of the driver.

    What to do:
    Find the driver in the call trace. A trace of the operations shows which one came first (ptaudit probes).
    """
    yield from spoken_hits(
        oopses,
        r"section already deactivated",
        "A removal met subsections that were already gone",
        "memory was removed that was not populated (TRC-04).",
        Claim.PROBABLE,
    )
    need_whole(oopses)

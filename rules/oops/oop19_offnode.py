"""OOP-19: struct pages lie on another node than their memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rules.finding import Claim, Hit, Impact, Severity
from rules.model.oops import Oopses
from rules.oops.hits import need_whole, spoken_hits
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="OOP-19",
    name="vmemmap-offnode",
    severity=Severity.MEDIUM,
    impact=Impact.PERFORMANCE,
    references=("mm/sparse-vmemmap.c vmemmap_verify()",),
)
def offnode(oopses: Oopses) -> Iterator[Hit]:
    """Struct pages were allocated on another node than the memory that they describe.

    What it means:
    Every use of these struct pages crosses nodes, and the other node's memory cannot be removed as long as they
    are there (VMM-09).

    How it is detected:
    The message "potential offnode page_structs", which kernels print once.

    When it is not a problem:
    Nodes without local memory, and the first memory of a node.

    What to do:
    Use memmap_on_memory so that added memory brings its struct pages along.
    """
    yield from spoken_hits(
        oopses,
        r"potential offnode page_structs",
        "Struct pages lie on another node",
        "struct pages lie on another node than their memory (VMM-09).",
        Claim.PROBABLE,
    )
    need_whole(oopses)

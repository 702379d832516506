"""ATT-03: executable linear map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.arm64 import Attr
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.memory.regions import LinearMap
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="ATT-03",
    name="executable-linear",
    severity=Severity.HIGH,
    impact=Impact.SECURITY,
    references=("arch/arm64/mm/mmu.c map_mem(): the linear map is never executable; NO_EXEC_MAPPINGS (v5.13)",),
)
def executable_linear(linear: LinearMap) -> Iterator[Hit]:
    """The linear map is executable somewhere.

    What it means:
    All memory is reachable through the linear map. If it can be executed there, any page with
    attacker-controlled data is code.

    How it is detected:
    Rows of the linear map that translate and lack PXN.

    When it is not a problem:
    Never: the alias of the kernel text is not executable either.

    What to do:
    Find out what changed the attributes (set_memory_x on a linear address, a module that writes tables).
    """
    rows = linear.valid & ~linear.has(Attr.PXN)
    if rows.any():
        offsets = linear.where(rows)
        yield Hit(
            title="The linear map is executable",
            message=f"{offsets.total >> 10} KiB of the linear map can be executed by the kernel.",
            claim=Claim.PROVEN,
            vas=linear.va_ranges(offsets)[:64],
            evidence=linear.quote(rows),
        )

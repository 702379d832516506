"""OOP-07: an external abort or SError."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.esr import Fault
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.oops import Oopses, Region
from rules.oops.hits import need_whole, oops_hit
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="OOP-07",
    name="oops-external-abort",
    severity=Severity.HIGH,
    impact=Impact.CORRUPTION,
    references=("arch/arm64/mm/fault.c do_sea(), arch/arm64/kernel/traps.c arm64_serror_panic()",),
)
def external_abort(oopses: Oopses) -> Iterator[Hit]:
    """The memory system answered an access with an error.

    What it means:
    Nothing answered at the physical address, or the answer was poisoned. On a host with memory hotplug: an access
    through a linear mapping that outlived its memory (LIN-01), or a DIMM that was pulled.

    How it is detected:
    ESR says synchronous external abort, or SError. Where the kernel printed the address and it is linear, it is
    decoded.

    When it is not a problem:
    Broken hardware, a device that does not answer, and memory errors (see the EDAC and GHES messages) look the
    same.

    What to do:
    Look for memory errors in the log first. If memory was removed before: a page-table dump and /proc/iomem show
    a stale linear mapping (LIN-01).
    """
    for oops in oopses.all:
        esr = oops.report.esr
        if esr is None or oops.region is Region.OTHER:
            continue
        if not (esr.is_serror or esr.fault in {Fault.EXTERNAL_ABORT, Fault.EXTERNAL_ABORT_ON_WALK}):
            continue
        linear = oops.region is Region.LINEAR
        where = oops.describe() if linear else "the address was not printed" if oops.region is None else oops.region
        yield oops_hit(
            oops,
            "External abort" if not esr.is_serror else "SError",
            (
                f"{oops.who}: {esr}; {where}. After a removal of memory it is a stale linear mapping (LIN-01); "
                "otherwise suspect the hardware."
            ),
            Claim.SUSPECTED,
            None if linear and oops.at_boot is False else Severity.MEDIUM,
        )
    need_whole(oopses)

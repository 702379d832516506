"""OOP-07: an external abort or SError."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rules.finding import Claim, Hit, Impact, Severity
from rules.model.memory.regions import LinearMap
from rules.model.memory.resources import Resources
from rules.model.memory.sections import SectionTable
from rules.model.oops import Oopses, Region
from rules.model.plausibility import hotplug_signs, is_external_abort
from rules.oops.hits import need_whole, oops_hit
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rules.model.oops import DecodedOops


@rule(
    code="OOP-07",
    name="oops-external-abort",
    severity=Severity.HIGH,
    impact=Impact.CORRUPTION,
    references=("arch/arm64/mm/fault.c do_sea(), arch/arm64/kernel/traps.c arm64_serror_panic()",),
)
def external_abort(
    oopses: Oopses,
    *,
    linear_map: LinearMap | None,
    resources: Resources | None,
    section_table: SectionTable | None,
) -> Iterator[Hit]:
    """The memory system answered an access with an error.

    What it means:
    Nothing answered at the physical address, or the answer was poisoned. On a host with memory hotplug: an access
    through a linear mapping that outlived its memory (LIN-01), or a DIMM that was pulled.

    How it is detected:
    ESR says synchronous external abort, or SError. Where the kernel printed the address and it is linear, it is
    decoded.

    When it is not a problem:
    Broken hardware, a device that does not answer, and memory errors (see the EDAC and GHES messages) look the
    same. A stale mapping needs a removal: without a sign of one nothing is claimed. Accesses of programs, device
    registers (ioremapped addresses, readl() and the like), idle CPUs and early boot cannot be one.

    What to do:
    Look for memory errors in the log first. If memory was removed before: a page-table dump and /proc/iomem show
    a stale linear mapping (LIN-01).
    """
    stale = _stale(linear_map, resources, section_table)
    for oops in oopses.all:
        if not is_external_abort(oops) or oops.region not in {None, Region.LINEAR, Region.VMEMMAP}:
            continue
        signs = (*hotplug_signs(oops), *((stale,) if stale and oops.current else ()))
        linear = oops.region is Region.LINEAR
        hot_added = linear and oops.at_boot is False
        if not (signs or hot_added) or _cannot_be_memory(oops):
            continue
        where = oops.describe() if linear else "the address was not printed" if oops.region is None else oops.region
        yield oops_hit(
            oops,
            "External abort" if oops.report.esr is None or not oops.report.esr.is_serror else "SError",
            (
                f"{oops.who}: {oops.report.esr or 'SError'}; {where}. After a removal of memory it is a stale linear "
                f"mapping (LIN-01); otherwise suspect the hardware. Signs of a removal: {'; '.join(signs) or 'none'}."
            ),
            Claim.SUSPECTED,
            None if hot_added else Severity.MEDIUM,
        )
    need_whole(oopses)


_MMIO = (
    *("readb", "readw", "readl", "readq", "writeb", "writew", "writel", "writeq", "__raw_read", "__raw_write"),
    *("ioread", "iowrite", "__memcpy_fromio", "__memcpy_toio", "__memset_io", "regmap_mmio", "pci_generic_config"),
    *("dw_pcie", "pci_ecam", "gic_", "its_", "early_memtest"),
)


def _stale(linear: LinearMap | None, resources: Resources | None, sections: SectionTable | None) -> str:
    """What the page tables of the same boot say: memory that is gone and mapped still (LIN-01)."""
    if linear is None or resources is None or sections is None or not linear.layout.knows("phys_offset"):
        return ""
    known = resources.pfns(resources.everything, linear.layout.page_size) | sections.blocks
    gone = linear.pfns(linear.pages_mapped) - known
    return f"the linear map holds {gone.total} pages of memory that is gone (LIN-01)" if gone else ""


def _cannot_be_memory(oops: DecodedOops) -> bool:
    """A program's access, a device's register, an idle CPU or the boot: no stale mapping of memory."""
    report = oops.report
    near = (report.function, report.lr.partition("+")[0])
    return bool(
        (report.esr is not None and report.esr.from_user)
        or any(name.startswith(_MMIO) for name in near)
        or report.is_boot
        or report.is_idle
        or oops.boot.is_capture_kernel
    )

"""CNT-07: the TLB held two translations of an address, or one that the tables do not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.dmesg import Kind
from parsers.esr import Fault
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.oops import Oopses, Region
from rules.oops.hits import need_whole, oops_hit
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rules.model.oops import DecodedOops


@rule(
    code="CNT-07",
    name="tlb-conflict",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=(
        "Arm ARM D8.17: changing the block size, or the Contiguous bit, without break-before-make",
        "arch/arm64/mm/fault.c is_spurious_el1_translation_fault() (4.20 and later)",
        "Linux commit 060a2c92d1b6 (v6.3): struct pages remapped live",
    ),
)
def tlb_conflict(oopses: Oopses) -> Iterator[Hit]:
    """The hardware found two translations for one address, or a fault that the page tables do not explain.

    What it means:
    A TLB conflict abort says that the TLB holds more than one entry for the address: the tables were changed from a
    block to pages, or a contiguous run was changed in part, without break-before-make. "Ignoring spurious kernel
    translation fault" says that an access faulted although the tables do map the address by now: another CPU was
    changing the entry at that moment. In the linear map and the vmemmap area only memory hotplug, HVO and changes of
    attributes do that.

    How it is detected:
    A fault status of 0x30, or the warning with an address in the linear map or in the vmemmap area.

    When it is not a problem:
    Spurious faults of vmalloc addresses, of modules and of the fixmap are harmless: mappings are made there all
    the time and other CPUs see them late. One spurious fault can be hardware; several in one region are not.

    What to do:
    Look at what changed the tables (CNT-01, CNT-05, HVO-06): hot-remove of part of a contiguous run, HVO on 5.19 to
    6.2, splitting a block. Collect a page-table dump and a trace of the operations.
    """
    spurious: list[DecodedOops] = []
    for oops in oopses.all:
        if oops.report.esr is not None and oops.report.esr.fault is Fault.TLB_CONFLICT:
            where = oops.describe() if oops.index is not None else f"in the area: {oops.area}"
            yield oops_hit(
                oops,
                "TLB conflict abort",
                f"{oops.who}: the TLB held more than one translation of the address; {where}.",
                Claim.PROBABLE,
                None if oops.region in {Region.LINEAR, Region.VMEMMAP} else Severity.HIGH,
            )
        elif _is_spurious(oops) and oops.region in {Region.LINEAR, Region.VMEMMAP}:
            spurious.append(oops)
    for oops in spurious:
        count = sum(1 + other.report.repeats for other in spurious if other.region is oops.region)
        yield oops_hit(
            oops,
            "Spurious translation fault in the memory map",
            (
                f"{oops.who}: an address of the {oops.area} area faulted and is mapped; {count} such faults there. The "
                f"entry was being changed: {oops.describe()}."
            ),
            Claim.SUSPECTED,
            Severity.HIGH if count > 1 else Severity.MEDIUM,
        )
    unplaced = [one for one in oopses.all if _is_spurious(one) and one.region is None]
    if oopses.dmesg.boot.of(Kind.SPURIOUS) and unplaced:
        oopses.need_regions()
    need_whole(oopses)


_WORDS = "Ignoring spurious kernel translation fault"


def _is_spurious(oops: DecodedOops) -> bool:
    return _WORDS in oops.report.text

"""OOP-01: an oops on struct pages whose whole block is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.arm64 import PMD, PTE
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.bugs import judge
from rules.model.oops import Oopses
from rules.oops.hits import need_whole, oops_hit
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rules.model.oops import DecodedOops


@rule(
    code="OOP-01",
    name="oops-vmemmap-block",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=(
        "Linux commit d4234d131b0a (v6.14; stable 6.12.20, 6.1.132)",
        "Linux commit bbd6ec605c0f (v5.7): arm64/mm: Enable memory hot remove",
        "arch/arm64/mm/fault.c show_pte()",
    ),
)
def vmemmap_block(oopses: Oopses) -> Iterator[Hit]:
    """The kernel died on a struct page that is not mapped: the entry of a whole block is empty.

    What it means:
    The faulting address lies in the vmemmap area and is the struct page of the memory that the message names. The
    page-table entry that should map 2 MiB of struct pages (4K pages) or a table of them is empty. If that memory
    is valid, its struct pages were torn out (VMM-02); on 4K kernels that is what the removal of a neighbour does
    that shared the block (VMM-01).

    How it is detected:
    The region of the address, the level of the fault in ESR, and the entries that the kernel printed. Page size
    and address bits stand in the oops; the rest of the layout follows from its release, and the message says what
    it rests on.

    When it is not a problem:
    A bogus struct page pointer faults like this, too, mostly at a higher level or far from any memory.

    What to do:
    Stop all memory hotplug, keep tools away that walk page frames (/proc/kpage*), take a crash dump, reboot, and
    update to a kernel with the fix. To prove it: a page-table dump with /proc/iomem and the memory blocks, or a
    crash dump (VMM-02), and a trace of the removal (ptaudit probes).
    """
    for oops in oopses.all:
        if oops.lost_struct_page and oops.level != PTE:
            yield _hit(oops)
    oopses.need_regions()
    need_whole(oopses)


# Who reads struct pages of memory that it holds for valid.
_OWNERS = ("memunmap_pages", "memremap_pages", "devm_memremap", "memmap_init_zone_device", "__init_zone_device_page")


def _hit(oops: DecodedOops) -> Hit:
    owner = oops.report.passes(*_OWNERS)
    whose = "device memory" if owner else "memory"
    word = {PMD: "PMD", 1: "PUD"}.get(oops.level or 0, "PGD")
    return oops_hit(
        oops,
        f"Struct page of valid {whose} unmapped at {word} level",
        (
            f"The struct page of valid {whose} is unmapped at {word} level (VMM-02): {oops.who} touched "
            f"{oops.report.address.value if oops.report.address else 0:#x}, {oops.describe()}. {_judged(oops, owner)} "
            f"{oops.rests_on()}"
        ),
        Claim.PROBABLE if owner and oops.level == PMD else Claim.SUSPECTED,
        None if oops.level == PMD else Severity.HIGH,
    )


def _judged(oops: DecodedOops, owner: str) -> str:
    page_size = oops.layout.get("page_size")
    supports, contradicts = [], []
    if oops.level == PMD:
        supports.append("one empty PMD entry: a block of struct pages went as a whole")
    else:
        contradicts.append("the hole is larger than a block of struct pages")
    if owner:
        supports.append(f"{owner}() reads the struct pages of a device's memory while it holds it")
    if oops.at_boot is not None:
        (contradicts if oops.at_boot else supports).append("boot memory" if oops.at_boot else "not boot memory")
    judged = str(judge("partial-section-pmd", oops.release, page_size, tuple(supports), tuple(contradicts)))
    if page_size not in {None, 4096}:
        judged += " With 16K and 64K pages, shared base pages do it (VMM-06): the last one freed took the table along."
    return judged

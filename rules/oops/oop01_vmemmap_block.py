"""OOP-01: an oops on struct pages whose whole block is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.arm64 import PMD, PTE
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.bugs import judge
from rules.model.oops import Oopses
from rules.model.plausibility import struct_page_standing
from rules.oops.hits import need_whole, oops_hit, urgency
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rules.model.bugs import Judgement
    from rules.model.oops import DecodedOops
    from rules.model.plausibility import Standing


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
    it relies on.

    When it is not a problem:
    A bogus pointer faults like this, too. No finding is made of negative 32-bit numbers and error codes, addresses that
    no field of a struct page has, tagged pointers, pages far from all memory, and faults while the kernel boots or in
    a capture kernel; the list of what happened says which it was. Where nothing shows that memory was being
    added or removed and the function is not known to walk page frames, the finding is of medium severity.

    What to do:
    Stop all memory hotplug, keep tools away that walk page frames (/proc/kpage*), take a crash dump, reboot, and
    update to a kernel with the fix. To prove it: a page-table dump with /proc/iomem and the memory blocks, or a
    crash dump (VMM-02), and a trace of the removal (ptaudit probes).
    """
    for oops in oopses.all:
        if oops.lost_struct_page and oops.level != PTE and not (standing := struct_page_standing(oops)).excluded:
            yield _hit(oops, standing)
    oopses.need_regions()
    need_whole(oopses)


# Functions that read struct pages of memory that they take as valid.
_OWNERS = ("memunmap_pages", "memremap_pages", "devm_memremap", "memmap_init_zone_device", "__init_zone_device_page")


def _hit(oops: DecodedOops, standing: Standing) -> Hit:
    owner = oops.report.passes(*_OWNERS)
    whose = "device memory" if owner else "memory"
    judged = _judge(oops, owner, standing)
    word = {PMD: "PMD", 1: "PUD"}.get(oops.level or 0, "PGD")
    return oops_hit(
        oops,
        f"Struct page of valid {whose} unmapped at {word} level",
        (
            f"The struct page of valid {whose} is unmapped at {word} level (VMM-02): {oops.who} touched "
            f"{oops.report.address.value if oops.report.address else 0:#x}, {oops.describe()}. {judged} "
            f"{oops.assumptions()}"
        ),
        Claim.PROBABLE if owner and oops.level == PMD and not judged.excluded else Claim.SUSPECTED,
        urgency(standing, owner, None if oops.level == PMD else Severity.HIGH),
        judged,
    )


def _judge(oops: DecodedOops, owner: str, standing: Standing) -> Judgement:
    page_size = oops.layout.get("page_size")
    supports, contradicts = [*standing.supports], [*standing.contradicts]
    if oops.level == PMD:
        supports.append("one empty PMD entry: a block of struct pages went as a whole")
    else:
        contradicts.append("the hole is larger than a block of struct pages")
    if owner:
        supports.append(f"{owner}() reads the struct pages of a device's memory while it holds it")
    supports += [sign for sign in standing.signs if not owner or owner not in sign]
    if oops.at_boot is not None:
        (contradicts if oops.at_boot else supports).append("boot memory" if oops.at_boot else "not boot memory")
    if page_size not in {None, 4096}:
        supports.append("with 16K and 64K pages shared base pages do it (VMM-06): the last freed takes the table along")
    return judge("partial-section-pmd", oops.release, page_size, tuple(supports), tuple(contradicts))

"""OOP-02: an oops on struct pages whose base page is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.arm64 import PTE
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
    code="OOP-02",
    name="oops-vmemmap-page",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=(
        "mm/sparse-vmemmap.c vmemmap_populate_basepages() and arch/arm64/mm/mmu.c (5.7 to 7.1) step by whole pages",
        "Linux commit 9ab2601dc4c1 (v6.14): vmemmap_check_pmd() tests for a block",
    ),
)
def vmemmap_page(oopses: Oopses) -> Iterator[Hit]:
    """The kernel died on a struct page that is not mapped: the page-table entry is empty, its table exists.

    What it means:
    The faulting address lies in the vmemmap area and the last level is empty. With 16K and 64K pages one page of
    struct pages describes 4 MiB or 64 MiB, and a removal frees it under a neighbour, or an addition leaves the
    last one out (VMM-06). With 4K pages, a populate that took a table for a block leaves such holes (VMM-08).

    How it is detected:
    The region of the address, a level 3 translation fault, and the entries that the kernel printed.

    When it is not a problem:
    A bogus struct page pointer into a section that is partly populated faults like this, too. What cannot be the
    address of a struct page is left out (OOP-01).

    What to do:
    Stop hotplug, take a crash dump and reboot. Align pmem and DAX ranges to 64 MiB (64K pages) or 4 MiB (16K
    pages). To prove it: a page-table dump with /proc/iomem, or a crash dump (VMM-02, VMM-06).
    """
    for oops in oopses.all:
        if oops.lost_struct_page and oops.level == PTE and not (standing := struct_page_standing(oops)).excluded:
            yield _hit(oops, standing)
    oopses.need_regions()
    need_whole(oopses)


_ADDERS = ("__init_zone_device_page", "__init_single_page", "memmap_init", "page_init_poison", "sparse_add_section")
_OWNERS = ("memunmap_pages", "arch_remove_memory", "memremap_pages", *_ADDERS)


def _hit(oops: DecodedOops, standing: Standing) -> Hit:
    owner = oops.report.passes(*_OWNERS)
    code, judged = _judge(oops, owner, standing)
    return oops_hit(
        oops,
        "Struct page of valid memory unmapped at PTE level",
        (
            f"A base page of struct pages is not mapped (VMM-02): {oops.who} touched "
            f"{oops.report.address.value if oops.report.address else 0:#x}, {oops.describe()}. "
            f"Probably {code}. {judged} {oops.assumptions()}"
        ),
        Claim.PROBABLE if owner and not judged.excluded else Claim.SUSPECTED,
        urgency(standing, owner),
        judged,
    )


def _judge(oops: DecodedOops, owner: str, standing: Standing) -> tuple[str, Judgement]:
    page_size = oops.layout.get("page_size")
    supports = ["one empty page-table entry under a table that exists"]
    if oops.report.passes(*_ADDERS):
        supports.append("it happened while struct pages were being initialised: the last of them were not populated")
    elif owner:
        supports.append(f"{owner}() reads struct pages of memory that it still holds")
    if oops.at_boot is False:
        supports.append("not boot memory")
    supports += [*standing.supports, *(sign for sign in standing.signs if not owner or owner not in sign)]
    contradicts = (*standing.contradicts, *(("boot memory",) if oops.at_boot else ()))
    key, code = ("vmemmap-check-pmd", "VMM-08") if page_size == 4096 else ("shared-basepage", "VMM-06")
    return code, judge(key, oops.release, page_size, tuple(supports), contradicts)

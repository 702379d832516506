"""OOP-03: a write to read-only struct pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.esr import Fault
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.bugs import judge
from rules.model.oops import Oopses, Region
from rules.model.plausibility import struct_page_standing
from rules.oops.hits import need_whole, oops_hit
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="OOP-03",
    name="oops-vmemmap-readonly",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=(
        "Linux commit 060a2c92d1b6 (v6.3): arm64: mm: hugetlb: Disable HUGETLB_PAGE_OPTIMIZE_VMEMMAP",
        "mm/hugetlb_vmemmap.c maps tail struct pages read-only",
    ),
)
def vmemmap_readonly(oopses: Oopses) -> Iterator[Hit]:
    """The kernel died writing to a struct page that is mapped read-only.

    What it means:
    HugeTLB vmemmap optimisation maps the tail struct pages of a huge page read-only onto one page. Somebody wrote
    to one of them (HVO-02).

    How it is detected:
    A permission fault on a write in the vmemmap area.

    When it is not a problem:
    It is always a problem: nothing may write there, and mainline arm64 kernels since 6.3 have no read-only struct
    pages.

    What to do:
    Switch the optimisation off (hugetlb_free_vmemmap=off) and find who writes to tail pages: the call trace names
    it.
    """
    for oops in oopses.all:
        esr = oops.report.esr
        written = esr is not None and esr.write and oops.faulted(Region.VMEMMAP, Fault.PERMISSION)
        if written and not struct_page_standing(oops).excluded:
            judged = judge("hvo-live-remap", oops.release, oops.layout.get("page_size"), ("read-only struct pages",))
            yield oops_hit(
                oops,
                "Write to a read-only struct page",
                f"{oops.who} wrote to a read-only struct page (HVO-02): {oops.describe()}. {judged} "
                f"{oops.assumptions()}",
                Claim.PROBABLE,
                judgement=judged,
            )
    oopses.need_regions()
    need_whole(oopses)

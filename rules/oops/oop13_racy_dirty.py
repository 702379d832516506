"""OOP-13: live struct pages were remapped without break-before-make."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.oops import ReportKind
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.bugs import judge
from rules.model.oops import Oopses
from rules.oops.hits import need_whole, oops_hit, said
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="OOP-13",
    name="warn-racy-remap",
    severity=Severity.HIGH,
    impact=Impact.CORRUPTION,
    references=(
        "Linux commit 060a2c92d1b6 (v6.3)",
        "arch/arm64/include/asm/pgtable.h __check_safe_pte_update()",
    ),
)
def racy_dirty(oopses: Oopses) -> Iterator[Hit]:
    """Struct pages were remapped while they were in use.

    What it means:
    The kernel changed the output address of a live entry without making it invalid first. HugeTLB vmemmap
    optimisation did that on arm64 (HVO-01): another CPU may write to the old page.

    How it is detected:
    The WARN "racy dirty state clearing" or "racy access flag clearing" on the way of vmemmap_remap_pte().

    When it is not a problem:
    The same WARN from other callers is another bug.

    What to do:
    Boot with hugetlb_free_vmemmap=off and update to a kernel where arm64 does not select the optimisation.
    """
    for oops in said(oopses, "racy (?:dirty state|access flag) clearing", ReportKind.WARNING):
        if remapper := oops.report.passes("vmemmap_remap", "vmemmap_restore", "hugetlb_vmemmap", "__hugetlb_vmemmap"):
            seen = (f"{remapper}() changed a live entry",)
            judged = judge("hvo-live-remap", oops.release, oops.layout.get("page_size"), seen)
            yield oops_hit(
                oops,
                "Live struct pages were remapped",
                f"{oops.who}: struct pages were remapped without break-before-make (HVO-01). {judged}",
                Claim.PROBABLE,
            )
    need_whole(oopses)

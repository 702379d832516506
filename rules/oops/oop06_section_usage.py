"""OOP-06: an oops in pfn_valid() on a section that was being removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rules.finding import Claim, Hit, Impact, Severity
from rules.model.bugs import judge
from rules.model.oops import Oopses, Region
from rules.model.plausibility import hotplug_signs
from rules.oops.hits import need_whole, oops_hit
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


_LOOKUPS = ("pfn_valid", "pfn_section_valid", "pfn_to_online_page", "pfn_section_first_valid", "section_deactivate")


@rule(
    code="OOP-06",
    name="oops-section-usage",
    severity=Severity.HIGH,
    impact=Impact.CORRUPTION,
    references=(
        "Linux commit 5ec8e8ea8b77 (v6.8; CVE-2023-52489)",
        "Linux commit 82f0b6f041fa (v6.10; CVE-2024-41055)",
    ),
)
def section_usage(oopses: Oopses) -> Iterator[Hit]:
    """The kernel died looking up whether a page frame is valid, through a NULL pointer.

    What it means:
    The usage map of a section was freed, or already NULL, while pfn_valid() looked at it: a race of a page-frame
    walker with the removal of memory (SEC-07).

    How it is detected:
    A fault below 4096 in pfn_valid(), pfn_section_valid(), pfn_to_online_page() or what they are inlined into.

    When it is not a problem:
    Other NULL dereferences in functions that call these. While the kernel boots nothing is removed.

    What to do:
    Update to a kernel with both fixes. Until then remove no memory while compaction, memory offlining or
    /proc/kpage* readers run.
    """
    for oops in oopses.all:
        if oops.region is not Region.NULL or (oops.report.is_boot and not hotplug_signs(oops)):
            continue
        near = (oops.report.function, oops.report.lr.partition("+")[0], *oops.report.trace[:2])
        walker = next((name for name in near if name.startswith(_LOOKUPS)), "")
        if walker:
            judged = [
                judge(key, oops.release, oops.layout.get("page_size"), (f"a NULL usage map in {walker}()",))
                for key in ("usage-race", "usage-null")
            ]
            yield oops_hit(
                oops,
                "Page-frame lookup met a section that was being removed",
                f"{oops.who} read through a NULL pointer in {walker}() (SEC-07). {' '.join(map(str, judged))}",
                Claim.PROBABLE if any(not one.excluded for one in judged) else Claim.SUSPECTED,
                judgement=next((one for one in judged if not one.excluded), judged[0]),
            )
    need_whole(oopses)

"""OOP-04: an oops in a hole of the linear map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.esr import Fault
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.bugs import judge
from rules.model.memory.sections import SectionTable
from rules.model.oops import Oopses, Region
from rules.model.plausibility import linear_standing
from rules.oops.hits import need_whole, oops_hit
from rules.rule import UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="OOP-04",
    name="oops-linear-hole",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=(
        "Linux commit 95a58852b0e5 (v7.1): refuses to offline what would split a leaf",
        "Linux commit bbd6ec605c0f (v5.7)",
    ),
)
def linear_hole(oopses: Oopses, *, section_table: SectionTable | None) -> Iterator[Hit]:
    """The kernel died on a linear address that nothing maps.

    What it means:
    The linear address of a page has no entry. If the page is memory in use, a removal next to it tore out a leaf
    that reached further (LIN-03, after LIN-02).

    How it is detected:
    The region of the address, a translation fault, and the first empty entry that the kernel printed.

    When it is not a problem:
    A bad pointer that happens to lie in the linear range, memory that has been removed and is used still, no-map
    memory and device-private memory have no linear mapping, rightly. So a finding needs a reason: memory was being
    added or removed, the page is hot-added memory, or a whole leaf is missing in memory that the boot had. Holes at a
    level that has no leaves (512 GiB with 4K pages, 4 TiB with 64K), early boot, capture kernels, the crash kernel's
    memory (unmapped before 6.4) and pages far from all memory make none.

    What to do:
    Find out whether the physical address is memory in use (/proc/iomem, memory blocks). If it is, take a crash
    dump and reboot. To prove it: a page-table dump with /proc/iomem (LIN-03).
    """
    unknown = False
    for oops in oopses.all:
        if not oops.faulted(Region.LINEAR, Fault.TRANSLATION) or (oops.hole is not None and oops.hole[1]):
            continue
        standing = linear_standing(oops)
        listed = bool(oops.current and section_table is not None and oops.pfns & section_table.valid)
        added = bool(oops.current and section_table is not None and oops.pfns & section_table.hotadded)
        whole = oops.level in {1, 2}
        if standing.excluded or not (standing.signs or added or (whole and (oops.at_boot or listed))):
            unknown |= bool(oops.current and oops.pfns and not standing.excluded)
            continue
        used = bool(oops.at_boot or listed)
        supports = (*standing.signs, *(("a hole of a whole block",) if whole else ()))
        against = (*standing.contradicts, *(() if whole else ("a hole of one page, as no-map memory has",)))
        judged = judge("leaf-straddle", oops.release, oops.layout.get("page_size"), supports, against)
        yield oops_hit(
            oops,
            "Linear address without a mapping",
            (
                f"{oops.who} touched a linear address that nothing maps (LIN-03, if the page is memory; "
                f"{'it is' if used else 'nothing says so'}): {oops.describe()}. {judged} {oops.assumptions()}"
            ),
            Claim.PROBABLE if used and not judged.excluded else Claim.SUSPECTED,
            _urgency(used=used, whole=whole, reason=bool(standing.signs or added) and not judged.excluded),
            judged,
        )
    oopses.need_regions()
    need_whole(oopses)
    if unknown and section_table is None:
        raise UndecidedError("whether the page of an oops in the linear map is memory is not known", SectionTable)
    if unknown and section_table is not None:
        section_table.need_whole_lists()


def _urgency(*, used: bool, whole: bool, reason: bool) -> Severity | None:
    """Critical for memory in use that a removal touched; without a sign of one, or of a page alone, less."""
    if not reason:
        return Severity.MEDIUM
    return (None if used else Severity.HIGH) if whole else Severity.MEDIUM

"""OOP-04: an oops in a hole of the linear map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.esr import Fault
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.bugs import judge
from rules.model.memory.sections import SectionTable
from rules.model.oops import Oopses, Region
from rules.oops.hits import need_whole, oops_hit
from rules.rule import rule

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
    memory and device-private memory have no linear mapping, rightly.

    What to do:
    Find out whether the physical address is memory in use (/proc/iomem, memory blocks). If it is, take a crash
    dump and reboot. To prove it: a page-table dump with /proc/iomem (LIN-03).
    """
    for oops in oopses.all:
        if not oops.faulted(Region.LINEAR, Fault.TRANSLATION) or (oops.hole is not None and oops.hole[1]):
            continue
        listed = oops.current and section_table is not None and oops.pfns & section_table.valid
        used = oops.at_boot or listed
        supports = ("a hole of a whole block",) if oops.level in {1, 2} else ()
        against = () if oops.level in {1, 2} else ("a hole of one page",)
        judged = judge("leaf-straddle", oops.release, oops.layout.get("page_size"), supports, against)
        yield oops_hit(
            oops,
            "Linear address without a mapping",
            (
                f"{oops.who} touched a linear address that nothing maps (LIN-03, if the page is memory; "
                f"{'it is' if used else 'nothing says so'}): {oops.describe()}. {judged} {oops.rests_on()}"
            ),
            Claim.PROBABLE if used else Claim.SUSPECTED,
            None if used else Severity.HIGH,
        )
    oopses.need_regions()
    need_whole(oopses)

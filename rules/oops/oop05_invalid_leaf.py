"""OOP-05: an oops on a linear address whose entry is there and not valid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.arm64 import PTE
from parsers.esr import Fault
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.bugs import judge
from rules.model.oops import Oopses, Region
from rules.model.plausibility import unmapped_on_purpose
from rules.oops.hits import need_whole, oops_hit
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="OOP-05",
    name="oops-invalid-leaf",
    severity=Severity.HIGH,
    impact=Impact.CORRUPTION,
    references=(
        "Linux commit 15bfba1ad77f (v7.1): invalid large leaves",
        "arch/arm64/mm/pageattr.c set_memory_valid(), set_direct_map_invalid_noflush()",
    ),
)
def invalid_leaf(oopses: Oopses) -> Iterator[Hit]:
    """The kernel died on a linear address whose entry was made invalid on purpose.

    What it means:
    The entry is not empty and does not translate. For one page that is what KFENCE, debug_pagealloc, secretmem
    and module loading do: a use of memory that is protected or freed. For a whole block it is a leaf that the
    kernel made invalid and then did not recognise (ATT-10, 6.18 to 7.0).

    How it is detected:
    A translation fault in the linear map where the kernel printed an entry that is not zero and has bit 0 clear.

    When it is not a problem:
    KFENCE and KASAN print their own report first: read that. Crash tools that read secret memory fault like
    this. Before 6.4 the crash kernel's memory is unmapped (crashkernel= in the log): kmemleak and other code that scans
    memory faults there.

    What to do:
    For one page: look at who used it (KFENCE, KASAN, page_owner). For a block: update, or force page mappings.
    """
    for oops in oopses.all:
        if not oops.faulted(Region.LINEAR, Fault.TRANSLATION) or oops.hole is None or not oops.hole[1]:
            continue
        level, descriptor = oops.hole
        page = level == PTE
        purpose = unmapped_on_purpose(oops)
        cause = "page that was hidden (KFENCE, debug_pagealloc, secretmem)" if page else "large invalid leaf (ATT-10)"
        cause = f"page that is unmapped on purpose: it is in {purpose}" if purpose else cause
        bug = None if page or purpose else judge("invalid-large-leaf", oops.release, oops.layout.get("page_size"))
        judged = "" if bug is None else f" {bug}"
        yield oops_hit(
            oops,
            "Access to memory that the kernel keeps unmapped"
            if purpose
            else f"Linear address with an invalid {'page' if page else 'block'} entry",
            f"{oops.who} touched a {cause}: entry {descriptor:#x}, {oops.describe()}.{judged} {oops.assumptions()}",
            Claim.SUSPECTED,
            Severity.LOW if purpose else Severity.MEDIUM if page else None,
            bug,
        )
    oopses.need_regions()
    need_whole(oopses)

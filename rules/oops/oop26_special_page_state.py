"""OOP-26: a page of a device, or a reserved page, in a state that it must not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.expressions import expression
from parsers.oops import ReportKind
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.oops import Oopses
from rules.model.plausibility import hotplug_signs
from rules.oops.hits import need_whole, oops_hit
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rules.model.oops import DecodedOops


@rule(
    code="OOP-26",
    name="bad-page-special",
    severity=Severity.MEDIUM,
    impact=Impact.LATENT,
    references=(
        "mm/page_alloc.c bad_page(), mm/debug.c dump_page(), mm/memory.c print_bad_pte()",
        "include/linux/mmzone.h ZONE_DEVICE; mm/memremap.c",
    ),
)
def special_page_state(oopses: Oopses) -> Iterator[Hit]:
    """A bad page state of memory that never belongs to the page allocator.

    What it means:
    The page is reserved (boot memory, a hole, struct pages that were never initialised) or a device's (ZONE_DEVICE,
    with a pgmap), and something freed it, allocated it or mapped it like ordinary memory. After hotplug that is a
    page whose section went away or came back under it, or boot memory that was freed (VMM-13).

    How it is detected:
    "Bad page state", "Bad page map" or a page dump whose flags name reserved, a zone of devices, or a pgmap. The line
    "page:… pfn:…" gives the start of vmemmap and PHYS_OFFSET exactly.

    When it is not a problem:
    A driver that frees memory it reserved at boot, or KASAN freeing its own shadow, makes such reports without any
    hotplug. The function in the call trace shows which.

    What to do:
    See who owns the page (section, /proc/iomem) and who freed it (the call trace). If its memory was removed or added
    before: a trace of the operations.
    """
    kinds = (ReportKind.BAD_PAGE, ReportKind.BAD_PTE, ReportKind.PAGE_DUMP)
    for oops in oopses.of_kind(*kinds):
        special = _special(oops)
        if special:
            freed = next((name for name in oops.report.trace if not name.startswith(_PRINTERS)), "")
            by = f" in {freed}()" if freed else ""
            yield oops_hit(
                oops,
                f"Bad state of a {special} page",
                f"{oops.who}: {oops.report.headline}. It is a {special} page{by}: {oops.describe_page()}.",
                Claim.SUSPECTED,
                None if hotplug_signs(oops) else Severity.LOW,
            )
    need_whole(oopses)


_DEVICE = expression(r"ZONE_DEVICE|\bzone_device\b|\bpgmap:[0-9a-f]{8,16}|zone=[45]\b")
_PRINTERS = ("dump_", "show_", "bad_page", "__dump", "print_bad", "free_pcp_prepare", "free_page_is_bad", "check_")


def _special(oops: DecodedOops) -> str:
    flags = oops.report.page_flags
    if "reserved" in flags:
        return "reserved"
    return "device" if _DEVICE.search(oops.report.text) and ("reserved" not in flags) else ""

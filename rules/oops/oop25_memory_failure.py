"""OOP-25: memory that the hardware says is bad."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.dmesg import Kind
from parsers.expressions import expression
from parsers.ranges import EMPTY, Ranges
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.log import need_whole_log, quote_message
from rules.model.log_events import bad_places
from rules.model.oops import Oopses
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.dmesg import Message

MAX_PFNS = 100
_FAILURE = expression(r"Memory failure: (?:0x)?(?P<pfn>[0-9a-f]{1,13}): (?P<what>.+)")


@rule(
    code="OOP-25",
    name="memory-failure-reported",
    severity=Severity.INFO,
    impact=Impact.INFORMATIONAL,
    references=(
        "mm/memory-failure.c memory_failure(), action_result()",
        "drivers/firmware/efi/cper-arm.c, drivers/edac/edac_mc.c: the addresses that firmware and EDAC report",
    ),
)
def memory_failure_reported(oopses: Oopses) -> Iterator[Hit]:
    """The hardware reported bad memory: which pages, how often, and what they were used for.

    What it means:
    The page has an error that cannot be corrected. The kernel takes it out of use where it can, and says what it was
    used for and whether that worked. The same page again and again means that somebody goes on using it, or that
    firmware repeats the event. Where the page holds struct pages or lies in removable memory, ENV-02 says more.

    How it is detected:
    "Memory failure: 0xPFN", and the physical addresses in GHES, EDAC and AEST messages. One finding a page.

    When it is not a problem:
    A page that was recovered costs 4 to 64 KiB. Errors that were injected for a test look the same.

    What to do:
    Replace the module that the firmware or EDAC names. Do not offline or remove the memory block of the page while
    it is in use (ENV-02).
    """
    dmesg, layout = oopses.dmesg, oopses.layout
    pages: dict[int, list[tuple[Message, str]]] = {}
    for message in dmesg.boot.of(Kind.MEMORY_FAILURE):
        found = _FAILURE.match(message.text)
        if found is not None and "outside kernel control" not in found["what"]:
            pages.setdefault(int(found["pfn"], 16), []).append((message, found["what"]))
    for place in bad_places(dmesg.boot, layout):
        known = place.pfn is not None and place.pfn in pages
        same = place.address is not None and any(place.address >> bits in pages for bits in _SHIFTS)
        if known or (place.pfn is None and same):
            continue
        where = f"physical {place.address:#x}" if place.address is not None else f"PFN {place.pfn:#x}"
        yield Hit(
            title="Hardware error at a physical address",
            message=f"{where} was reported {place.repeats + 1} times. It may be memory, or a register of a device.",
            claim=Claim.PROBABLE,
            pfns=EMPTY if place.pfn is None else Ranges.one(place.pfn, place.pfn + 1),
            evidence=(quote_message(dmesg, place.message),),
            key=where,
        )
    for pfn, reports in list(pages.items())[:MAX_PFNS]:
        said = list(dict.fromkeys(what for _, what in reports))
        times = f"{len(reports)} times" if len(reports) > 1 else "once"
        section = ""
        if layout.knows("section_size_bits", "page_size"):
            section = f" (section {pfn // layout.pages_per_section})"
        again = " It is used again after it was poisoned." if len(reports) > 1 else ""
        yield Hit(
            title="Memory failure",
            message=f"PFN {pfn:#x}{section} was reported {times}: {'; '.join(said[:3])}.{again}",
            claim=Claim.PROVEN,
            pfns=Ranges.one(pfn, pfn + 1),
            evidence=tuple(quote_message(dmesg, message) for message, _ in reports[:6]),
            key=f"{pfn:#x}",
        )
    need_whole_log(dmesg)


_SHIFTS = (12, 14, 16)

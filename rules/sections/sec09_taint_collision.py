"""SEC-09: RAM and device memory in one section."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.vmcore.rows import SectionRows
from rules.finding import Hit, Impact, Severity
from rules.model.memory.quotes import name_sections, quote_sections, section_pfns
from rules.model.memory.sections import SectionTable
from rules.rule import NotApplicableError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

_FLAG = "SECTION_TAINT_ZONE_DEVICE"


@rule(
    code="SEC-09",
    name="taint-collision",
    severity=Severity.INFO,
    impact=Impact.INFORMATIONAL,
    references=(
        "Linux commit 1f90a3477df3 (v5.12): online_device_section() and the slow path of pfn_to_online_page()",
    ),
)
def taint_collision(rows: SectionRows, sections: SectionTable) -> Iterator[Hit]:
    """Online RAM and device memory share a section.

    What it means:
    Page frames of that section are distinguished one by one, which is slower, and the edge between the two lies
    inside of the section: what removes the device must keep to its subsections (VMM-01, VMM-06).

    How it is detected:
    The flags of every struct mem_section: ONLINE together with TAINT_ZONE_DEVICE.

    When it is not a problem:
    It is not a problem in itself: RAM that does not end at a section boundary, followed by persistent memory,
    looks like this.

    What to do:
    Nothing. Where the ranges can be chosen, align devices to sections.
    """
    if _FLAG not in rows.flags:
        raise NotApplicableError("this kernel does not mark sections that device memory shares (since 5.12)")
    both = rows.online & rows.device
    if both.any():
        yield Hit(
            title=f"{name_sections(rows, both)}: RAM and device memory together",
            message="The section is online and holds device memory too.",
            claim=sections.claim,
            pfns=section_pfns(rows, both, sections.pages_per_section),
            evidence=quote_sections(rows, both, sections.source),
        )

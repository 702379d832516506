"""SEC-01: online sections that are not present or have no memmap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.vmcore.rows import SectionRows
from rules.finding import Hit, Impact, Severity
from rules.model.memory.quotes import name_sections, quote_sections, section_pfns
from rules.model.memory.sections import SectionTable
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="SEC-01",
    name="online-not-valid",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=("include/linux/mmzone.h present_section(), valid_section(), online_section() (v6.12)",),
)
def online_not_valid(rows: SectionRows, sections: SectionTable) -> Iterator[Hit]:
    """A section is marked online and is not present, or has no memmap.

    What it means:
    pfn_to_online_page() asks for the online bit alone and hands out struct pages that do not exist. Whoever walks page
    frames next reads or writes what lies there instead.

    How it is detected:
    The flags of every struct mem_section: ONLINE without MARKED_PRESENT or without HAS_MEM_MAP.

    When it is not a problem:
    Never: adding marks a section present and valid before it is online, and removing takes only offline ones.

    What to do:
    Stop all memory hotplug, keep the crash dump, reboot, and look in the log for a failed add or remove.
    """
    wrong = rows.online & ~(rows.present & rows.has_memmap)
    if wrong.any():
        yield Hit(
            title=f"{name_sections(rows, wrong)}: online without being present and valid",
            message="The online bit is set where section_mem_map lacks MARKED_PRESENT or HAS_MEM_MAP.",
            claim=sections.claim,
            pfns=section_pfns(rows, wrong, sections.pages_per_section),
            evidence=quote_sections(rows, wrong, sections.source),
        )

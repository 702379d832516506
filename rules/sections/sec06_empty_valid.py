"""SEC-06: section flags and subsection map disagree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.vmcore.rows import SectionRows
from rules.finding import Hit, Impact, Severity
from rules.model.memory.quotes import name_sections, quote_sections, section_pfns
from rules.model.memory.sections import SectionTable
from rules.rule import UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="SEC-06",
    name="empty-valid-section",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=("mm/sparse.c section_activate(), section_deactivate() (v5.3 to 6.12)",),
)
def empty_valid(rows: SectionRows, sections: SectionTable) -> Iterator[Hit]:
    """A valid section has no subsections, or a section that is not valid has some.

    What it means:
    The last subsection that leaves takes the section's validity with it, and the first that comes brings it.
    One without the other is a removal or an add that stopped half-way, or a stray write.

    How it is detected:
    HAS_MEM_MAP against the bits of usage->subsection_map. SEC-06b: bits without HAS_MEM_MAP.

    When it is not a problem:
    Sections of boot memory are valid over their whole span whatever the map says. A dump taken in the middle of
    hotplug can show the moment between the two.

    What to do:
    Stop all memory hotplug of that range. Look in the log for a failed add or remove, and reboot.
    """
    filled = (rows.subsections != 0).any(axis=1)
    valid = rows.has_memmap
    empty = valid & ~rows.early & rows.subsections_known & ~filled
    if empty.any():
        yield Hit(
            title=f"{name_sections(rows, empty)}: valid without any subsection",
            message="The section has a memmap, and its subsection map is empty.",
            claim=sections.claim,
            pfns=section_pfns(rows, empty, sections.pages_per_section),
            evidence=quote_sections(rows, empty, sections.source),
            key="empty",
        )
    stray = ~valid & filled
    if stray.any():
        yield Hit(
            title=f"{name_sections(rows, stray)}: subsections of a section that is not valid",
            message="SEC-06b: the subsection map has bits set, and the section has no memmap.",
            claim=sections.claim,
            severity=Severity.HIGH,
            pfns=section_pfns(rows, stray, sections.pages_per_section),
            evidence=quote_sections(rows, stray, sections.source),
            key="stray",
        )
    unread = ~rows.early & (rows.usage != 0) & ~rows.subsections_known
    if unread.any():
        raise UndecidedError(f"the subsection maps of {int(unread.sum())} sections are not in the dump", SectionRows)

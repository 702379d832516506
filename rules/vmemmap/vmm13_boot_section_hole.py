"""VMM-13: a boot section whose struct pages are not mapped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.ranges import Ranges
from rules.finding import Hit, Impact, Severity
from rules.model.memory.regions import Vmemmap
from rules.model.memory.sections import SectionTable
from rules.rule import UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="VMM-13",
    name="boot-section-hole",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=(
        "mm/sparse.c sparse_init_nid(): the memmap of a boot section covers the whole section (v4.19 to 6.18)",
    ),
)
def boot_section_hole(vmemmap: Vmemmap, sections: SectionTable) -> Iterator[Hit]:
    """Struct pages of memory that was present at boot are not mapped.

    What it means:
    The kernel maps the struct pages of a boot section completely at boot and never frees them. A hole
    means corruption, or a boot memmap that was freed by mistake.

    How it is detected:
    The sections of the boot memory are looked up in the vmemmap area.

    When it is not a problem:
    If allocation failed at boot, the section is left out altogether; dmesg then says "memory map
    backing failed".

    What to do:
    Search the boot log for "memory map backing failed". If it is missing, take a crash dump and reboot.
    """
    if not sections.early:
        raise UndecidedError("which memory was present at boot is not known", "dmesg")
    missing = sections.early & vmemmap.pfns(vmemmap.pages_missing)
    for lo, hi in missing.tuples():
        lost = Ranges.one(lo, hi)
        offsets = vmemmap.of_pfns(lost)
        yield Hit(
            title="Struct pages of boot memory are not mapped",
            message=f"{lost.total} pages (PFNs {lo:#x}-{hi:#x}) of boot sections have no struct page mapped.",
            claim=sections.claim,
            pfns=lost,
            vas=vmemmap.va_ranges(offsets),
            evidence=vmemmap.quote_at(offsets),
        )
    unseen = sections.early - vmemmap.pfns(vmemmap.pages_observed)
    if unseen:
        raise UndecidedError(f"the struct pages of {unseen.total} boot pages are not in the dump", Vmemmap)

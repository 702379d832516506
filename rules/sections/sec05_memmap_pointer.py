"""SEC-05: a section whose memmap pointer leads elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.layout import KernelLayout
from parsers.vmcore.rows import SectionRows
from rules.finding import Hit, Impact, Severity
from rules.model.memory.quotes import name_sections, quote_sections, section_pfns
from rules.model.memory.sections import SectionTable
from rules.rule import UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

_FLAGS = np.uint64(0x3F)  # below SECTION_NID_SHIFT; the pointer's own low bits are zero, sections being far larger


@rule(
    code="SEC-05",
    name="memmap-pointer",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=("mm/sparse.c sparse_encode_mem_map() (v6.12); arch/arm64/include/asm/pgtable.h vmemmap",),
)
def memmap_pointer(rows: SectionRows, sections: SectionTable, layout: KernelLayout) -> Iterator[Hit]:
    """The memmap pointer of a valid section is not the vmemmap array.

    What it means:
    With vmemmap every valid section stores the same biased pointer, the address of the struct page of PFN 0.
    Another value is a stray write, and removal of the section frees struct pages that are not its own.

    How it is detected:
    section_mem_map without its flags is compared with VMEMMAP_START less the struct pages below PHYS_OFFSET.

    When it is not a problem:
    A section that is present and not valid keeps its node number there; such sections are not looked at.

    What to do:
    Do not remove the section. Keep the crash dump and look for what else lies damaged near the address below.
    """
    base = layout.vmemmap_start - layout.start_pfn * layout.struct_page_size
    valid = rows.has_memmap
    wrong = valid & ((rows.section_mem_map & ~_FLAGS) != np.uint64(base))
    if not wrong.any():
        return
    if np.array_equal(wrong, valid):
        raise UndecidedError("no section's pointer is at the computed vmemmap: the layout is in doubt", KernelLayout)
    yield Hit(
        title=f"{name_sections(rows, wrong)}: the memmap pointer does not point into vmemmap",
        message=f"Every valid section stores {base:#x} as its memmap; these do not.",
        claim=sections.claim,
        pfns=section_pfns(rows, wrong, sections.pages_per_section),
        evidence=quote_sections(rows, wrong, sections.source),
    )

"""SEC-07: a valid section without its usage map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.layout import KernelLayout
from parsers.vmcore.rows import SectionRows
from rules.finding import Hit, Impact, Severity
from rules.model.memory.quotes import name_sections, quote_sections, section_pfns
from rules.model.memory.sections import SectionTable
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator

_TAG = 0xFF << 56  # KASAN keeps a tag in the top byte of a pointer


@rule(
    code="SEC-07",
    name="usage-missing",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=(
        "Linux commits 5ec8e8ea8b77 (v6.8, CVE-2023-52489) and 82f0b6f041fa (v6.10, CVE-2024-41055)",
        "mm/sparse.c section_deactivate() (v6.12)",
    ),
)
def usage_missing(rows: SectionRows, sections: SectionTable, layout: KernelLayout) -> Iterator[Hit]:
    """A valid section has no usage map, or an invalid pointer to one.

    What it means:
    pfn_valid() follows ``usage`` of every valid section that is not boot memory, and oopses at a small address or at a
    poisoned one. Removing the section frees whatever the pointer names.

    How it is detected:
    ``usage`` of valid sections is NULL, or is not an address of the linear map, where the kernel allocates it.

    When it is not a problem:
    A section that is being removed has lost its memmap first, so it is not valid any more.

    What to do:
    Update to a kernel with both fixes. Keep the crash dump: pfn_valid() in the oops shows who came across it.
    """
    # Unsigned: what lies below the linear map is far above it.
    offset = (rows.usage | np.uint64(_TAG)) - np.uint64(layout.page_offset)
    wrong = rows.has_memmap & (offset >= np.uint64(layout.linear_end - layout.page_offset))
    if wrong.any():
        yield Hit(
            title=f"{name_sections(rows, wrong)}: valid without a usage map",
            message="The section has a memmap, and its usage pointer is NULL or no address of the linear map.",
            claim=sections.claim,
            pfns=section_pfns(rows, wrong, sections.pages_per_section),
            evidence=quote_sections(rows, wrong, sections.source),
        )

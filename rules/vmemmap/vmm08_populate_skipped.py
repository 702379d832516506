"""VMM-08: struct pages that were never populated, because a table was there already."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.ftrace.functions import Kind
from parsers.layout import Precision
from parsers.ranges import Ranges
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.bugs import bug, describe_fixes
from rules.model.memory.regions import Vmemmap
from rules.model.memory.sections import SectionTable
from rules.model.replay.timeline import Timeline
from rules.rule import NotApplicableError, UndecidedError, rule
from rules.trace.anomalies import MAX_HITS, hit_of_call
from rules.vmemmap.skipped import populate_skipped

if TYPE_CHECKING:
    from collections.abc import Iterator

_TABLE = np.uint64(3)
"""Low bits of a descriptor that points to a table (Arm ARM D8.3)."""


@rule(
    code="VMM-08",
    name="populate-skipped",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=("Linux commit 9ab2601dc4c1 (v6.14): arm64/mm: Test for pmd_sect() in vmemmap_check_pmd()",),
)
def populate_skipped_under_table(vmemmap: Vmemmap, sections: SectionTable) -> Iterator[Hit]:
    """A section that was added whole has empty entries in the table under its struct pages.

    What it means:
    Hot-add maps the struct pages of a whole section with one block. Where the entry is in use it takes
    for granted that a block is there already; a table that an earlier removal left behind (TBL-01) passes
    for one, and the struct pages under its empty entries are never mapped. Their first use oopses.

    How it is detected:
    Sections of which every subsection is valid and which came after boot, in the exact section table: their
    struct pages must be mapped, and an empty entry in a last-level table was never filled.

    When it is not a problem:
    16K and 64K kernels map struct pages with pages only. Holes of whole blocks are torn out (VMM-02), as
    are holes in sections that are populated in part.

    What to do:
    Do not touch the memory, take a crash dump, reboot and update the kernel. Empty tables (TBL-01) in the
    vmemmap area of a running kernel announce it.
    """
    if vmemmap.layout.page_size != 4096:
        raise NotApplicableError(f"{vmemmap.layout.granule.name} pages: struct pages are always mapped with base pages")
    if sections.precision is not Precision.EXACT:
        raise UndecidedError("which subsections are valid is not known exactly", "vmcore")
    skipped = populate_skipped(vmemmap, sections)
    unit = sections.pages_per_section
    for number in skipped.divide(unit, outward=True).scale(unit).tuples():
        lost = skipped & Ranges.one(*number)
        offsets = vmemmap.of_pfns(lost)
        yield Hit(
            title="Struct pages of a whole section were never populated",
            message=(
                f"{lost.total} pages ({', '.join(f'PFNs {lo:#x}-{hi:#x}' for lo, hi in lost.tuples()[:4])}) of "
                "sections that are wholly valid have no struct page: the PMD entry is a table, and its entries for "
                f"them are empty; {describe_fixes(bug('vmemmap-check-pmd'))}."
            ),
            claim=Claim.PROVEN,
            pfns=lost,
            vas=vmemmap.va_ranges(offsets),
            evidence=vmemmap.quote_at(offsets),
        )


@populate_skipped_under_table.fallback
def predicted_by_trace(timeline: Timeline) -> Iterator[Hit]:
    """What vmemmap_check_pmd() does before 9ab2601dc4c1: it mistakes a table for a block."""
    calls = timeline.calls
    mine = calls.of(Kind.VMEMMAP_CHECK_PMD)
    pmd, _ = calls.argument("pmd")
    accepted = (calls.ret[mine] == 1) & ((pmd[mine] & _TABLE) == _TABLE)
    for call in mine[accepted][:MAX_HITS].tolist():
        yield hit_of_call(
            timeline, call, "A table was taken for a block of struct pages",
            f"{timeline.describe(call)} accepts the table {int(pmd[call]):#x}: what its entries do not map stays "
            "unmapped.",
            Claim.PROBABLE,
        )  # fmt: skip

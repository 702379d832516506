"""CNT-01: a contiguous run with entries missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import PMD, PTE, Attr
from parsers.layout import KernelLayout
from parsers.mapping import Mapping
from rules.finding import Claim, Evidence, Hit, Impact, Severity, VaRange
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.mapping import I64, Bool

MAX_HITS = 256


@rule(
    code="CNT-01",
    name="incomplete-contiguous-run",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=(
        "Arm ARM D8.6.1: misprogramming of the Contiguous bit",
        "arch/arm64/mm/mmu.c unmap_hotplug_pmd_range(): clears single entries, never unfolds a run",
    ),
)
def incomplete_run(mapping: Mapping, layout: KernelLayout) -> Iterator[Hit]:
    """A run of entries marked contiguous is not whole.

    What it means:
    The Contiguous bit promises that a whole aligned run of entries is valid and alike. Where it is not,
    the CPU may raise a TLB conflict abort or translate with an entry that is gone.

    How it is detected:
    Rows with the Contiguous bit must start and end on multiples of the run's size at their level. A
    run in which attributes change shows as two rows that do not, and is just as wrong.

    When it is not a problem:
    The vmalloc area may change while it is dumped, so runs there are only suspected.

    What to do:
    Typical cause: part of a contiguous range was removed. Boot with rodata=full, do not remove
    parts of what was added, take a crash dump.
    """
    first, last = groups(mapping)
    broken = np.flatnonzero(_broken(mapping, layout, first, last))[:MAX_HITS]
    for row, end in zip(first[broken].tolist(), last[broken].tolist(), strict=True):
        start = int(mapping.start[row])
        size = int(mapping.last[end]) + 1 - start
        region = layout.region_of(start)
        stable = region in {"linear", "vmemmap"}
        run = layout.granule.cont_span(int(mapping.level[row]))
        line = None if mapping.line is None else int(mapping.line[row])
        yield Hit(
            title="A contiguous run is incomplete",
            message=(
                f"The row at {start:#x} ({size >> 10} KiB) has the Contiguous bit and is not a whole number of aligned "
                f"runs of {run >> 10} KiB."
            ),
            claim=Claim.PROVEN if stable else Claim.SUSPECTED,
            severity=None if stable else Severity.HIGH,
            vas=(VaRange(start, start + size, region),),
            evidence=(Evidence(mapping.source, mapping.describe(row), line),),
        )


def groups(mapping: Mapping) -> tuple[I64, I64]:
    """First and last row of each group of neighbours alike in level and attributes (a walk splits rows by address)."""
    alike = np.zeros(len(mapping), dtype=np.bool_)
    alike[1:] = mapping.start[1:] == mapping.last[:-1] + np.uint64(1)
    for column in (mapping.level, mapping.attrs, mapping.memtype):
        alike[1:] &= column[1:] == column[:-1]
    first = np.flatnonzero(~alike)
    return first, np.append(first, len(mapping))[1:] - 1


def _broken(mapping: Mapping, layout: KernelLayout, first: I64, last: I64) -> Bool:
    """Groups with the Contiguous bit that are not a whole number of aligned runs."""
    broken = np.zeros(first.size, dtype=np.bool_)
    edges = mapping.start[first] | (mapping.last[last] + np.uint64(1))
    for level in (PTE, PMD):
        odd = edges % np.uint64(layout.granule.cont_span(level)) != 0
        broken |= (mapping.has(Attr.CONT) & (mapping.level == level))[first] & odd
    return broken

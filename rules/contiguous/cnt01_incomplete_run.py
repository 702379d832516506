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

    from parsers.mapping import Bool


@rule(
    code="CNT-01",
    name="incomplete-contiguous-run",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    needs=(Mapping, KernelLayout),
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
    broken = broken_runs(mapping, layout)
    for row in np.flatnonzero(broken).tolist()[:256]:
        start, size = int(mapping.start[row]), int(mapping.size[row])
        region = layout.region_of(start)
        stable = region in {"linear", "vmemmap"}
        run = layout.granule.cont_span(int(mapping.level[row]))
        line = None if mapping.line is None else int(mapping.line[row])
        yield Hit(
            title="A contiguous run is incomplete",
            message=(
                f"The row at {start:#x} ({size >> 10} KiB) has the Contiguous bit and is no whole number of aligned "
                f"runs of {run >> 10} KiB."
            ),
            claim=Claim.PROVEN if stable else Claim.SUSPECTED,
            severity=None if stable else Severity.HIGH,
            vas=(VaRange(start, start + size, region),),
            evidence=(Evidence(mapping.source, mapping.quote(row) if mapping.quote else f"{start:#x}", line),),
        )


def broken_runs(mapping: Mapping, layout: KernelLayout) -> Bool:
    """Rows whose contiguous runs are not whole."""
    broken = np.zeros(len(mapping), dtype=np.bool_)
    for level in (PTE, PMD):
        odd = np.uint64(layout.granule.cont_span(level) - 1)
        rows = mapping.has(Attr.CONT) & (mapping.level == level)
        broken |= rows & (((mapping.start | mapping.size) & odd) != 0)
    return broken

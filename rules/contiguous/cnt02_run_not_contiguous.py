"""CNT-02: a contiguous run that leads to scattered pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import PMD, PTE, Attr
from parsers.layout import KernelLayout
from parsers.mapping import Mapping
from rules.contiguous.cnt01_incomplete_run import groups
from rules.finding import Claim, Evidence, Hit, Impact, Severity, VaRange
from rules.model.memory.walk import PageWalk
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.mapping import U64

MAX_HITS = 256


@rule(
    code="CNT-02",
    name="run-not-contiguous",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=("Arm ARM D8.6.1: the entries of a contiguous run output one aligned range",),
)
def run_not_contiguous(mapping: Mapping, layout: KernelLayout, walk: PageWalk) -> Iterator[Hit]:
    """Entries marked contiguous map pages that are not consecutive.

    What it means:
    The CPU may translate a whole run with the TLB entry that it made of any one of its entries: an access
    ends in another page than the tables say, and which one changes from access to access.

    How it is detected:
    The output addresses of all rows with the Contiguous bit, from the walk of a crash dump: within an aligned
    run they must go on without a break, and the first must be aligned to the size of the run.

    When it is not a problem:
    Never. A run of which entries are missing or differ in attributes is CNT-01.

    What to do:
    Take a crash dump; look for code that changes single entries of a run.
    """
    if mapping.pa is None:
        return
    run = np.ones(len(mapping), dtype=np.uint64)
    for level in (PTE, PMD):
        run[mapping.level == level] = layout.granule.cont_span(level)
    low, high = _whole_runs(mapping, run)
    begins, ends = mapping.start // run, mapping.last // run
    marked = mapping.valid & mapping.has(Attr.CONT) & (run != 1) & (begins <= high) & (ends >= low)
    wrong = marked & (((mapping.pa - mapping.start) % run != 0) | walk.repeated)
    # A row that begins inside of a run, where a row like it goes on at another output address.
    cut = marked & (begins >= low) & (mapping.start % run != 0)
    wrong |= cut | np.roll(cut, -1)
    for row in np.flatnonzero(wrong)[:MAX_HITS].tolist():
        start, size, pa = int(mapping.start[row]), int(mapping.size[row]), int(mapping.pa[row])
        yield Hit(
            title="A contiguous run maps pages that are not contiguous",
            message=(
                f"{size >> 10} KiB at {start:#x} lead to physical {pa:#x} and are marked contiguous; in an aligned "
                f"run of {int(run[row]) >> 10} KiB the output addresses are not one aligned range."
            ),
            claim=Claim.PROVEN,
            vas=(VaRange(start, start + size, layout.region_of(start)),),
            evidence=(Evidence(mapping.source, mapping.describe(row)),),
        )


def _whole_runs(mapping: Mapping, run: U64) -> tuple[U64, U64]:
    """For each row, the numbers of the first and the last run whose entries are all present and alike.

    What lies before the first or after the last of a row's neighbours is CNT-01.
    """
    first, last = groups(mapping)
    group = np.repeat(np.arange(first.size), last - first + 1)
    start, end = mapping.start[first][group], mapping.last[last][group]
    return start // run + (start % run != 0), (end - (run - np.uint64(1))) // run

"""CNT-02: Entries marked contiguous map pages that are not consecutive."""

from __future__ import annotations

import pytest

from parsers.arm64 import PMD, PTE, PUD, Attr
from rules.contiguous.cnt02_run_not_contiguous import run_not_contiguous
from rules.finding import Claim, Severity
from tests.rules.contiguous.runs import CONT, PLAIN, RUN, WHOLE, places, row


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([WHOLE], []),
        ([row(0, 16, RUN)], []),
        ([row(0, 16, 1)], [(0, 16)]),
        ([row(0, 16, 0, repeated=True)], [(0, 16)]),
        ([row(0, 16, 1, attrs=PLAIN)], []),
        ([row(0, 8, 0, attrs=PLAIN), row(8, 16, 24, attrs=PLAIN)], []),
        ([row(0, 16, 1, attrs=CONT & ~Attr.VALID)], []),
        ([row(0, 16, 0, level=PUD, repeated=True)], []),
        ([row(0, 8192, RUN, level=PMD)], [(0, 8192)]),
        # Each half goes on where its run would, but they are two runs.
        ([row(0, 8, 0), row(8, 16, 24)], [(0, 8), (8, 16)]),
        ([row(0, 16, 0), row(16, 24, 32), row(24, 48, 8)], [(16, 24), (24, 48)]),
        ([row(0, 16, 0, attrs=PLAIN), row(16, 24, 16), row(24, 32, 40)], [(16, 24), (24, 32)]),
        ([row(0, 16, 0), row(16, 32, 64)], []),
        # What is not whole is CNT-01, wherever it leads.
        ([row(8, 16, 9)], []),
        ([row(8, 16, 9), row(16, 32, 16)], []),
        ([row(0, 16, 0), row(16, 24, 17)], []),
        ([row(8, 12, 8), row(12, 32, 28)], []),
        ([row(0, 8, 0), row(8, 16, 24, attrs=CONT | Attr.RDONLY)], []),
        ([row(0, 24, 0), row(24, 48, 24, attrs=CONT | Attr.RDONLY)], []),
        ([row(0, 16, 0), row(16, 31, 17)], []),
    ],
)
def test_runs_that_map_several_places(layout, rows, expected):
    assert places(layout, rows, run_not_contiguous) == expected


def test_a_contiguous_run_with_pages_in_another_order(pmem):
    """Two neighbours of the kernel image swapped: all entries are valid and alike."""
    one, two = pmem.entry(0xFFFF800080610000, PTE), pmem.entry(0xFFFF800080611000, PTE)
    codes, verdicts = pmem.caused({one: pmem.word(two), two: pmem.word(one)})
    assert codes == {"CNT-02"}
    finding = verdicts["CNT-02"].findings[0]
    assert (finding.severity, finding.hit.claim) == (Severity.CRITICAL, Claim.PROVEN)


def test_a_contiguous_run_to_an_address_that_is_not_aligned(pmem):
    first = pmem.entry(0xFFFF800080610000, PTE)
    words = {first + 8 * index: pmem.word(first + 8 * index) + 4096 for index in range(16)}
    codes, _ = pmem.caused(words)
    assert codes == {"CNT-02"}

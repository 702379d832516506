"""CNT-01: A run of entries marked contiguous is not whole."""

from __future__ import annotations

import pytest

from parsers.arm64 import PMD, PTE, PUD, Attr, MemType
from rules.contiguous.cnt01_incomplete_run import incomplete_run
from tests.rules.contiguous.runs import CONT, PLAIN, WHOLE, places, row
from tests.rules.dumps import CONTIGUOUS, linear_address


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([WHOLE], []),
        ([row(0, 15, 0)], [(0, 15)]),
        ([row(1, 16, 1)], [(1, 16)]),
        ([row(0, 8, 0), row(8, 16, 24)], []),  # one run of like entries, wherever they lead
        ([row(0, 8, 0), row(9, 16, 9)], [(0, 8), (9, 16)]),
        ([row(0, 8, 0), row(8, 16, 8, attrs=CONT | Attr.RDONLY)], [(0, 8), (8, 16)]),
        ([row(0, 8, 0), row(8, 16, 8, memtype=MemType.NORMAL_NC)], [(0, 8), (8, 16)]),
        ([row(504, 512, 504), row(512, 8704, 512, level=PMD)], [(504, 512), (512, 8704)]),
        ([row(0, 8192, 0, level=PMD), row(8192, 8200, 8192)], [(8192, 8200)]),
        ([row(0, 16, 0, attrs=PLAIN), row(16, 24, 16), row(24, 32, 24, attrs=PLAIN)], [(16, 24)]),
        ([row(0, 8, 0, level=PUD)], []),
    ],
)
def test_runs_that_are_not_whole(layout, rows, expected):
    assert places(layout, rows, incomplete_run) == expected


def test_a_lone_contiguous_bit(pmem):
    entry = pmem.entry(linear_address(0x4D000000), PMD)
    codes, _ = pmem.caused({entry: pmem.word(entry) | CONTIGUOUS})
    assert codes == {"CNT-01"}
    page = pmem.entry(0xFFFF8000810B1000, PTE)
    codes, _ = pmem.caused({page: pmem.word(page) | CONTIGUOUS})
    assert codes == {"CNT-01"}

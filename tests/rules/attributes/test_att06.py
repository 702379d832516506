"""ATT-06: Blocks of the linear map are read-only outside of the kernel image."""

from __future__ import annotations

import pytest

from rules.engine import Outcome
from tests.rules.attributes.machines import HALF, READ_ONLY, invalid, outcome
from tests.rules.drawn import BLOCK, GIB, MIB, RAM, Drawn

CODE = RAM + 32 * MIB


@pytest.mark.parametrize(
    ("read_only", "code", "expected"),
    [
        ((0, 8), (0, 8), []),
        ((0, 8), (0, 7), []),  # up to the end of the block
        ((0, 12), (0, 7), []),  # rodata, from the next block on
        ((0, 12), (0, 8), []),
        ((10, 12), (0, 8), [(10, 12)]),
        ((-2, 8), (0, 8), [(-2, 0)]),
    ],
)
def test_read_only_blocks_that_are_not_the_kernel(tmp_path, read_only, code, expected):
    lo, hi = (CODE + one * MIB for one in read_only)
    rows = ((RAM, lo, "PMD", BLOCK), (lo, hi, "PMD", READ_ONLY), (hi, RAM + GIB, "PMD", BLOCK))
    iomem = (
        (RAM, RAM + GIB, "System RAM"),
        *((CODE + lo * MIB, CODE + hi * MIB, "  Kernel code") for lo, hi in [code]),
    )
    verdict = Drawn(linear=rows, iomem=iomem).verdict(tmp_path, "ATT-06")
    found = [one for finding in verdict.findings for one in finding.hit.pfns.tuples()]
    assert found == [(CODE + lo * MIB >> 12, CODE + hi * MIB >> 12) for lo, hi in expected]


def test_read_only_blocks_need_the_place_of_the_kernel_and_count_where_they_translate(tmp_path):
    for flags, expected in ((READ_ONLY, Outcome.UNDECIDED), (invalid(READ_ONLY), Outcome.PASSED)):
        rows = ((RAM, HALF, "PMD", BLOCK), (HALF, HALF + 2 * MIB, "PMD", flags))
        assert outcome(Drawn(linear=rows), tmp_path, "ATT-06") is expected

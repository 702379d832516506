"""LIN-05: A linear address translates to the wrong page."""

from __future__ import annotations

import pytest

from parsers.arm64 import PMD, Attr
from rules.engine import Outcome
from rules.finding import Severity
from rules.linear_map.lin05_wrong_offset import wrong_linear_offset
from rules.model.memory.walk import PageWalk
from tests.rules.dumps import linear_address, the_finding
from tests.rules.walked import PFN, facts, judged, linear, places


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([linear(0, 16, 0), linear(16, 16, 16)], []),
        ([linear(0, 16, 0), linear(16, 16, 32)], [(PFN + 16, PFN + 32)]),
        ([linear(0, 16, 0), linear(16, 16, 32, attrs=Attr.PRESENT)], []),
        ([linear(0, 16, 0), linear(16, 16, 16, repeated=True)], [(PFN + 16, PFN + 32)]),
        ([linear(0, 16, 0), linear(16, 16, 16, repeated=True, attrs=Attr.PRESENT)], []),
    ],
)
def test_where_linear_addresses_lead(layout, rows, expected):
    assert places(judged(wrong_linear_offset, facts(layout, rows))) == expected


def test_only_the_walk_shows_repeated_entries(layout):
    known = facts(layout, [linear(0, 16, 0), linear(16, 16, 16, repeated=True)])
    del known.known[PageWalk]
    assert judged(wrong_linear_offset, known).outcome is Outcome.PASSED


def test_linear_entries_that_map_one_page(pmem):
    """The first of them is right."""
    here, there = pmem.entry(linear_address(0x4D000000), PMD), pmem.entry(linear_address(0x4D200000), PMD)
    codes, verdicts = pmem.caused({there: pmem.word(here)})
    assert codes == {"LIN-05"}
    assert the_finding(verdicts, "LIN-05").severity is Severity.CRITICAL

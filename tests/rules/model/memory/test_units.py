"""Ranges that leave one by one: which of them share a section."""

from __future__ import annotations

import numpy as np
import pytest

from rules.model.memory.lists import Units

SECTION = 0x8000


@pytest.mark.parametrize(
    ("edges", "shares"),
    [
        ([(0x80000, 0x88000), (0x88000, 0x90000)], False),
        ([(0x80000, 0x84000), (0x84000, 0x88000)], True),
        ([(0x80000, 0x84000), (0x88000, 0x90000)], False),
        ([(0x80000, 0x8C000), (0x8C000, 0x98000)], True),
        ([(0x84000, 0x88000)], False),
    ],
)
def test_units_share_a_section_where_the_next_begins_inside(edges, shares):
    start, end = (np.array(side) for side in zip(*edges, strict=True))
    units = Units(start, end, ("dax",) * len(edges), (None,) * len(edges), "iomem")
    assert units.share_a_section(np.array([0]), np.array([len(edges)]), SECTION).tolist() == [shares]


def test_runs_of_no_unit_share_nothing():
    units = Units(np.array([0x84000, 0x86000]), np.array([0x86000, 0x88000]), ("a", "b"), (None, None), "iomem")
    first, after = np.array([0, 1, 2, 0]), np.array([0, 1, 2, 2])
    assert units.share_a_section(first, after, SECTION).tolist() == [False, False, False, True]

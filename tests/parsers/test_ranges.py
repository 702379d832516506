"""Range algebra is set algebra."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from parsers.ranges import EMPTY, Ranges

EDGES = st.integers(-40, 40)


PAIRS = st.lists(st.tuples(EDGES, EDGES), max_size=6)


UNITS = st.integers(1, 9)


def members(ranges: Ranges) -> set[int]:
    return {number for lo, hi in ranges.tuples() for number in range(lo, hi)}


def set_of(pairs: list[tuple[int, int]]) -> set[int]:
    return {number for lo, hi in pairs for number in range(lo, hi)}


def assert_canonical(ranges: Ranges) -> None:
    assert ranges.start.dtype == ranges.end.dtype == np.int64
    assert (ranges.end > ranges.start).all()
    assert (ranges.start[1:] > ranges.end[:-1]).all()


@given(PAIRS)
def test_ranges_hold_what_they_are_made_of(pairs: list[tuple[int, int]]) -> None:
    ranges = Ranges.pairs(pairs)
    assert_canonical(ranges)
    assert members(ranges) == set_of(pairs)
    assert ranges.total == len(set_of(pairs))
    assert bool(ranges) == bool(set_of(pairs))
    assert len(ranges) == len(ranges.tuples())


@given(PAIRS, PAIRS)
def test_operators_are_those_of_sets(one: list[tuple[int, int]], two: list[tuple[int, int]]) -> None:
    a, b = Ranges.pairs(one), Ranges.pairs(two)
    for made, wanted in (
        (a | b, set_of(one) | set_of(two)),
        (a & b, set_of(one) & set_of(two)),
        (a - b, set_of(one) - set_of(two)),
    ):
        assert_canonical(made)
        assert members(made) == wanted
    assert (a == b) == (set_of(one) == set_of(two))
    assert a != b or hash(a) == hash(b)


@given(PAIRS, st.lists(EDGES, max_size=8))
def test_points_are_counted_and_found(pairs: list[tuple[int, int]], points: list[int]) -> None:
    ranges, content = Ranges.pairs(pairs), set_of(pairs)
    assert ranges.below(points).tolist() == [sum(number < point for number in content) for point in points]
    assert ranges.contains(points).tolist() == [point in content for point in points]


@given(PAIRS, PAIRS)
def test_windows_are_covered_as_sets_intersect(pairs: list[tuple[int, int]], windows: list[tuple[int, int]]) -> None:
    ranges, content = Ranges.pairs(pairs), set_of(pairs)
    ordered = [(min(window), max(window)) for window in windows]
    start, end = [lo for lo, _ in ordered], [hi for _, hi in ordered]
    wanted = [len(content & set(range(lo, hi))) for lo, hi in ordered]
    assert ranges.covered(start, end).tolist() == wanted
    assert ranges.touches(start, end).tolist() == [count > 0 for count in wanted]


@given(PAIRS, UNITS)
def test_units_are_whole_or_touched(pairs: list[tuple[int, int]], unit: int) -> None:
    ranges, content = Ranges.pairs(pairs), set_of(pairs)
    units = range(-60, 60)
    touched = {number for number in units if content & set(range(number * unit, (number + 1) * unit))}
    whole = {number for number in units if set(range(number * unit, (number + 1) * unit)) <= content}
    assert members(ranges.divide(unit, outward=True)) == touched
    assert members(ranges.divide(unit, outward=False)) == whole
    assert ranges.widen(unit) == ranges.divide(unit, outward=True).scale(unit)
    assert ranges.shrink(unit) == ranges.divide(unit, outward=False).scale(unit)
    for made in (ranges.widen(unit), ranges.shrink(unit), ranges.divide(unit, outward=True)):
        assert_canonical(made)


@given(PAIRS, st.integers(-9, 9), UNITS)
def test_moving_and_scaling(pairs: list[tuple[int, int]], by: int, factor: int) -> None:
    ranges, content = Ranges.pairs(pairs), set_of(pairs)
    assert members(ranges.shift(by)) == {number + by for number in content}
    scaled = {number * factor + part for number in content for part in range(factor)}
    assert members(ranges.scale(factor)) == scaled


def test_empty_is_nothing() -> None:
    assert not EMPTY
    assert EMPTY == Ranges.one(3, 3) == Ranges.one(3, 2) == Ranges.pairs([])
    assert EMPTY.below([1]).tolist() == [0]

"""The table of kernel functions agrees with itself: ranges with arguments, callers with callers."""

from __future__ import annotations

import pytest

from parsers.ftrace.functions import FUNCTION_OF_KIND, FUNCTIONS, Kind, Unit, callers_of, kinds_in, unit_of

PAGES = {"start_pfn", "nr_pages"}


def columns(function):
    """Everything that the function's events can have."""
    words = {word for _, signature in function.signatures for word in signature.split()}
    return words | function.fetch.keys() | function.btf.keys()


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda one: one.names[0])
def test_a_range_is_in_the_columns_of_its_unit(function):
    found = columns(function)
    if function.unit is Unit.PFN:
        assert found >= PAGES
    elif function.unit is not Unit.NONE:
        assert "start" in found
        assert "start_pfn" not in found
    else:
        assert "start" not in found
        assert not found >= PAGES


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda one: one.names[0])
def test_no_function_calls_itself(function):
    above, fresh = set(), {function.kind}
    while fresh:
        fresh = {caller for kind in fresh for caller in callers_of(kind)} - above
        above |= fresh
    assert function.kind not in above
    assert set(function.always_in) <= set(function.callers)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda one: one.names[0])
def test_callers_stand_innermost_first(function):
    """A caller is never called by one that stands before it."""
    for number, caller in enumerate(function.callers):
        assert not set(function.callers[:number]) & set(callers_of(caller)) - {caller}


def test_events_that_are_not_functions_have_no_range_and_no_caller():
    for kind in set(Kind) - FUNCTION_OF_KIND.keys():
        assert (unit_of(kind), callers_of(kind)) == (Unit.NONE, ())
    assert sorted(kind for unit in Unit for kind in kinds_in(unit)) == sorted(FUNCTION_OF_KIND)

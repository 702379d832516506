"""TRC-15: Removing memory takes long, or flushes the TLB entry by entry."""

import pytest

from tests.rules.changed_traces import FIRED, PASSED, UNDECIDED, replaced, without


@pytest.mark.parametrize(("end", "outcome"), [("18.954218", FIRED), ("18.954217", PASSED)])
def test_ten_seconds_are_long(case_verdict, end, outcome):
    verdict = case_verdict("TRC-15", "quiet", replaced(r"8\.\d{6}(: arch_rem_ret)", rf"{end}\1"))
    assert verdict.outcome is outcome


@pytest.mark.parametrize(("flushes", "outcome"), [(512, FIRED), (511, PASSED)])
def test_many_flushes_of_one_unmapping(case_verdict, flushes, outcome):
    def change(lines):
        one_by_one = [line for line in lines if "tlbi_va1: " in line]
        return [line for line in lines if line not in set(one_by_one[flushes:])]

    assert case_verdict("TRC-15", "fires-flush-each-entry", change).outcome is outcome


def test_neither_returns_nor_flushes_decide_nothing(case_verdict):
    returns, flushes = r": \w+_ret: ", r": tlbi_"
    assert case_verdict("TRC-15", "quiet", without(returns)).outcome is PASSED
    assert case_verdict("TRC-15", "quiet", without(flushes)).outcome is PASSED
    assert case_verdict("TRC-15", "quiet", without(returns, flushes)).outcome is UNDECIDED

"""TRC-09: Memory is removed and its linear map is not."""

from tests.rules.changed_traces import FIRED, UNDECIDED, replaced, without


def test_a_removal_that_does_not_end_in_the_trace(case_verdict):
    assert case_verdict("TRC-09", "quiet", without("arch_rem_ret: ")).outcome is UNDECIDED
    assert case_verdict("TRC-09", "fires", without("arch_rem_ret: ")).outcome is not FIRED


def test_a_removal_whose_range_was_not_traced(case_verdict):
    verdict = case_verdict("TRC-09", "fires", replaced(r"(arch_rem: \([^)]*\)).*", r"\1"))
    assert verdict.outcome is UNDECIDED

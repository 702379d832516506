"""TRC-06: Adding memory failed and what it had added is still there."""

from tests.rules.changed_traces import UNDECIDED, without


def test_an_add_whose_return_was_not_traced(case_verdict):
    assert case_verdict("TRC-06", "quiet", without("arch_add_memory_ret: ")).outcome is UNDECIDED

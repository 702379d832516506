"""SEC-04: System RAM without a memory block, or an online block without System RAM."""

import pytest

from rules.engine import Outcome
from tests.rules.captures import DIMM, alarms, verdict_in


@pytest.mark.parametrize("end", [b"System R", b"9fffff"], ids=["name", "address"])
def test_a_list_of_resources_that_ends_early_proves_no_absence(changed_capture, end):
    """The line of the hot-added memory is half there."""

    def upto(data):
        return data[: data.index(end, data.index(b"80000000-9fffffff : System RAM\n")) + len(end)]

    report = changed_capture(DIMM, iomem=upto)
    assert alarms(report) == set()
    assert verdict_in(report, "SEC-04").outcome is Outcome.UNDECIDED
    assert "cut short" in verdict_in(report, "SEC-04").reason


def test_a_list_that_lost_its_last_line_end_is_whole(changed_capture):
    report = changed_capture(DIMM, iomem=lambda data: data.rstrip(b"\n"))
    assert verdict_in(report, "SEC-04").outcome is Outcome.PASSED


def test_a_list_of_resources_that_begins_with_a_child_lost_its_head(changed_capture):
    report = changed_capture(DIMM, iomem=lambda data: data[data.index(b"  ") :])
    assert "cut short" in verdict_in(report, "SEC-04").reason

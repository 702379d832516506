"""TRC-14: One range is offlined again and again."""

import pytest

from tests.rules.changed_traces import FIRED, PASSED, UNDECIDED


def attempts(*calls):
    """One call a second: ``(online or offline, PFN)``."""
    lines = ["# tracer: nop", "#", f"# entries-in-buffer/entries-written: {len(calls)}/{len(calls)}   #P:1", "#"]
    for second, (what, pfn) in enumerate(calls, 1):
        place = f"{what}_pages: ({what}_pages+0x0/0x100)"
        lines.append(f"              sh-58      [000] d.... {second:5d}.000000: {place} pfn={pfn:#x} nr_pages=32768")
    return lambda _: lines


HERE, THERE = 0x80000, 0x88000


@pytest.mark.parametrize(
    ("calls", "outcome"),
    [
        ([("offline", HERE)] * 10, FIRED),
        ([("offline", HERE)] * 9, PASSED),
        ([("online", HERE), *[("offline", HERE)] * 9], PASSED),
        ([("online", HERE), *[("offline", HERE)] * 10], FIRED),
        ([*[("offline", HERE)] * 6, ("online", HERE), *[("offline", HERE)] * 6], PASSED),
        ([*[("offline", HERE)] * 6, *[("offline", THERE)] * 6], PASSED),
        ([("offline", HERE), ("offline", THERE)] * 10, FIRED),
        ([("online", HERE)], UNDECIDED),
    ],
)
def test_ten_attempts_are_a_storm(case_verdict, calls, outcome):
    verdict = case_verdict("TRC-14", "fires", attempts(*calls))
    assert verdict.outcome is outcome
    for finding in verdict.findings:
        assert finding.hit.title == "One range was offlined 10 times"
        ((first, end),) = finding.hit.pfns.tuples()
        assert (first in {HERE, THERE}, end - first) == (True, 0x8000)


def test_attempts_without_their_range_are_not_a_storm(case_verdict):
    calls = attempts(*[("offline", HERE)] * 10)
    verdict = case_verdict("TRC-14", "fires", lambda _: [line.split(" pfn=")[0] for line in calls(_)])
    assert verdict.outcome is UNDECIDED

"""TRC-10: A change of memory was announced and never concluded."""

import re

from tests.rules.changed_traces import FIRED, PASSED, at_place, without


def until(pattern):
    """The lines before the first in which it is found."""
    return lambda lines: lines[: next(at for at, line in enumerate(lines) if re.search(pattern, line))]


def test_an_announcement_that_no_call_encloses(case_verdict):
    """Somebody else's notifier chain, or a call that began before the trace; the last call of the trace ends."""
    call = "notify: (memory_notify+0x0/0x38) action=3 w0=0x0 w1=0x0 w2=0x80000 w3=0x8000"
    lone = f"              sh-58      [001] d....     7.000000: {call}"

    def change(lines):
        call, end = (next(line for line in lines if f": online{word}: " in line) for word in ("", "_ret"))
        last = [re.sub(r" 7\.", "97.", line) for line in (call, end)]
        return [*at_place("online: ", lone)(lines), *last]

    assert case_verdict("TRC-10", "quiet", change).outcome is PASSED


def test_the_first_call_of_the_trace_counts(case_verdict):
    def change(lines):
        second = [at for at, line in enumerate(lines) if ": online: " in line][1]
        return ["# tracer: nop", *lines[second:]]

    verdict = case_verdict("TRC-10", "fires", change)
    assert [one.hit.title for one in verdict.findings] == ["MEM_GOING_ONLINE without its conclusion"]


def test_an_announcement_of_a_call_that_does_not_end_in_the_trace(case_verdict):
    assert case_verdict("TRC-10", "quiet", until("online_ret: ")).outcome is PASSED
    assert case_verdict("TRC-10", "fires", without("online_ret: ")).outcome is not FIRED

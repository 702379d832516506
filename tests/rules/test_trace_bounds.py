"""Where rules about traces begin to speak: traces of kernels, some lines changed."""

import re
from pathlib import Path

import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from rules.engine import Outcome
from rules.finding import Claim, Severity
from tests.cases import case_file, files_of

FIXTURES = Path(__file__).parents[2] / "fixtures" / "rules"
FIRED, PASSED, UNDECIDED = Outcome.FIRED, Outcome.PASSED, Outcome.UNDECIDED


@pytest.fixture
def judged(tmp_path):
    """The verdict of one rule about the trace of a fixture, changed by a function of its lines."""

    def verdict(code, case, change=lambda lines: lines, *, left_out=("expected.json",)):
        for name, file in files_of(f"{code}/{case}").items():
            if name not in left_out:
                (tmp_path / name).write_bytes(file.read_bytes())
        lines = case_file(f"{code}/{case}", "trace").read_text().splitlines()
        (tmp_path / "trace").write_text("".join(f"{line}\n" for line in change(lines)))
        (found,) = audit(Request((tmp_path,)), only=[code]).verdicts
        return found

    return verdict


def without(*patterns):
    """Leaves out the lines in which one is found."""
    return lambda lines: [line for line in lines if not any(re.search(one, line) for one in patterns)]


def exchanged(pattern, text):
    return lambda lines: [re.sub(pattern, text, line) for line in lines]


def until(pattern):
    """The lines before the first in which it is found."""
    return lambda lines: lines[: next(at for at, line in enumerate(lines) if re.search(pattern, line))]


def at_place(pattern, *more):
    """Puts lines in front of the first in which it is found."""

    def change(lines):
        at = next(at for at, line in enumerate(lines) if re.search(pattern, line))
        return [*lines[:at], *more, *lines[at:]]

    return change


# Offlining again and again --------------------------------------------------------------------------------------------


def attempts(*calls):
    """One call a second: ``(online or offline, PFN)``."""
    lines = ["# tracer: nop"]
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
def test_ten_attempts_are_a_storm(judged, calls, outcome):
    verdict = judged("TRC-14", "fires", attempts(*calls))
    assert verdict.outcome is outcome
    for finding in verdict.findings:
        assert finding.hit.title == "One range was offlined 10 times"
        ((first, end),) = finding.hit.pfns.tuples()
        assert (first in {HERE, THERE}, end - first) == (True, 0x8000)


def test_attempts_without_their_range_are_no_storm(judged):
    calls = attempts(*[("offline", HERE)] * 10)
    verdict = judged("TRC-14", "fires", lambda _: [line.split(" pfn=")[0] for line in calls(_)])
    assert verdict.outcome is UNDECIDED


# Removal that takes long ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("end", "outcome"), [("18.954218", FIRED), ("18.954217", PASSED)])
def test_ten_seconds_are_long(judged, end, outcome):
    verdict = judged("TRC-15", "quiet", exchanged(r"8\.\d{6}(: arch_rem_ret)", rf"{end}\1"))
    assert verdict.outcome is outcome


@pytest.mark.parametrize(("flushes", "outcome"), [(512, FIRED), (511, PASSED)])
def test_many_flushes_of_one_unmapping(judged, flushes, outcome):
    def change(lines):
        one_by_one = [line for line in lines if "tlbi_va1: " in line]
        return [line for line in lines if line not in set(one_by_one[flushes:])]

    assert judged("TRC-15", "fires-flush-each-entry", change).outcome is outcome


def test_neither_returns_nor_flushes_decide_nothing(judged):
    returns, flushes = r": \w+_ret: ", r": tlbi_"
    assert judged("TRC-15", "quiet", without(returns)).outcome is PASSED
    assert judged("TRC-15", "quiet", without(flushes)).outcome is PASSED
    assert judged("TRC-15", "quiet", without(returns, flushes)).outcome is UNDECIDED


# What was not traced, or not to its end -------------------------------------------------------------------------------


def test_a_removal_that_does_not_end_in_the_trace(judged):
    assert judged("TRC-09", "quiet", without("arch_rem_ret: ")).outcome is UNDECIDED
    assert judged("TRC-09", "fires", without("arch_rem_ret: ")).outcome is not FIRED


def test_a_removal_of_which_the_range_was_not_traced(judged):
    verdict = judged("TRC-09", "fires", exchanged(r"(arch_rem: \([^)]*\)).*", r"\1"))
    assert verdict.outcome is UNDECIDED


def test_an_announcement_that_no_call_encloses(judged):
    """Somebody else's notifier chain, or a call that began before the trace; the last call of the trace ends."""
    call = "notify: (memory_notify+0x0/0x38) action=3 w0=0x0 w1=0x0 w2=0x80000 w3=0x8000"
    lone = f"              sh-58      [001] d....     7.000000: {call}"

    def change(lines):
        call, end = (next(line for line in lines if f": online{word}: " in line) for word in ("", "_ret"))
        last = [re.sub(r" 7\.", "97.", line) for line in (call, end)]
        return [*at_place("online: ", lone)(lines), *last]

    assert judged("TRC-10", "quiet", change).outcome is PASSED


def test_the_first_call_of_the_trace_counts(judged):
    def change(lines):
        second = [at for at, line in enumerate(lines) if ": online: " in line][1]
        return ["# tracer: nop", *lines[second:]]

    verdict = judged("TRC-10", "fires", change)
    assert [one.hit.title for one in verdict.findings] == ["MEM_GOING_ONLINE without its conclusion"]


def test_an_announcement_of_a_call_that_does_not_end_in_the_trace(judged):
    assert judged("TRC-10", "quiet", until("online_ret: ")).outcome is PASSED
    assert judged("TRC-10", "fires", without("online_ret: ")).outcome is not FIRED


def test_an_add_of_which_the_return_was_not_traced(judged):
    assert judged("TRC-06", "quiet", without("arch_add_memory_ret: ")).outcome is UNDECIDED


# What the trace does not prove ----------------------------------------------------------------------------------------


def test_what_is_found_among_lost_events_is_a_suspicion(judged):
    found = []
    for lost in ((), ("CPU:1 [LOST 3 EVENTS]",)):
        (finding,) = judged("TRC-01", "fires", at_place("arch_remove_memory: ", *lost)).findings
        found.append((finding.hit.claim, finding.severity))
    assert found == [(Claim.PROVEN, Severity.CRITICAL), (Claim.SUSPECTED, Severity.MEDIUM)]


def test_what_follows_from_nothing_that_was_traced_is_a_suspicion(judged):
    """How the struct pages were populated was not traced, and no release tells: a block, or pages."""
    unknown = without(r"vmemmap_populate_(huge|base)pages: ")
    (finding,) = judged("TRC-07", "fires", unknown, left_out=("expected.json", "uname")).findings
    assert (finding.hit.claim, finding.severity) == (Claim.SUSPECTED, Severity.MEDIUM)


# The error path of self-hosted memory ---------------------------------------------------------------------------------


def test_blocks_of_which_the_return_was_not_traced(judged):
    assert judged("MOM-06", "quiet", without("create_memory_block_devices_ret: ")).outcome is UNDECIDED


@pytest.mark.parametrize(
    "change",
    [
        exchanged(r"u8:0-12 (.*arch_remove_memory: |.*sparse_remove|.*vmemmap_free)", r"u8:0-13 \1"),
        exchanged(r"(create_memory_block_devices: .*) start=0x80000000", r"\1 start=0x90000000"),
        exchanged("ret=-17", "ret=0"),
    ],
    ids=["another task", "another range", "not refused"],
)
def test_a_removal_without_altmap_that_undoes_no_add(judged, change):
    assert judged("MOM-06", "fires", change).outcome is PASSED


def test_blocks_that_were_refused_after_the_removal(judged):
    def change(lines):
        create = [line for line in lines if "create_memory_block_devices" in line]
        rest = [line for line in lines if line not in create]
        return rest + [re.sub(r"2\.619", "2.620", line) for line in create]

    assert judged("MOM-06", "fires", change).outcome is PASSED


# Struct pages of huge pages -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("HVO-06", ["1.886803: hvo_optimize: ", "1.889511: vmemmap_remap_range: "]),
        ("HVO-07", ["1.886803: hvo_optimize: "]),
    ],
)
def test_the_calls_that_are_quoted(judged, code, what):
    """The first and the last; of a race the first, and the release."""
    (finding,) = judged(code, "fires").findings
    quoted = [one.text for one in finding.hit.evidence if one.source.endswith("trace")]
    assert len(quoted) == len(what)
    assert all(words in text for words, text in zip(what, quoted, strict=True)), quoted

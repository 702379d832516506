"""What rests on an event that is not in the trace, where events of the trace were lost."""

from __future__ import annotations

import pytest

from rules.engine import Outcome
from rules.finding import Claim, Severity
from tests.cases import CAPTURES
from tests.rules.drawn import MIB
from tests.rules.replays import audited
from tests.rules.traces import Tracer

DIMM = 2 << 30, 128 * MIB
NEIGHBOUR = (2 << 30) + 128 * MIB, 128 * MIB
HEAD = "# tracer: nop\n#\n# entries-in-buffer/entries-written: {0}/{0}   #P:1\n#\n"


def report_on(tmp_path, lines, entries=None):
    """An audit of a trace whose head counts ``entries``, those of ``lines`` without; no head if that is 0."""
    count = sum("]" in line and ": " in line for line in lines) if entries is None else entries
    head = HEAD.format(count) if count else ""
    (tmp_path / "trace").write_text(head + "".join(f"{line}\n" for line in lines))
    return audited(tmp_path / "trace", only=("TRC",))


def severities(report):
    return {one.rule.code: one.severity for one in report.findings if one.rule.code != "TRC-17"}


PREVENTED = {
    "TRC-01": ("add", "online", "remove"),
    "TRC-03": ("add", "add"),
    "TRC-04": ("add", "remove", "remove"),
    "TRC-12": ("add", "remove", "online"),
}
"""Operations on one DIMM, of which the kernel refuses the last."""


def lines_of(code):
    tracer = Tracer()
    for operation in PREVENTED[code]:
        getattr(tracer, operation)(*DIMM)
    return tracer.lines


@pytest.mark.parametrize("code", PREVENTED)
def test_a_trace_that_is_whole_proves_what_the_kernel_prevents(tmp_path, code):
    assert severities(report_on(tmp_path, lines_of(code)))[code] >= Severity.HIGH


@pytest.mark.parametrize("code", PREVENTED)
def test_a_trace_with_a_hole_only_lets_it_be_suspected(tmp_path, code):
    """The head counts more entries than there are."""
    lines = lines_of(code)
    found = severities(report_on(tmp_path, lines, len(lines) + 2))
    assert found[code] is Severity.MEDIUM
    assert max(found.values()) is Severity.MEDIUM


@pytest.mark.parametrize("code", PREVENTED)
def test_a_trace_that_does_not_count_its_entries_only_lets_it_be_suspected(tmp_path, code):
    """What ``trace_pipe`` prints: a hole would not be noticed, and the kernel refuses all of this."""
    found = [one for one in report_on(tmp_path, lines_of(code), 0).findings if one.rule.code == code]
    assert {(one.hit.claim, one.severity) for one in found} == {(Claim.SUSPECTED, Severity.MEDIUM)}


@pytest.mark.parametrize(
    ("place", "severity"), [("mhp_online: ", Severity.CRITICAL), ("mhp_arch_rem: ", Severity.MEDIUM)]
)
def test_events_lost_before_the_state_was_shown_do_not_matter(tmp_path, place, severity):
    lines = lines_of("TRC-01")
    at = next(at for at, line in enumerate(lines) if place in line)
    assert severities(report_on(tmp_path, [*lines[:at], "CPU:0 [LOST 3 EVENTS]", *lines[at:]]))["TRC-01"] is severity


def test_a_call_far_from_the_lost_events_rests_on_what_was_shown_before_them(tmp_path):
    """Events are lost between going online and the removal; other memory is added after them."""
    tracer = Tracer()
    tracer.add(*DIMM)
    tracer.online(*DIMM)
    tracer.lines.append("CPU:0 [LOST 3 EVENTS]")
    tracer.add(*NEIGHBOUR)
    tracer.remove(*DIMM)
    assert severities(report_on(tmp_path, tracer.lines))["TRC-01"] is Severity.MEDIUM


@pytest.mark.parametrize("counted", [True, False])
def test_rules_about_order_pass_on_a_trace_that_counts_its_entries(tmp_path, counted):
    tracer = Tracer()
    tracer.add(*DIMM)
    tracer.remove(*DIMM)
    report = report_on(tmp_path, tracer.lines, None if counted else 0)
    outcomes = {one.rule.code: one.outcome for one in report.verdicts}
    assert outcomes["TRC-04"] is (Outcome.PASSED if counted else Outcome.UNDECIDED)


def test_a_trace_without_its_middle_accuses_nobody(tmp_path):
    """It lost the offlining of three blocks; the head counts the entries."""
    trace = (CAPTURES / "dimm-6.1-4k-kaslr-blocks/04-dimm-removed/trace").read_text().splitlines(keepends=True)
    (tmp_path / "trace").write_text("".join(trace[: len(trace) // 3] + trace[2 * len(trace) // 3 :]))
    found = severities(audited(tmp_path / "trace", only=("TRC",)))
    assert found["TRC-01"] is Severity.MEDIUM
    assert max(found.values()) is Severity.MEDIUM

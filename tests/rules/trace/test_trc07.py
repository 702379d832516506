"""TRC-07: A removal clears struct pages of memory that stays."""

from __future__ import annotations

import pytest

from rules.engine import Outcome
from rules.finding import Claim, Severity
from tests.cases import CAPTURES
from tests.rules.captures import alarms, begun_late, verdict_in
from tests.rules.changed_traces import without
from tests.rules.drawn import MIB
from tests.rules.replays import audited, events, joined
from tests.rules.traces import Tracer


def test_what_follows_from_nothing_that_was_traced_is_a_suspicion(case_verdict):
    """How the struct pages were populated was not traced, and no release says: a block, or pages."""
    unknown = without(r"vmemmap_populate_(huge|base)pages: ")
    (finding,) = case_verdict("TRC-07", "fires", unknown, left_out=("expected.json", "uname")).findings
    assert (finding.hit.claim, finding.severity) == (Claim.SUSPECTED, Severity.MEDIUM)


@pytest.mark.parametrize("moment", ["pmem-6.12-fixed/02-one-removed", "dimm-6.12-16k/04-dimm-removed"])
def test_a_trace_that_begins_later_makes_no_alarm(changed_capture, moment):
    report = changed_capture(moment, trace=lambda data: begun_late(data.decode()).encode())
    assert verdict_in(report, "TRC-07").outcome is not Outcome.ERROR
    assert alarms(report) == set()


def test_evidence_of_a_finding_is_the_line_of_the_trace():
    path = CAPTURES / "pmem-6.12-vuln" / "02-one-removed" / "trace"
    (finding,) = [one for one in audited(path).findings if one.rule.code == "TRC-07"]
    lines = path.read_text().splitlines()
    for one in finding.hit.evidence:
        assert lines[one.line - 1].strip() == one.text


def test_fingerprint_does_not_depend_on_what_was_traced_before(tmp_path):
    lines = events(CAPTURES / "pmem-6.12-vuln" / "02-one-removed" / "trace")
    tracer = Tracer()
    tracer.add(6 << 30, 128 * MIB)
    tracer.remove(6 << 30, 128 * MIB)
    prints = []
    for name, before in (("one", []), ("two", tracer.lines)):
        (tmp_path / name).write_text(joined([*before, *lines]))
        found = audited(tmp_path / name, only=("TRC-07",)).findings
        prints.append([one.fingerprint for one in found])
    assert prints[0] == prints[1] != []

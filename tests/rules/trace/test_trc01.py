"""TRC-01: Memory is removed while it is online."""

from __future__ import annotations

from click.testing import CliRunner

from analyzer.timeline.timeline_command import command
from rules.finding import Claim, Severity
from tests.rules.changed_traces import at_place
from tests.rules.replays import audited


def test_what_is_found_among_lost_events_is_a_suspicion(case_verdict):
    found = []
    for lost in ((), ("CPU:1 [LOST 3 EVENTS]",)):
        (finding,) = case_verdict("TRC-01", "fires", at_place("arch_remove_memory: ", *lost)).findings
        found.append((finding.hit.claim, finding.severity))
    assert found == [(Claim.PROVEN, Severity.CRITICAL), (Claim.SUSPECTED, Severity.MEDIUM)]


def test_log_lines_are_light_events(tmp_path):
    path = tmp_path / "dmesg"
    path.write_text(
        "[    0.000000] Linux version 6.12.117 (root@vm) (gcc 12.2.0) #2 SMP\n"
        "[    0.000000] Memory: 250368K/327680K available\n"
        "[   12.345678] Offlined Pages 32768\n"
    )
    result = CliRunner().invoke(command, [str(path)])
    assert result.exit_code == 0, result.output
    assert "Offlined Pages 32768" in result.output
    undecided = {one.rule.code: one.reason for one in audited(path, only=("TRC",)).verdicts}
    assert "words only" in undecided["TRC-01"]

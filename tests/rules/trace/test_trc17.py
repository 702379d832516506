"""TRC-17: Events are missing from the trace, or their order is not known."""

from __future__ import annotations

from rules.engine import Outcome
from tests.cases import FIXTURES
from tests.rules.changed_traces import counted
from tests.rules.drawn import MIB
from tests.rules.replays import audited
from tests.rules.traces import Tracer


def test_lost_events_make_rules_about_order_undecided(tmp_path):
    tracer = Tracer()
    tracer.add(2 << 30, 128 * MIB)
    tracer.remove(2 << 30, 128 * MIB)
    tracer.lines.insert(5, "CPU:0 [LOST 12 EVENTS]")
    (tmp_path / "trace").write_text(tracer.text)
    report = audited(tmp_path / "trace", only=("TRC",))
    outcomes = {one.rule.code: one.outcome for one in report.verdicts}
    assert outcomes.pop("TRC-17") is Outcome.FIRED
    assert Outcome.PASSED not in outcomes.values()


def test_function_log_without_arguments_leaves_every_rule_undecided(tmp_path):
    function = (FIXTURES / "ftrace" / "run3-function.txt").read_text().splitlines()
    bare = counted([line for line in function if "=0x" not in line])
    (tmp_path / "trace").write_text("\n".join(bare) + "\n")
    report = audited(tmp_path / "trace", only=("TRC",))
    passed = {one.rule.code for one in report.verdicts if one.outcome is Outcome.PASSED}
    assert passed == {"TRC-17"}

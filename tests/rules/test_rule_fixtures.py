"""Every rule has evidence that makes it fire, its nearest false alarm, and evidence that does not decide it.

``fixtures/rules/<CODE>/{fires,quiet,undecided}*/`` are capture directories, with ``earlier_page_tables`` where a
rule compares two dumps; ``expected.json`` beside the files of a
``fires`` case holds what the rule must report, and ``also`` the other rules of high severity that may fire there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from analyzer.audit import Report, audit
from analyzer.reports.json import document
from analyzer.sources.read import Request
from rules.engine import Outcome, builtin_rules
from rules.finding import Severity

FIXTURES = Path(__file__).parents[2] / "fixtures" / "rules"
CASES = sorted(path for path in FIXTURES.glob("*/*") if path.is_dir())
FROM_CRASH_DUMPS_ONLY: set[str] = {
    *("LIN-05", "VMM-08", "VMM-09", "VMM-11", "VMM-14", "TBL-02", "TBL-06", "CNT-02", "CNT-06", "HVO-03", "HVO-05"),
    *("SEC-01", "SEC-05", "SEC-06", "SEC-07", "SEC-09", "SEC-12", "SEC-13"),
    *("MOM-01", "MOM-02", "MOM-03", "MOM-09"),
    *("WIT-02", "WIT-03"),
}
OUTCOMES = {"fires": Outcome.FIRED, "quiet": Outcome.PASSED, "undecided": Outcome.UNDECIDED}
"""By the first word of the name; where expected.json says another, that."""


def expected(case: Path) -> dict[str, Any]:
    path = case / "expected.json"
    return json.loads(path.read_text()) if path.exists() else {}


def audited(case: Path) -> Report:
    earlier = case / "earlier_page_tables"
    return audit(Request((earlier, case) if earlier.exists() else (case,)))


@pytest.mark.parametrize("case", CASES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_rule_comes_to_its_outcome(case: Path) -> None:
    code, wanted = case.parent.name, case.name.split("-")[0]
    report = audited(case)
    verdict = next(one for one in report.verdicts if one.rule.code == code)
    assert verdict.outcome == expected(case).get("outcome", OUTCOMES[wanted]), verdict.reason
    if wanted == "undecided":
        assert verdict.reason
        assert verdict.collect


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.name.startswith("fires")],
    ids=lambda path: f"{path.parent.name}-{path.name}",
)
def test_fired_rule_reports_what_is_expected_and_no_other_rule_raises_alarm(case: Path) -> None:
    report = audited(case)
    keys = ("severity", "claim", "title", "sections", "pfn_ranges", "va_ranges")
    found = [{key: one[key] for key in keys} for one in document(report)["findings"] if one["rule"] == case.parent.name]
    assert found == expected(case)["findings"]
    alarms = {one.rule.code for one in report.findings if one.severity >= Severity.HIGH} - {case.parent.name}
    assert alarms == set(expected(case).get("also", []))


def test_every_rule_has_its_three_fixtures() -> None:
    for rule in builtin_rules():
        if rule.code in FROM_CRASH_DUMPS_ONLY:
            continue
        names = {case.name.split("-")[0] for case in CASES if case.parent.name == rule.code}
        assert names == {"fires", "quiet", "undecided"}, rule.code

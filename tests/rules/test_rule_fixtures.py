"""Every rule has evidence that makes it fire, its nearest false alarm, and evidence that does not decide it.

``fixtures/rules/<CODE>/{fires,quiet,undecided}*/`` are captures (`tests.cases`), with ``earlier_page_tables`` where a
rule compares two dumps.  ``expected.json`` of a ``fires`` case holds the findings of the rule, and in ``also`` the
other rules of high severity that fire there; ``pytest --update`` writes both from what the rules say now, to be looked
at with git diff.  A case of another kind may say another ``outcome``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from analyzer.audit import Report, audit
from analyzer.reports.json import document
from analyzer.sources.read import Request
from parsers.kinds import KINDS
from rules.engine import Outcome, builtin_rules
from rules.facts import how_to_collect
from rules.finding import Severity
from rules.rule import Rule
from tests.cases import CASES, RULES, case, files_of

EXACT_FACTS_ONLY = {"CNT-06", "LIN-05", "VMM-08", "VMM-14", "WIT-02", "WIT-03"}
"""Rules that decide on a crash dump only, although a text gives the facts that they need."""
HERE = Path(__file__).parent
OUTCOMES = {"fires": Outcome.FIRED, "quiet": Outcome.PASSED, "undecided": Outcome.UNDECIDED}
"""By the first word of the name; where expected.json says another, that."""
KEYS = ("severity", "claim", "title", "sections", "pfn_ranges", "va_ranges")


def expected(name: str) -> dict[str, Any]:
    path = RULES / name / "expected.json"
    return json.loads(path.read_text()) if path.exists() else {}


def audited(name: str) -> Report:
    home = case(name)
    earlier = home / "earlier_page_tables"
    return audit(Request((earlier, home) if earlier.exists() else (home,)))


@pytest.mark.parametrize("name", CASES)
def test_rule_comes_to_its_outcome(name: str) -> None:
    code, _, kind = name.partition("/")
    wanted = kind.split("-")[0]
    report = audited(name)
    verdict = next(one for one in report.verdicts if one.rule.code == code)
    assert verdict.outcome == expected(name).get("outcome", OUTCOMES[wanted]), verdict.reason
    if wanted == "undecided":
        assert verdict.reason
        assert verdict.collect


def test_readme_says_where_every_case_comes_from() -> None:
    sections = (RULES / "README.md").read_text().split("\n## ")[1:]
    told = {
        f"{code}/{name}"
        for code, _, text in (section.partition("\n") for section in sections)
        for line in text.splitlines()
        if line.startswith("- ")
        for name in line[2:].partition(":")[0].split(", ")
    }
    assert set(CASES) - told == set()
    assert told - set(CASES) == set()


@pytest.mark.parametrize("name", [name for name in CASES if "/fires" in name])
def test_fired_rule_reports_what_is_expected_and_no_other_rule_raises_alarm(
    name: str, request: pytest.FixtureRequest
) -> None:
    code, _, _ = name.partition("/")
    report = audited(name)
    found = [{key: one[key] for key in KEYS} for one in document(report)["findings"] if one["rule"] == code]
    alarms = {one.rule.code for one in report.findings if one.severity >= Severity.HIGH} - {code}
    if request.config.getoption("--update"):
        assert found, "the rule finds nothing here"
        update(RULES / name / "expected.json", findings=found, also=sorted(alarms))
    assert found == expected(name)["findings"]
    assert alarms == set(expected(name).get("also", []))


def update(path: Path, *, findings: list[dict[str, Any]], also: list[str]) -> None:
    """Write what a case is expected to report; nothing where it says that already."""
    old = json.loads(path.read_text()) if path.exists() else {}
    new = {**old, "findings": findings, "also": also}
    if new != {"also": [], **old}:
        path.write_text(json.dumps(new, indent=2, ensure_ascii=False) + "\n")


def from_crash_dumps_only(rule: Rule) -> bool:
    """Whether no case of files can make the rule decide: its tests damage a dump."""
    dump = (KINDS["vmcore"].step,)
    return rule.code in EXACT_FACTS_ONLY or any(how_to_collect(kind) == dump for kind in rule.needs)


def test_every_rule_has_its_three_fixtures_or_damages_a_dump() -> None:
    for rule in builtin_rules():
        if from_crash_dumps_only(rule):
            assert any(HERE.glob(f"*/test_{rule.code.replace('-', '').lower()}.py")), rule.code
            continue
        names = {name.partition("/")[2].split("-")[0] for name in CASES if name.startswith(f"{rule.code}/")}
        assert names == {"fires", "quiet", "undecided"}, rule.code


@pytest.mark.parametrize("name", CASES)
def test_a_case_names_files_that_exist(name: str) -> None:
    for file, source in files_of(name).items():
        assert source.is_file(), f"{file}: {source}"

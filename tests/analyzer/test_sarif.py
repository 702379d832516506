"""SARIF: valid by the official schema, every result in a file and on the line that shows it."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import unquote, urlparse

import jsonschema
import pytest

from rules.engine import builtin_rules
from rules.finding import Severity
from tests.analyzer.conftest import CAPTURES

SCHEMA = json.loads((Path(__file__).parents[2] / "fixtures/schemas/sarif-2.1.0-rtm.5.json").read_text())
MOMENTS = sorted(path.parent for path in CAPTURES.glob("*/02*/kernel_page_tables"))


def run_of(ptaudit, *arguments) -> dict:
    log = json.loads(ptaudit("audit", *arguments, "--format", "sarif").out)
    jsonschema.validate(log, SCHEMA, cls=jsonschema.Draft4Validator)
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    return run


def file_of(run: dict, location: dict) -> Path:
    artifact = location["physicalLocation"]["artifactLocation"]
    base = run["originalUriBaseIds"][artifact["uriBaseId"]]["uri"] if "uriBaseId" in artifact else ""
    return Path(unquote(urlparse(base + artifact["uri"]).path))


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda path: path.parent.name)
def test_every_result_lies_on_the_line_that_it_quotes(ptaudit, moment: Path) -> None:
    run = run_of(ptaudit, moment)
    for result in run["results"]:
        assert result["ruleId"] == run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"]
        assert result["locations"]
        for location in [*result["locations"], *result.get("relatedLocations", [])]:
            region = location["physicalLocation"]["region"]
            lines = file_of(run, location).read_text().splitlines()
            assert 1 <= region["startLine"] <= len(lines)


def test_snippet_of_a_page_table_row_is_the_line_itself(ptaudit, damaged: Path) -> None:
    run = run_of(ptaudit, damaged, "--select", "VMM-02")
    (result,) = run["results"]
    (location,) = result["locations"]
    line = location["physicalLocation"]["region"]["startLine"]
    text = (damaged / "kernel_page_tables").read_text().splitlines()[line - 1]
    assert location["physicalLocation"]["region"]["snippet"]["text"].strip() == text.strip()
    assert result["level"] == "error"
    assert result["properties"]["claim"] == "probable"
    assert result["partialFingerprints"]["ptaudit/v1"] == "1331399761439fc0"


def test_paths_below_the_working_directory_are_relative(ptaudit, damaged: Path, monkeypatch) -> None:
    monkeypatch.chdir(CAPTURES)
    run = run_of(ptaudit, damaged.relative_to(CAPTURES), "--select", "VMM-02")
    artifact = run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]
    assert artifact["uri"] == "pmem-6.12-vuln/02-one-removed/kernel_page_tables"
    assert artifact["uriBaseId"] == "%SRCROOT%"


def test_finding_without_a_line_falls_back_to_the_dump(ptaudit, damaged: Path, tmp_path: Path) -> None:
    strange = tmp_path / "what a name#1"
    strange.symlink_to(damaged / "kernel_page_tables")
    run = run_of(ptaudit, strange, "--select", "VMM-02")
    for result in run["results"]:
        assert file_of(run, result["locations"][0]) == strange


def test_rule_metadata_comes_from_the_declarations(ptaudit, sound: Path) -> None:
    described = {rule["id"]: rule for rule in run_of(ptaudit, sound)["tool"]["driver"]["rules"]}
    for rule in builtin_rules():
        one = described[rule.code]
        assert one["shortDescription"]["text"] == rule.summary
        assert rule.advice in one["help"]["text"]
        weighs = "security" in one["properties"]["tags"] and rule.severity > Severity.INFO
        assert ("security-severity" in one["properties"]) == weighs
    assert described["VMM-02"]["defaultConfiguration"]["level"] == "error"
    assert described["ATT-01"]["properties"]["security-severity"] == "8.0"


def test_undecided_rules_are_notifications_that_say_what_to_collect(ptaudit, damaged: Path) -> None:
    run = run_of(ptaudit, damaged / "kernel_page_tables")
    notes = run["invocations"][0]["toolExecutionNotifications"]
    about = {note["associatedRule"]["id"]: note["message"]["text"] for note in notes if "associatedRule" in note}
    assert "Collect: " in about["SEC-03"]


def test_accepted_findings_are_suppressed_results(ptaudit, damaged: Path, tmp_path: Path) -> None:
    baseline = tmp_path / "baseline.toml"
    ptaudit("audit", damaged, "--select", "VMM-02", "--write-baseline", baseline)
    (result,) = run_of(ptaudit, damaged, "--select", "VMM-02", "--baseline", baseline)["results"]
    (suppression,) = result["suppressions"]
    assert suppression["status"] == "accepted"
    assert "not yet reviewed" in suppression["justification"]

"""Incidents: what one event or state explains is reported once, and what does not belong together is not forced."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path

import pytest

from analyzer.audit import Report, audit
from analyzer.incidents.subjects import SUBJECTS
from analyzer.reports import text
from analyzer.sources.read import Request
from rules.engine import builtin_rules
from rules.finding import Severity
from tests.analyzer.conftest import CAPTURES
from tests.cases import CASES, case

FIXTURES = CAPTURES.parent
MOMENTS = sorted(path for path in CAPTURES.glob("*/*") if path.is_dir())
DUMPS = sorted((FIXTURES / "vmcore").glob("*.core.zst"))
FIRES = [case(name) for name in CASES if name.endswith("/fires")]

# What is wrong on each capture, by the rule that leads the story of each cause.
DAMAGE = {
    "failing-add-6.12-4k/01-add-failed": ["TRC-06"],
    "hvo-6.1-4k/01-hvo-allocated": ["HVO-01"],
    "hvo-6.1-4k/03-all-freed": ["HVO-01"],
    "pmem-5.10-4k/01-namespaces": ["VMM-01"],
    "pmem-5.10-4k/02-one-removed": ["VMM-02"],
    "pmem-5.10-4k/03-second-removed": ["VMM-02"],
    "pmem-6.12-16k-cross/01-namespaces": ["VMM-02", "VMM-06"],
    "pmem-6.12-16k/01-namespaces": ["VMM-06"],
    "pmem-6.12-16k/02-one-removed": ["VMM-02"],
    "pmem-6.12-64k-cross/01-namespaces": ["VMM-02", "VMM-06"],
    "pmem-6.12-64k-va52/01-namespaces": ["VMM-06"],
    "pmem-6.12-64k-va52/02-one-removed": ["VMM-02"],
    "pmem-6.12-64k/01-namespaces": ["VMM-06"],
    "pmem-6.12-64k/02-one-removed": ["VMM-02"],
    "pmem-6.12-vuln/01-three-namespaces": ["VMM-01"],
    "pmem-6.12-vuln/02-one-removed": ["VMM-02"],
    "pmem-7.3-64k/01-namespaces": ["VMM-06"],
    "pmem-7.3-64k/02-one-removed": ["VMM-02"],
    "two-dimms-7.3-4k-80/02-plug": ["VMM-05"],
    "two-dimms-7.3-4k-80/03-unplug": ["VMM-02"],
    "two-dimms-one-offline-6.12-4k-80/01-both-there": ["VMM-05"],
    "two-dimms-one-offline-6.12-4k-80/03-one-removed": ["VMM-02"],
    "hvo-6.1-allocated.core.zst": ["HVO-01"],
    "hvo-7.3-kasan-allocated.core.zst": ["HVO-01"],
    "pmem-6.12-64k-namespaces.core.zst": ["VMM-06"],
    "pmem-6.12-readded.core.zst": ["VMM-02", "VMM-01"],
    "pmem-6.12-vuln-after.core.zst": ["VMM-02"],
    "pmem-6.12-vuln-before.core.zst": ["VMM-01"],
    "half-added-7.3-created.core.zst": ["VMM-14"],
    "two-dimms-7.3-80.core.zst": ["VMM-02"],
}


@cache
def report_of(path: Path) -> Report:
    return audit(Request((path,)))


def name_of(path: Path) -> str:
    return path.name if path.suffix else f"{path.parent.name}/{path.name}"


@pytest.mark.parametrize("path", [*MOMENTS, *DUMPS], ids=name_of)
def test_one_incident_a_cause_and_none_where_nothing_is_wrong(path: Path) -> None:
    report = report_of(path)
    leads = [one.lead.rule.code for one in report.incidents]
    if name_of(path) in DAMAGE:
        assert leads == DAMAGE[name_of(path)]
    else:
        assert bool(leads) == any(one.severity >= Severity.HIGH for one in report.findings)


@pytest.mark.parametrize("path", [*MOMENTS, *DUMPS, *FIRES], ids=name_of)
def test_what_holds_for_every_incident(path: Path) -> None:
    report = report_of(path)
    told = [id(finding) for one in report.incidents for finding in one.findings]
    assert len(told) == len(set(told)), "no finding is in two stories"
    severe = {id(one) for one in report.findings if one.severity >= Severity.HIGH}
    assert severe <= set(told), "every severe finding is in one"
    for one in report.incidents:
        assert one.severity >= Severity.HIGH
        assert [found.severity for found in one.findings] == sorted((f.severity for f in one.findings), reverse=True)
        assert len(list(text._incident(one))) <= 20
        assert max(map(len, text._incident(one))) <= 130
    assert len({one.id for one in report.incidents}) == len(report.incidents)


def test_a_namespace_removed_under_its_neighbours_is_one_story(ptaudit, damaged: Path) -> None:
    document = json.loads(ptaudit("audit", damaged, "--format", "json").out)
    (one,) = document["incidents"]
    assert one["rules"] == ["VMM-02", "TRC-07", "TRC-08"]
    assert (one["severity"], one["claim"], one["bug"]) == ("critical", "probable", "d4234d131b0a")
    assert one["cause"]["time"] == 4.144591
    prints = {finding["fingerprint"] for finding in document["findings"]}
    assert set(one["findings"]) <= prints
    story = " ".join(one["story"])
    for words in (
        "At 4.144591 ndctl-106 removed memory",
        "24576 pages",
        "namespace0.0",
        "namespace0.2",
        "this kernel has it",
    ):
        assert words in story


def test_the_oops_ends_the_story() -> None:
    report = report_of(case("OOP-01/fires"))
    (one,) = report.incidents
    assert one.codes == ["VMM-02", "OOP-01"]
    assert [part.label for part in one.parts][-2:] in (["next", "oops"], ["oops", "bug"])


def test_a_performance_finding_is_not_drawn_into_damage() -> None:
    report = report_of(CAPTURES / "pmem-5.10-4k/02-one-removed")
    assert "CNT-04" in {one.rule.code for one in report.findings}
    assert all("CNT-04" not in one.codes for one in report.incidents)


def test_damage_of_two_sections_by_unknown_events_is_two_stories() -> None:
    report = report_of(FIXTURES / "vmcore/pmem-6.12-readded.core.zst")
    assert [one.lead.sections for one in report.incidents] == [(17,), (16,)]


def test_subjects_name_rules_that_exist() -> None:
    known = {rule.code for rule in builtin_rules()}
    assert {code for codes in SUBJECTS.values() for code in codes} <= known


def test_the_text_folds_what_verbose_shows(ptaudit, damaged: Path) -> None:
    short, whole = ptaudit("audit", damaged).out, ptaudit("audit", damaged, "--verbose").out
    assert "kernel_page_tables:109" not in short
    assert "kernel_page_tables:109" in whole
    assert len(short.splitlines()) < 40
    for code in ("VMM-02", "TRC-07", "TRC-08"):
        assert code in short


# --- known bugs ---


@pytest.mark.parametrize(
    ("source", "state", "by"),
    [
        ("captures/pmem-6.12-vuln/01-three-namespaces", "present", "state"),
        ("captures/pmem-6.12-vuln/02-one-removed", "present", "trace"),
        ("captures/pmem-6.12-vuln/00-boot", "fixed", "release"),  # its release lies: the fix was reverted
        ("captures/pmem-6.12-fixed/02-one-removed", "fixed", "trace"),
        ("captures/pmem-5.10-4k/00-boot", "present", "release"),
        ("vmcore/pmem-6.12-vuln-after.core.zst", "present", "state"),
    ],
)
def test_what_the_kernel_shows_goes_before_its_release(source: str, state: str, by: str) -> None:
    (found,) = [one for one in report_of(FIXTURES / source).bugs if one.bug.key == "partial-section-pmd"]
    assert (found.state, found.by) == (state, by)


def test_a_bug_of_another_page_size_is_not_listed() -> None:
    keys = {one.bug.key for one in report_of(CAPTURES / "pmem-6.12-64k/01-namespaces").bugs}
    assert "partial-section-pmd" not in keys
    assert "shared-basepage" in keys


def test_the_commands_that_reproduce_print_the_evidence(ptaudit, damaged: Path) -> None:
    for finding in json.loads(ptaudit("audit", damaged, "--format", "json").out)["findings"]:
        quoted = {" ".join(one["text"].split()) for one in finding["evidence"]}
        for command in finding["reproduce"]:
            done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
            line = " ".join(done.stdout.split())
            assert line
            if finding["rule"].startswith("TRC"):
                assert line in quoted


# --- links from the other views ---


def test_where_and_timeline_name_the_incident(ptaudit, damaged: Path) -> None:
    (one,) = report_of(damaged).incidents
    place = json.loads(ptaudit("where", damaged, "pfn:0x84000", "--format", "json").out)
    assert place["incidents"] == [{"id": one.id, "severity": "critical", "title": one.title}]
    assert json.loads(ptaudit("where", damaged, "pfn:0x40000", "--format", "json").out)["incidents"] == []
    operations = json.loads(ptaudit("timeline", damaged, "--format", "json").out)["operations"]
    assert [row["line"] for row in operations if row["incident"] == one.id and row["damage"]] == [766]
    assert {row["incident"] for row in operations if not row["trouble"]} == {None}
    assert f"incident {one.id}: CRITICAL" in ptaudit("timeline", damaged).out


def test_the_page_links_incident_findings_and_event(ptaudit, damaged: Path, tmp_path: Path) -> None:
    (one,) = report_of(damaged).incidents
    ptaudit("audit", damaged, "--output", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert f'id="incident-{one.id}"' in page
    assert page.count(f'href="#incident-{one.id}"') >= 4  # each of three findings, and the event

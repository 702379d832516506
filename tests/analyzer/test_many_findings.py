"""Tens of thousands of findings: every format is linear in them, and a person can still read the text."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from analyzer.audit import Report, audit
from analyzer.audit_command import FORMATS
from analyzer.baseline import read_baseline, render_baseline
from analyzer.sources.read import Request
from rules.finding import Finding

SECTION = 1 << 15


@pytest.fixture
def many(damaged: Path) -> Callable[[int], Report]:
    """The lost section of a real capture, as if the same had happened to every other section of a large host."""
    report = audit(Request((damaged,)))
    lost = next(one for one in report.findings if one.rule.code == "VMM-02")

    def copy(number: int) -> Finding:
        cause = None if number else lost.hit.cause  # one event is one incident, however much it destroyed
        hit = replace(lost.hit, pfns=lost.hit.pfns.shift(2 * SECTION * number), cause=cause)
        return replace(lost, hit=hit, sections=tuple(one + 2 * number for one in lost.sections))

    def of(count: int) -> Report:
        verdicts = tuple(
            replace(one, findings=tuple(copy(number) for number in range(count))) if one.rule is lost.rule else one
            for one in report.verdicts
        )
        return replace(report, verdicts=verdicts)

    return of


def rendered(report: Report, form: str) -> str:
    text: str = importlib.import_module(f"analyzer.reports.{form}").render(report)
    return text


@pytest.mark.parametrize("form", FORMATS)
def test_a_report_of_four_times_as_many_takes_about_four_times_as_long(many, form: str) -> None:
    def seconds(count: int) -> float:
        report = many(count)
        begin = time.process_time()
        rendered(report, form)
        return time.process_time() - begin

    seconds(8)  # imports
    few = min(seconds(500) for _ in range(3))
    assert min(seconds(4000) for _ in range(2)) < 24 * few + 0.2


def test_an_accepted_finding_is_found_by_its_name(many, tmp_path: Path) -> None:
    report = many(20_000)
    path = tmp_path / "baseline.toml"
    path.write_text(render_baseline(report))
    begin = time.process_time()
    known = replace(many(20_001), baseline=read_baseline(path))
    assert len(known.findings) == 1
    text = rendered(known, "text")
    assert time.process_time() - begin < 30
    assert f"and {len(known.accepted) - 20} more: --format json has every one of them" in text
    assert len(text.splitlines()) < 200
    assert len(replace(many(1), baseline=known.baseline).stale) == 19_999


def test_the_text_summarises_many_of_a_kind(many) -> None:
    report = many(1000)
    text = rendered(report, "text")
    assert text.count("VMM-02 Struct pages of valid memory are not mapped") == 3
    _head, where, *_ = text[text.index("VMM-02 and 997 more like these") :].splitlines()
    assert where.startswith("  where sections 22, 24, 26")
    assert "997 x Struct pages of valid memory are not mapped" in text
    last = max(one.hit.pfns.tuples()[-1] for one in report.findings if one.hit.pfns)
    assert f"the last {last[0]:#x}-{last[1]:#x}" in " ".join(text.split())
    assert len(text.splitlines()) < 200
    assert len([one for one in json.loads(rendered(report, "json"))["findings"] if one["rule"] == "VMM-02"]) == 1000


def test_a_few_of_a_kind_are_printed_each(many) -> None:
    assert rendered(many(8), "text").count("VMM-02 Struct pages of valid memory are not mapped") == 8
    assert "and 6 more like these" in rendered(many(9), "text")

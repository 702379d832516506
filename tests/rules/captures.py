"""Captures of real kernels, and copies of them in which a file is changed."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from analyzer.audit import Report, audit
from analyzer.sources.read import Request
from rules.engine import Outcome
from rules.finding import Finding, Severity
from tests.cases import CAPTURES

MOMENTS = sorted(f"{path.parent.name}/{path.name}" for path in CAPTURES.glob("*/*") if path.is_dir())


@cache
def report_of(moment: str) -> Report:
    return audit(Request((CAPTURES / moment,)))


def findings(moment: str, code: str) -> list[Finding]:
    return [one for one in report_of(moment).findings if one.rule.code == code]


def outcome(moment: str, code: str) -> Outcome:
    return next(one.outcome for one in report_of(moment).verdicts if one.rule.code == code)


VULNERABLE = "pmem-6.12-vuln/02-one-removed"
DIMM = "dimm-6.1-4k-kaslr-blocks/02-dimm-online"


def file_of(capture, name):
    return (CAPTURES / capture / name).read_bytes()


def alarms(report):
    return {finding.rule.code for finding in report.findings if finding.severity >= Severity.HIGH}


def verdict_in(report, code):
    return next(one for one in report.verdicts if one.rule.code == code)


def begun_late(trace):
    """The trace from the first removal on, as trace_pipe prints it: everything there was added before."""
    lines = trace.splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if "arch_remove_memory: " in line)
    return "".join(lines[first:])


def span_of_findings(path: Path, code: str) -> tuple[int, int]:
    """From the first to the last page that the rule names."""
    report = audit(Request((path,)))
    findings = [one for one in report.findings if one.rule.code == code]
    assert findings, [(one.rule.code, one.reason) for one in report.verdicts if one.rule.code == code]
    found = [pair for one in findings for pair in one.hit.pfns.tuples()]
    return min(lo for lo, _ in found), max(hi for _, hi in found)

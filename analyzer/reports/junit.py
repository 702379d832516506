"""The rules as a JUnit test suite, for the test view of a CI service: a finding is a failure, a rule in error an error.

Undecided rules and those that do not apply are skipped tests with the reason.  Findings below severity high are no
failure: they are in ``system-out`` of a passed test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from analyzer.output import printable
from analyzer.reports.text import place_of
from rules.engine import Outcome
from rules.finding import Severity

if TYPE_CHECKING:
    from analyzer.audit import Report
    from rules.engine import Verdict
    from rules.finding import Finding

__all__ = ["FAILS_FROM", "render"]

FAILS_FROM = Severity.HIGH


def render(report: Report, *, verbose: bool = False, colour: bool = False) -> str:  # noqa: ARG001 one shape for all
    """The suite as XML."""
    suites = Element("testsuites")
    suite = SubElement(suites, "testsuite", name="ptaudit")
    properties = SubElement(suite, "properties")
    for name, value in (("verdict", str(report.overall.state)), ("verdict.text", report.overall.text)):
        SubElement(properties, "property", name=name, value=printable(value))
    open_findings = {id(one) for one in report.findings}
    counts = {"failures": 0, "errors": 0, "skipped": 0}
    for verdict in report.verdicts:
        found = [one for one in verdict.findings if id(one) in open_findings]
        kind = _case(suite, verdict, found)
        if kind:
            counts[kind] += 1
    suite.set("tests", str(len(report.verdicts)))
    for name, count in counts.items():
        suite.set(name, str(count))
    indent(suites)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<!-- {_comment(report.overall.text)} -->\n' + (
        tostring(suites, encoding="unicode") + "\n"
    )


def _case(suite: Element, verdict: Verdict, found: list[Finding]) -> str:
    """One rule; which count it adds to, empty for a test that passed."""
    rule = verdict.rule
    case = SubElement(suite, "testcase", classname=f"ptaudit.{rule.family}", name=f"{rule.code} {rule.name}", time="0")
    failing = [one for one in found if one.severity >= FAILS_FROM]
    if verdict.outcome is Outcome.ERROR:
        SubElement(case, "error", message=printable(verdict.reason))
        return "errors"
    if failing:
        worst = failing[0]
        failure = SubElement(case, "failure", type=str(worst.severity), message=printable(worst.hit.title))
        failure.text = "\n".join(map(_text_of, found))
        return "failures"
    if verdict.outcome in {Outcome.UNDECIDED, Outcome.NOT_APPLICABLE} and not found:
        SubElement(case, "skipped", message=printable(f"{verdict.outcome}: {verdict.reason}"))
        return "skipped"
    if found:
        SubElement(case, "system-out").text = "\n".join(map(_text_of, found))
    return ""


def _text_of(finding: Finding) -> str:
    where = place_of([finding])
    return printable(f"{finding.severity} {finding.hit.title} ({where}): {finding.hit.message} [{finding.fingerprint}]")


def _comment(text: str) -> str:
    return printable(text).replace("--", "- -")

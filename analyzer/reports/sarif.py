"""SARIF 2.1.0, for code-scanning services and editors: each finding at its line of the captured text.

A result must lie in a file, or services reject the document: a finding without a line is put on the first line of
the page-table dump.  Accepted findings are results with a suppression.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from analyzer.advice import steps_for
from analyzer.reports.json import finding_as_dict
from rules.engine import Outcome
from rules.finding import Impact, Severity

if TYPE_CHECKING:
    from analyzer.audit import Report
    from analyzer.baseline import Entry
    from parsers.errors import Diagnostic, PtauditError
    from rules.engine import Verdict
    from rules.finding import Evidence, Finding
    from rules.rule import Rule

__all__ = ["render"]

SCHEMA_URI = "https://json.schemastore.org/sarif-2.1.0.json"
SOURCE_ROOT = "%SRCROOT%"
_LEVELS = {
    Severity.CRITICAL: "error",
    Severity.HIGH: "error",
    Severity.MEDIUM: "warning",
    Severity.LOW: "note",
    Severity.INFO: "note",
}
# Numbers as code-scanning services divide them: above 9 critical, from 7 high, from 4 medium.
_SECURITY = {Severity.CRITICAL: "9.5", Severity.HIGH: "8.0", Severity.MEDIUM: "5.5", Severity.LOW: "2.0"}
_SHOWN_IN_RESULT = ("claim", "severity", "impact", "sections", "pfn_ranges", "va_ranges", "cause")


def render(report: Report, *, verbose: bool = False, colour: bool = False) -> str:  # noqa: ARG001 one shape for all
    """The SARIF log as text."""
    log = {"$schema": SCHEMA_URI, "version": "2.1.0", "runs": [_Run(report).as_dict()]}
    return json.dumps(log, indent=2, ensure_ascii=False) + "\n"


def _here() -> Path:
    """The current folder, or the root where it is gone."""
    try:
        return Path.cwd()
    except OSError:
        return Path("/")


class _Run:
    """One audit as a run: the files it read, the rules that it ran, what they found."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.here = _here()
        self.files = {source.path: index for index, source in enumerate(report.sources.sources)}
        self.rules = {verdict.rule.code: index for index, verdict in enumerate(report.verdicts)}

    def as_dict(self) -> dict[str, Any]:
        report = self.report
        results = [self._result(one) for one in report.findings]
        results += [self._suppressed(one, entry) for one, entry in report.accepted]
        overall = report.overall
        return {
            "properties": {"verdict": str(overall.state), "verdictText": overall.text},
            "tool": {"driver": self._driver()},
            "originalUriBaseIds": {SOURCE_ROOT: {"uri": f"{self.here.as_uri()}/"}},
            "artifacts": [
                {
                    "location": self._artifact(one.path),
                    "hashes": {"sha-256" if one.whole else "ptaudit/read/sha-256": one.sha256},
                    "description": _text(one.kind),
                }
                for one in report.sources.sources
            ],
            "invocations": [self._invocation()],
            "results": results,
        }

    def _driver(self) -> dict[str, Any]:
        return {
            "name": "ptaudit",
            "semanticVersion": version("ptaudit"),
            "rules": [_descriptor(verdict.rule) for verdict in self.report.verdicts],
        }

    def _result(self, finding: Finding) -> dict[str, Any]:
        hit, properties = finding.hit, finding_as_dict(finding)
        places = [self._location(one, number) for number, one in enumerate(hit.evidence) if self._is_read(one)]
        return {
            "ruleId": finding.rule.code,
            "ruleIndex": self.rules[finding.rule.code],
            "kind": "fail",
            "level": _LEVELS[finding.severity],
            "message": _text(f"{hit.title}. {hit.message}"),
            "locations": places[:1] or [self._anywhere()],
            **({"relatedLocations": places[1:]} if places[1:] else {}),
            "partialFingerprints": {
                "ptaudit/v1": finding.fingerprint,
                "primaryLocationLineHash": f"{finding.fingerprint}:1",
            },
            "properties": {key: properties[key] for key in _SHOWN_IN_RESULT},
        }

    def _suppressed(self, finding: Finding, entry: Entry) -> dict[str, Any]:
        suppression = {"kind": "external", "status": "accepted", "justification": entry.reason}
        return {**self._result(finding), "suppressions": [suppression]}

    def _is_read(self, evidence: Evidence) -> bool:
        return evidence.source in self.files

    def _artifact(self, path: str) -> dict[str, Any]:
        """A file by its path below the working directory, or in full where it lies elsewhere."""
        full = Path(path).absolute()
        index = {"index": self.files[path]} if path in self.files else {}
        if full.is_relative_to(self.here):
            return {"uri": quote(os.fsencode(full.relative_to(self.here))), "uriBaseId": SOURCE_ROOT, **index}
        return {"uri": full.as_uri(), **index}

    def _physical(self, path: str, line: int | None, snippet: str = "") -> dict[str, Any]:
        region: dict[str, Any] = {"startLine": line or 1}
        if snippet and line:
            region["snippet"] = _text(snippet)
        return {"artifactLocation": self._artifact(path), "region": region}

    def _location(self, evidence: Evidence, number: int) -> dict[str, Any]:
        place = self._physical(evidence.source, evidence.line, evidence.text)
        return {"id": number, "physicalLocation": place, "message": _text(evidence.text.strip() or evidence.source)}

    def _anywhere(self) -> dict[str, Any]:
        """The page-table dump, or else whatever was read first."""
        sources = self.report.sources.sources
        dump = next((one for one in sources if one.kind in {"ptdump", "vmcore"}), sources[0])
        return {"physicalLocation": self._physical(dump.path, None)}

    def _invocation(self) -> dict[str, Any]:
        verdicts = self.report.verdicts
        notes = [self._verdict(one) for one in verdicts if one.outcome in {Outcome.UNDECIDED, Outcome.ERROR}]
        notes += [self._diagnostic(one) for source in self.report.sources.sources for one in source.diagnostics]
        notes += [{"level": "warning", "message": _text(one)} for one in self.report.broken_plugins]
        baseline = self.report.baseline.path
        stale = [f"{entry.rule} {entry.fingerprint} in {baseline}: {why}" for entry, why in self.report.stale]
        notes += [{"level": "warning", "message": _text(one)} for one in stale]
        overall = {"level": "note", "message": _text(self.report.overall.text)}
        refused = [self._error(one) for one in self.report.sources.refused]
        done = not self.report.failed and not refused
        return {"executionSuccessful": done, "toolExecutionNotifications": [overall, *refused, *notes]}

    def _verdict(self, verdict: Verdict) -> dict[str, Any]:
        steps = "; ".join(steps_for(verdict, self.report))
        return {
            "level": "error" if verdict.outcome is Outcome.ERROR else "note",
            "message": _text(f"{verdict.outcome}: {verdict.reason}" + (f". Collect: {steps}" if steps else "")),
            "associatedRule": {"id": verdict.rule.code, "index": self.rules[verdict.rule.code]},
        }

    def _error(self, error: PtauditError) -> dict[str, Any]:
        """Evidence that the user named and that could not be read."""
        place = [{"physicalLocation": self._physical(error.path, error.line)}] if error.path else []
        return {"level": "error", "message": _text(error.message), **({"locations": place} if place else {})}

    def _diagnostic(self, diagnostic: Diagnostic) -> dict[str, Any]:
        place = [{"physicalLocation": self._physical(diagnostic.path, diagnostic.line)}] if diagnostic.path else []
        return {"level": "warning", "message": _text(diagnostic.message), **({"locations": place} if place else {})}


def _descriptor(rule: Rule) -> dict[str, Any]:
    """A rule's metadata, all of it from the declaration."""
    security = rule.impact is Impact.SECURITY and rule.severity in _SECURITY
    return {
        "id": rule.code,
        "name": rule.name,
        "shortDescription": _text(rule.summary),
        "fullDescription": _text(rule.pages["What it means"]),
        "help": {"text": _help(rule, ""), "markdown": _help(rule, "**")},
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
        "properties": {
            "tags": list(dict.fromkeys((rule.family, str(rule.impact)))),
            "problem.severity": {"error": "error", "warning": "warning"}.get(_LEVELS[rule.severity], "recommendation"),
            **({"security-severity": _SECURITY[rule.severity]} if security else {}),
        },
    }


def _help(rule: Rule, mark: str) -> str:
    parts = [f"{mark}{heading}{mark}\n{body}" for heading, body in rule.pages.items()]
    if rule.references:
        parts.append(f"{mark}References{mark}\n" + _lines(rule.references))
    return "\n\n".join(parts)


def _lines(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _text(text: str) -> dict[str, str]:
    return {"text": text}

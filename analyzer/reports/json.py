"""The ``ptaudit.report/1`` document: the same input gives the same bytes."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from parsers.layout import LAYOUT_KEYS, KernelLayout
from parsers.uname import KernelRelease

if TYPE_CHECKING:
    from analyzer.audit import Report
    from analyzer.baseline import Entry
    from parsers.errors import Diagnostic
    from rules.finding import Evidence, Finding

__all__ = ["SCHEMA", "document", "evidence_as_dict", "finding_as_dict", "render"]

SCHEMA = "ptaudit.report/1"

_ADDRESSES = {"page_offset", "linear_end", "vmemmap_start", "vmemmap_end", "phys_offset", "block_size"}


def render(report: Report, *, verbose: bool = False, colour: bool = False) -> str:  # noqa: ARG001 one shape for all
    """The document as text."""
    return json.dumps(document(report), indent=2, ensure_ascii=False) + "\n"


def document(report: Report) -> dict[str, Any]:
    """The document as plain data."""
    return {
        "schema": SCHEMA,
        "ptaudit": version("ptaudit"),
        "kernel": _kernel(report),
        "sources": [
            {
                "kind": source.kind,
                "path": source.path,
                "sha256": source.sha256,
                "diagnostics": [_diagnostic(one) for one in source.diagnostics],
            }
            for source in report.sources.sources
        ],
        "ignored": report.sources.ignored,
        "findings": [finding_as_dict(finding) for finding in report.findings],
        "accepted": [
            {**finding_as_dict(finding), "reason": entry.reason, "expires": _day(entry)}
            for finding, entry in report.accepted
        ],
        "stale_baseline": [
            {"rule": entry.rule, "fingerprint": entry.fingerprint, "reason": entry.reason, "why": why}
            for entry, why in report.stale
        ],
        "rules": [
            {
                "code": verdict.rule.code,
                "outcome": str(verdict.outcome),
                "reason": verdict.reason,
                "collect": list(verdict.collect),
            }
            for verdict in report.verdicts
        ],
        "plugin_errors": list(report.broken_plugins),
    }


def _kernel(report: Report) -> dict[str, Any]:
    release, layout = report.facts.get(KernelRelease), report.facts.get(KernelLayout)
    kernel: dict[str, Any] = {"release": release.raw if release else None}
    source: dict[str, str] = {"release": release.path} if release else {}
    precision: dict[str, str] = {}
    facts = layout.facts if layout else {}
    for key in LAYOUT_KEYS:
        fact = facts.get(key)
        if fact is None:
            kernel[key] = None
            continue
        kernel[key] = f"{fact.value:#x}" if key in _ADDRESSES else fact.value
        source[key], precision[key] = fact.source, str(fact.precision)
    kernel["source"], kernel["precision"] = source, precision
    kernel["phys_offset_candidates"] = [f"{value:#x}" for value in layout.phys_offset_candidates] if layout else []
    kernel["notes"] = list(layout.notes) if layout else []
    return kernel


def _diagnostic(diagnostic: Diagnostic) -> dict[str, Any]:
    place = {"line": diagnostic.line, "column": diagnostic.column, "offset": diagnostic.offset}
    return {"message": diagnostic.message, **{key: value for key, value in place.items() if value is not None}}


def _day(entry: Entry) -> str | None:
    return None if entry.expires is None else entry.expires.isoformat()


def finding_as_dict(finding: Finding) -> dict[str, Any]:
    """A finding as plain data, addresses as text."""
    rule, hit = finding.rule, finding.hit
    return {
        "rule": rule.code,
        "name": rule.name,
        "severity": str(finding.severity),
        "impact": str(rule.impact),
        "claim": str(hit.claim),
        "title": hit.title,
        "message": hit.message,
        "fingerprint": finding.fingerprint,
        "sections": list(finding.sections),
        "pfn_ranges": [{"start": f"{lo:#x}", "end": f"{hi:#x}"} for lo, hi in hit.pfns.tuples()],
        "va_ranges": [{"start": f"{va.start:#x}", "end": f"{va.end:#x}", "region": va.region} for va in hit.vas],
        "evidence": [evidence_as_dict(one) for one in hit.evidence],
        "cause": None
        if hit.cause is None
        else {"event": hit.cause.event, "time": hit.cause.time, "text": hit.cause.text},
        "advice": rule.advice,
        "references": list(rule.references),
    }


def evidence_as_dict(evidence: Evidence) -> dict[str, Any]:
    """A place to check as plain data."""
    place: dict[str, Any] = {}
    if evidence.line is not None:
        place["line"] = evidence.line
    if evidence.address is not None:
        place["address"] = f"{evidence.address:#x}"
    return {"source": evidence.source, **place, "text": evidence.text}

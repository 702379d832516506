"""The ``ptaudit.report/2`` document: the same input gives the same bytes.

What ``ptaudit.report/1`` had keeps its name and its meaning.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from analyzer.advice import advice_for, steps_for
from analyzer.reports.reproduce import reproduce
from parsers.layout import LAYOUT_KEYS, KernelLayout
from parsers.uname import KernelRelease
from rules.model.log_events import LogEvents

if TYPE_CHECKING:
    from analyzer.audit import Report
    from analyzer.baseline import Entry
    from parsers.errors import Diagnostic
    from rules.finding import Evidence, Finding, KnownBugClaim

__all__ = ["SCHEMA", "document", "evidence_as_dict", "finding_as_dict", "host_name", "render"]

SCHEMA = "ptaudit.report/2"

_ADDRESSES = {"page_offset", "linear_end", "vmemmap_start", "vmemmap_end", "phys_offset", "block_size"}


def render(report: Report, *, verbose: bool = False, colour: bool = False) -> str:  # noqa: ARG001 one shape for all
    """The document as text."""
    return json.dumps(document(report), indent=2, ensure_ascii=False) + "\n"


def document(report: Report) -> dict[str, Any]:
    """The document as plain data."""
    return {
        "schema": SCHEMA,
        "ptaudit": version("ptaudit"),
        "verdict": _verdict(report),
        "host": {"name": host_name(report), "captured": captured_at(report)},
        "kernel": {**_kernel(report), "bugs": [one.as_dict() for one in report.bugs]},
        "sources": [
            {
                "kind": source.kind,
                "path": source.path,
                "sha256": source.sha256,
                "sha256_of": "file" if source.whole else "what was read",
                "diagnostics": [_diagnostic(one) for one in source.diagnostics],
            }
            for source in report.sources.sources
        ],
        "ignored": report.sources.ignored,
        "unread": [{"path": one.path, "reason": one.reason} for one in report.sources.unread],
        "incidents": [one.as_dict() for one in report.incidents],
        "findings": [_finding(finding, report) for finding in report.findings],
        "accepted": [
            {**_finding(finding, report), "reason": entry.reason, "expires": _day(entry)}
            for finding, entry in report.accepted
        ],
        "stale_baseline": [
            {"rule": entry.rule, "fingerprint": entry.fingerprint, "reason": entry.reason, "why": why}
            for entry, why in report.stale
        ],
        "oopses": [one.as_dict() for one in events.events] if (events := report.facts.get(LogEvents)) else [],
        "rules": [
            {
                "code": verdict.rule.code,
                "outcome": str(verdict.outcome),
                "reason": verdict.reason,
                "collect": list(steps_for(verdict, report)),
            }
            for verdict in report.verdicts
        ],
        "plugin_errors": list(report.broken_plugins),
    }


def _verdict(report: Report) -> dict[str, Any]:
    overall = report.overall
    return {
        "state": str(overall.state),
        "text": overall.text,
        "undecided": overall.undecided,
        "of": overall.of,
        "missing": list(overall.missing),
    }


def host_name(report: Report) -> str | None:
    """What the host calls itself in uname, in its log or in a crash dump; None where nothing says."""
    captured, release = report.sources.captured, report.facts.get(KernelRelease)
    names = [release.nodename] if release is not None else []
    names += reversed(captured.dmesg.boot.host_names) if captured.dmesg is not None else ()
    names += [captured.vmcore.nodename] if captured.vmcore is not None else []
    return next((name for name in names if name not in {"", "(none)", "oops"}), None)


def captured_at(report: Report) -> str | None:
    """The moment of the evidence, ISO 8601 in UTC: now for a running host, the crash for a dump; None if unknown."""
    if report.live:
        return report.when.isoformat(timespec="seconds")
    captured = report.sources.captured
    info = captured.vmcoreinfo if captured.vmcore is None else captured.vmcore.vmcoreinfo
    crashed = None if info is None else info.crash_time
    return None if crashed is None else crashed.isoformat(timespec="seconds")


def _finding(finding: Finding, report: Report) -> dict[str, Any]:
    """A finding with what depends on the evidence: how to check it, and advice for this reader."""
    found = finding_as_dict(finding)
    checks = reproduce(finding, report.sources.sources)
    return {**found, "advice": advice_for(finding.rule, report), "reproduce": checks}


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
        "known_bug": None if hit.known_bug is None else known_bug_as_dict(hit.known_bug),
        "advice": rule.advice,
        "references": list(rule.references),
    }


def known_bug_as_dict(known: KnownBugClaim) -> dict[str, Any]:
    """Whether a finding is a known bug, as plain data."""
    return {
        "bug": known.commit or None,
        "title": known.title,
        "possible": not known.excluded,
        "supports": list(known.supports),
        "contradicts": list(known.contradicts),
        "fixed_in": list(known.fixed_in),
    }


def evidence_as_dict(evidence: Evidence) -> dict[str, Any]:
    """A place to check as plain data."""
    place: dict[str, Any] = {}
    if evidence.line is not None:
        place["line"] = evidence.line
    if evidence.address is not None:
        place["address"] = f"{evidence.address:#x}"
    return {"source": evidence.source, **place, "text": evidence.text}

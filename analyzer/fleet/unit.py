"""The unit of work: one bundle, audited.

Idempotent and keyed by the bundle's content, so that it can run anywhere, twice, or not at all where
the result is known.  Takes and returns plain data only: it travels between processes and machines.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from analyzer.sources.folder import below
from parsers.errors import PtauditError

if TYPE_CHECKING:
    from analyzer.audit import Report

__all__ = ["BundleResult", "FindingRow", "UndecidedRow", "UnitRow", "audit_bundle", "content_hash", "failure"]


class FindingRow(TypedDict):
    """One finding of one bundle."""

    rule: str
    name: str
    severity: str
    impact: str
    claim: str
    fingerprint: str
    title: str
    message: str
    sections: list[int]
    pfn_ranges: list[str]


class UndecidedRow(TypedDict):
    """One rule that one bundle did not decide (``outcome`` undecided), or that failed on it (error)."""

    rule: str
    severity: str
    outcome: str
    reason: str
    collect: list[str]


class UnitRow(TypedDict):
    """Something that can leave the host: what its removal, or taking it offline, would come to."""

    operation: str
    unit: str
    answer: str
    claim: str
    node: int | None
    start: str
    size: int
    rules: list[str]
    why: str


class BundleResult(TypedDict):
    """The result of a bundle; ``status`` is audited, unchanged, missing, unreadable, timeout, memory or crashed."""

    bundle: str
    content: str
    status: str
    error: str
    seconds: float
    release: str | None
    page_size: int | None
    machine: str | None
    worst: str | None
    verdict: str | None
    """``damaged``, ``at_risk``, ``clean`` or ``blind``."""
    verdict_text: str
    missing: list[str]
    """The evidence that the verdict lacks, what decides most first."""
    nr_incidents: int
    findings: list[FindingRow]
    undecided: list[UndecidedRow]
    units: list[UnitRow]


def content_hash(path: Path) -> str:
    """A hash of everything in the bundle: names and contents of a directory's files, or a file's content."""
    digest = hashlib.sha256()
    files = (
        [one for one in below(path) if one[1].is_file() and not one[1].is_symlink()] if path.is_dir() else [("", path)]
    )
    for name, file in files:
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def failure(bundle: str, status: str, error: str, content: str = "", seconds: float = 0.0) -> BundleResult:
    """The result of a bundle that could not be audited."""
    return BundleResult(
        bundle=bundle, content=content, status=status, error=error, seconds=round(seconds, 3), release=None,
        page_size=None, machine=None, worst=None, verdict=None, verdict_text="", missing=[], nr_incidents=0,
        findings=[], undecided=[], units=[],
    )  # fmt: skip


def audit_bundle(bundle: str, known_content: str = "") -> BundleResult:
    """Audit one bundle; ``unchanged`` without auditing if its content is ``known_content``."""
    begin = time.monotonic()
    content = ""

    def failed(status: str, error: str) -> BundleResult:
        return failure(bundle, status, error, content, time.monotonic() - begin)

    if nothing := _nothing_came(Path(bundle)):
        return failed("missing", nothing)
    try:
        content = content_hash(Path(bundle))
        if content == known_content:
            return failed("unchanged", "")
        return _audited(bundle, content, begin)
    except (PtauditError, OSError) as error:
        return failed("unreadable", str(error))
    except MemoryError:
        return failed("memory", "more memory than allowed")
    except Exception as error:
        return failed("crashed", f"{type(error).__name__}: {error}")


def _nothing_came(path: Path) -> str:
    """Why there is nothing to audit: no such bundle, or an empty directory; empty where there is something."""
    try:
        if path.is_dir():
            return "" if next(path.iterdir(), None) is not None else "nothing came: the directory is empty"
        return "" if path.exists() else "nothing came: no such bundle"
    except OSError:
        return ""  # reading it says what is wrong


def _audited(bundle: str, content: str, begin: float) -> BundleResult:
    from analyzer.audit import audit  # noqa: PLC0415 paid for once, in the process that audits
    from analyzer.sources.read import Request  # noqa: PLC0415
    from parsers.dmesg import Dmesg  # noqa: PLC0415
    from parsers.layout import KernelLayout  # noqa: PLC0415
    from parsers.uname import KernelRelease  # noqa: PLC0415

    report = audit(Request((Path(bundle),)))
    undecided = _undecided(report)
    if any(one["reason"].startswith("MemoryError") for one in undecided):
        raise MemoryError
    release, layout = report.facts.get(KernelRelease), report.facts.get(KernelLayout)
    log = report.facts.get(Dmesg)
    worst = report.worst()
    return BundleResult(
        bundle=bundle,
        content=content,
        status="audited",
        error="",
        seconds=round(time.monotonic() - begin, 3),
        release=release.raw if release else None,
        page_size=layout.get("page_size") if layout else None,
        machine=log.boot.machine if log else None,
        worst=None if worst is None else str(worst),
        verdict=str(report.overall.state),
        verdict_text=report.overall.text,
        missing=list(report.overall.missing),
        nr_incidents=len(report.incidents),
        findings=_findings(report),
        undecided=undecided,
        units=_units(report),
    )


def _findings(report: Report) -> list[FindingRow]:
    return [
        FindingRow(
            rule=one.rule.code,
            name=one.rule.name,
            severity=str(one.severity),
            impact=str(one.rule.impact),
            claim=str(one.hit.claim),
            fingerprint=one.fingerprint,
            title=one.hit.title,
            message=one.hit.message,
            sections=list(one.sections),
            pfn_ranges=[f"{lo:#x}-{hi:#x}" for lo, hi in one.hit.pfns.tuples()],
        )
        for one in report.findings
    ]


def _units(report: Report) -> list[UnitRow]:
    return [
        UnitRow(
            operation=str(one.answer.operation.verb),
            unit=one.answer.operation.what,
            answer=str(one.answer.kind),
            claim=str(one.answer.claim),
            node=one.node,
            start=f"{one.start:#x}",
            size=one.end - one.start,
            rules=list(one.rules),
            why=one.answer.why,
        )
        for one in report.outlook.prospects
    ]


def _undecided(report: Report) -> list[UndecidedRow]:
    from analyzer.advice import steps_for  # noqa: PLC0415
    from rules.engine import Outcome  # noqa: PLC0415

    return [
        UndecidedRow(
            rule=verdict.rule.code,
            severity=str(verdict.rule.severity),
            outcome=str(verdict.outcome),
            reason=verdict.reason,
            collect=list(steps_for(verdict, report)),
        )
        for verdict in report.verdicts
        if verdict.outcome in {Outcome.UNDECIDED, Outcome.ERROR}
    ]

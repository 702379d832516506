"""The unit of work: one bundle, audited.

Idempotent and keyed by the bundle's content, so that it can run anywhere, twice, or not at all where
the result is known.  Returns plain data only: it travels between processes and machines.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from parsers.errors import PtauditError

if TYPE_CHECKING:
    from analyzer.audit import Report

__all__ = ["BundleResult", "FindingRow", "UndecidedRow", "audit_bundle", "content_hash", "failure"]


class FindingRow(TypedDict):
    """One finding of one bundle."""

    bundle: str
    content: str
    rule: str
    name: str
    severity: str
    claim: str
    fingerprint: str
    title: str
    message: str
    sections: list[int]
    pfn_ranges: list[str]


class UndecidedRow(TypedDict):
    """One rule that one bundle did not decide."""

    bundle: str
    content: str
    rule: str
    severity: str
    reason: str
    collect: list[str]


class BundleResult(TypedDict):
    """What came of a bundle; ``status`` is audited, unchanged, unreadable, timeout, memory or crashed."""

    bundle: str
    content: str
    status: str
    error: str
    seconds: float
    release: str | None
    page_size: int | None
    machine: str | None
    worst: str | None
    nr_findings: int
    nr_undecided: int
    findings: list[FindingRow]
    undecided: list[UndecidedRow]


def content_hash(path: Path) -> str:
    """A hash of everything in the bundle: names and contents of a directory's files, or a file's content."""
    digest = hashlib.sha256()
    files = (
        sorted(one for one in path.rglob("*") if one.is_file() and not one.is_symlink()) if path.is_dir() else [path]
    )
    for file in files:
        digest.update(str(file.relative_to(path)).encode() + b"\0" if path.is_dir() else b"")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def failure(bundle: str, status: str, error: str, content: str = "", seconds: float = 0.0) -> BundleResult:
    """The result of a bundle that could not be audited."""
    return BundleResult(
        bundle=bundle, content=content, status=status, error=error, seconds=round(seconds, 3), release=None,
        page_size=None, machine=None, worst=None, nr_findings=0, nr_undecided=0, findings=[], undecided=[],
    )  # fmt: skip


def audit_bundle(bundle: str, known_content: str = "") -> BundleResult:
    """Audit one bundle; ``unchanged`` without auditing if its content is ``known_content``."""
    begin = time.monotonic()
    content = ""
    try:
        content = content_hash(Path(bundle))
        if content == known_content:
            return failure(bundle, "unchanged", "", content, time.monotonic() - begin)
        return _audited(bundle, content, begin)
    except (PtauditError, OSError) as error:
        return failure(bundle, "unreadable", str(error), content, time.monotonic() - begin)
    except MemoryError:
        return failure(bundle, "memory", "more memory than allowed", content, time.monotonic() - begin)
    except Exception as error:
        return failure(bundle, "crashed", f"{type(error).__name__}: {error}", content, time.monotonic() - begin)


def _audited(bundle: str, content: str, begin: float) -> BundleResult:
    from analyzer.audit import audit  # noqa: PLC0415 paid for once, in the process that audits
    from analyzer.sources.read import Request  # noqa: PLC0415
    from parsers.layout import KernelLayout  # noqa: PLC0415
    from parsers.uname import KernelRelease  # noqa: PLC0415

    report = audit(Request((Path(bundle),)))
    release, layout = report.facts.get(KernelRelease), report.facts.get(KernelLayout)
    findings, undecided = _findings(report, bundle, content), _undecided(report, bundle, content)
    worst = report.worst()
    return BundleResult(
        bundle=bundle,
        content=content,
        status="audited",
        error="",
        seconds=round(time.monotonic() - begin, 3),
        release=release.raw if release else None,
        page_size=layout.get("page_size") if layout else None,
        machine=_machine(report),
        worst=None if worst is None else str(worst),
        nr_findings=len(findings),
        nr_undecided=len(undecided),
        findings=findings,
        undecided=undecided,
    )


def _machine(report: Report) -> str | None:
    """What the boot log calls the machine: ``DMI: …`` or ``Machine model: …``."""
    from parsers.dmesg import Dmesg  # noqa: PLC0415

    log = report.facts.get(Dmesg)
    model: Any = getattr(log.boot, "machine", None) if log is not None else None
    return str(model) if model else None


def _findings(report: Report, bundle: str, content: str) -> list[FindingRow]:
    return [
        FindingRow(
            bundle=bundle,
            content=content,
            rule=one.rule.code,
            name=one.rule.name,
            severity=str(one.severity),
            claim=str(one.hit.claim),
            fingerprint=one.fingerprint,
            title=one.hit.title,
            message=one.hit.message,
            sections=list(one.sections),
            pfn_ranges=[f"{lo:#x}-{hi:#x}" for lo, hi in one.hit.pfns.tuples()],
        )
        for one in report.findings
    ]


def _undecided(report: Report, bundle: str, content: str) -> list[UndecidedRow]:
    from rules.engine import Outcome  # noqa: PLC0415

    return [
        UndecidedRow(
            bundle=bundle,
            content=content,
            rule=verdict.rule.code,
            severity=str(verdict.rule.severity),
            reason=verdict.reason,
            collect=list(verdict.collect),
        )
        for verdict in report.verdicts
        if verdict.outcome is Outcome.UNDECIDED
    ]

"""What happened and what is wrong as tables: the replayed operations, and the findings with their evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from analyzer.tables.frames import elapsed, frame, maybe, one_of, texts, unsigned, words
from analyzer.timeline.operation_rows import OPERATIONS, operation_rows
from rules.finding import Claim, Impact, Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from analyzer.audit import Report
    from analyzer.timeline.operation_rows import OperationRow
    from rules.facts import Facts
    from rules.finding import Evidence, Finding

__all__ = ["evidence_frame", "finding_frame", "timeline_frame"]

_UNITS = ("pfn", "address")
_OPERATIONS = (*dict.fromkeys(OPERATIONS.values()), "log")
_COUNTED = ("valid", "linear", "online", "lost")
"""Members of a glimpse that are numbers of subsections."""


def timeline_frame(facts: Facts) -> pd.DataFrame:
    """One row a hotplug operation of the trace, replayed, in the order of the trace.

    ``time``: ``timedelta64[ns]`` since boot.  ``operation``, ``task``, ``unit`` (what ``start`` and ``end`` count),
    ``result``, ``leaf_before``, ``leaf_after``, ``trouble``, ``source``: categorical.  ``cpu``, ``start``, ``end``,
    ``first_section``, ``last_section``, ``line`` and the numbers of subsections before and after (``valid``,
    ``linear``, ``online``, ``lost``): nullable.  ``depth`` (operations that it is part of), ``damaged_pages`` (pages
    whose struct pages it took away): ``uint64``.  ``stack``: text, innermost function first.

    InputError, with what to collect, where there is no trace.
    """
    rows = operation_rows(facts)
    return frame(
        {
            "time": elapsed(row.time for row in rows),
            "cpu": maybe((row.cpu for row in rows), "UInt16"),
            "task": words(row.task for row in rows),
            "depth": unsigned([row.depth for row in rows]),
            "operation": one_of([_OPERATIONS.index(row.operation) for row in rows], _OPERATIONS),
            "start": maybe(row.start for row in rows),
            "end": maybe(row.end for row in rows),
            "unit": one_of([_UNITS.index(row.unit) for row in rows], _UNITS),
            "result": words(row.result for row in rows),
            "first_section": maybe(row.sections[0] if row.sections else None for row in rows),
            "last_section": maybe(row.sections[1] if row.sections else None for row in rows),
            **_glimpses(rows),
            "trouble": words(row.trouble for row in rows),
            "damaged_pages": unsigned([sum(end - start for start, end in row.damage) for row in rows]),
            "stack": texts(" < ".join(row.stack) for row in rows),
            "source": words(row.source for row in rows),
            "line": maybe((row.line for row in rows), "UInt32"),
        }
    )


def _glimpses(rows: Sequence[OperationRow]) -> dict[str, Any]:
    """The state of the operation's sections before and after it."""
    columns: dict[str, Any] = {}
    for when in ("before", "after"):
        seen = [getattr(row, when) for row in rows]
        for name in _COUNTED:
            columns[f"{name}_{when}"] = maybe((None if one is None else getattr(one, name) for one in seen), "UInt32")
        columns[f"leaf_{when}"] = words(None if one is None else one.leaf for one in seen)
    return columns


def finding_frame(report: Report) -> pd.DataFrame:
    """One row a finding, worst first.

    ``severity`` and ``claim``: ordered categorical, so ``findings[findings.severity >= "high"]`` works.  ``rule``,
    ``name``, ``impact``, ``region``, ``source``: categorical.  ``pages``: ``uint64``, the page frames it concerns.
    ``start_pfn``, ``end_pfn`` and ``start_va``, ``last_va`` (the hull of its ranges), ``line``, ``address``: nullable.
    ``cause_time``: ``timedelta64[ns]`` since boot.  ``title``, ``message``, ``cause``, ``evidence``, ``fingerprint``:
    text; ``source``, ``line``, ``address`` and ``evidence`` are those of the first piece of evidence that names a
    place, and :func:`evidence_frame` has all of them.
    """
    found = report.findings
    first = [_first(one) for one in found]
    hits = [one.hit for one in found]
    return frame(
        {
            "rule": words(one.rule.code for one in found),
            "name": words(one.rule.name for one in found),
            "severity": one_of([int(one.severity) for one in found], [str(one) for one in Severity], ordered=True),
            "impact": one_of([list(Impact).index(one.rule.impact) for one in found], list(map(str, Impact))),
            "claim": one_of([list(Claim).index(hit.claim) for hit in hits], list(map(str, Claim)), ordered=True),
            "title": texts(hit.title for hit in hits),
            "message": texts(hit.message for hit in hits),
            "pages": unsigned([hit.pfns.total for hit in hits]),
            "start_pfn": maybe(int(hit.pfns.start[0]) if hit.pfns else None for hit in hits),
            "end_pfn": maybe(int(hit.pfns.end[-1]) if hit.pfns else None for hit in hits),
            "region": words(hit.vas[0].region if hit.vas else None for hit in hits),
            "start_va": maybe(min(va.start for va in hit.vas) if hit.vas else None for hit in hits),
            "last_va": maybe(max(va.end for va in hit.vas) - 1 if hit.vas else None for hit in hits),
            "cause_time": elapsed(hit.cause.time if hit.cause else None for hit in hits),
            "cause": texts(hit.cause.text if hit.cause else None for hit in hits),
            "source": words(one.source if one else None for one in first),
            "line": maybe((one.line if one else None for one in first), "UInt32"),
            "address": maybe(one.address if one else None for one in first),
            "evidence": texts(one.text if one else None for one in first),
            "fingerprint": texts(one.fingerprint for one in found),
        }
    )


def _first(finding: Finding) -> Evidence | None:
    """The first piece of evidence that names a line or an address, else the first."""
    pieces = finding.hit.evidence
    placed = (one for one in pieces if one.line is not None or one.address is not None)
    return next(placed, pieces[0] if pieces else None)


def evidence_frame(report: Report) -> pd.DataFrame:
    """One row a piece of evidence, in the order of the findings: where each can be checked.

    ``fingerprint`` joins it with :func:`finding_frame`.  ``rule``, ``source``: categorical; ``line``, ``address``:
    nullable; ``text``: the line of the source, or what lies at the address.
    """
    pieces = [(finding, piece) for finding in report.findings for piece in finding.hit.evidence]
    return frame(
        {
            "fingerprint": texts(finding.fingerprint for finding, _ in pieces),
            "rule": words(finding.rule.code for finding, _ in pieces),
            "source": words(piece.source for _, piece in pieces),
            "line": maybe((piece.line for _, piece in pieces), "UInt32"),
            "address": maybe(piece.address for _, piece in pieces),
            "text": texts(piece.text for _, piece in pieces),
        }
    )

"""The findings as CSV (RFC 4180), one row each, the verdict in every row: for a spreadsheet, or for joining many hosts.

A report without findings has one row, which holds the verdict only.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from analyzer.output import printable
from parsers.uname import KernelRelease

if TYPE_CHECKING:
    from collections.abc import Iterator

    from analyzer.audit import Report
    from rules.finding import Finding

__all__ = ["COLUMNS", "render"]

COLUMNS = (
    "verdict", "verdict_text", "kernel", "incident", "rule", "name", "severity", "impact", "claim", "title", "message",
    "fingerprint", "sections", "pfn_ranges", "va_ranges", "cause_event", "cause_time", "evidence",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@")


def render(report: Report, *, verbose: bool = False, colour: bool = False) -> str:  # noqa: ARG001 one shape for all
    """The table as text."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_cell(value) for value in row] for row in _rows(report))
    return text.getvalue()


def _rows(report: Report) -> Iterator[list[str]]:
    release = report.facts.get(KernelRelease)
    about = [str(report.overall.state), report.overall.text, release.raw if release is not None else ""]
    incidents = {id(finding): one.id for one in report.incidents for finding in one.findings}
    for one in report.findings:
        yield [*about, incidents.get(id(one), ""), *_finding(one)]
    if not report.findings:
        yield [*about, *[""] * (len(COLUMNS) - len(about))]


def _finding(one: Finding) -> list[str]:
    hit, rule = one.hit, one.rule
    return [
        rule.code,
        rule.name,
        str(one.severity),
        str(rule.impact),
        str(hit.claim),
        hit.title,
        hit.message,
        one.fingerprint,
        " ".join(map(str, one.sections)),
        " ".join(f"{lo:#x}-{hi:#x}" for lo, hi in hit.pfns.tuples()),
        " ".join(f"{va.region}:{va.start:#x}-{va.end:#x}" for va in hit.vas),
        "" if hit.cause is None else hit.cause.event,
        "" if hit.cause is None or hit.cause.time is None else f"{hit.cause.time:.6f}",
        "; ".join(f"{e.source}{'' if e.line is None else f':{e.line}'}: {e.text.strip()}" for e in hit.evidence),
    ]


def _cell(value: str) -> str:
    """Printable text that a spreadsheet does not take for a formula."""
    text = printable(value)
    return f"'{text}" if text.startswith(_FORMULA) else text

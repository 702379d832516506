"""The report as Markdown, for a ticket, a chat or a pull request: verdict, incidents, other findings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analyzer.output import printable
from analyzer.reports.text import kernel_line, place_of, summary
from parsers.expressions import expression
from parsers.layout import KernelLayout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from analyzer.audit import Report
    from analyzer.incidents.story import Incident
    from rules.finding import Finding

__all__ = ["render"]

MAX_ROWS = 100
MAX_INCIDENTS = 12
_SPECIAL = expression(r"([\\`*_{}\[\]<>|~#])")
_LABELS = {"then": "Then", "now": "Now", "next": "Next", "oops": "Oops", "bug": "Bug"}


def render(report: Report, *, verbose: bool = False, colour: bool = False) -> str:  # noqa: ARG001 one shape for all
    """The report as Markdown (CommonMark with tables)."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    overall = report.overall
    yield f"**{overall.state.words}**: {_text(overall.reason)}"
    yield ""
    yield _text(kernel_line(report))
    for verdict in report.failed:
        yield ""
        yield f"**error**: rule {_text(verdict.rule.code)} failed inside: {_text(verdict.reason)}"
    for one in report.incidents[:MAX_INCIDENTS]:
        yield ""
        yield from _incident(one)
    if len(report.incidents) > MAX_INCIDENTS:
        yield ""
        yield f"and {len(report.incidents) - MAX_INCIDENTS} more incidents"
    in_incidents = {id(finding) for one in report.incidents for finding in one.findings}
    yield from _table([one for one in report.findings if id(one) not in in_incidents])
    yield ""
    yield _text(summary(report))
    layout = report.facts.get(KernelLayout)
    for note in layout.notes if layout is not None else ():
        yield f"- note: {_text(note)}"


def _incident(one: Incident) -> Iterator[str]:
    yield f"### {str(one.severity).upper()}: {_text(one.title)}"
    yield ""
    for part in one.parts:
        yield f"- **{_LABELS[part.label]}**: {_text(part.text)}"
    yield f"- **Do**: {_text(one.advice)}"
    yield f"- confidence {one.claim}; rules {', '.join(map(_text, one.codes))}; incident `{one.id}`"


def _table(findings: list[Finding]) -> Iterator[str]:
    if not findings:
        return
    yield from ("", "| severity | rule | finding | where |", "|---|---|---|---|")
    for one in findings[:MAX_ROWS]:
        cells = (str(one.severity), one.rule.code, one.hit.title, place_of([one]))
        yield f"| {' | '.join(map(_text, cells))} |"
    if len(findings) > MAX_ROWS:
        yield f"| | | and {len(findings) - MAX_ROWS} more | |"


def _text(text: str) -> str:
    """Text that Markdown takes literally, in one line."""
    return _SPECIAL.sub(r"\\\1", printable(" ".join(text.split())))

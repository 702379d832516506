"""The rules as KTAP, which kernel test systems read (Documentation/dev-tools/ktap.rst): one line a rule.

The verdict comes first, as a comment after the version line that the format demands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from analyzer.output import printable
from analyzer.reports.junit import FAILS_FROM
from analyzer.reports.text import place_of
from rules.engine import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from analyzer.audit import Report

__all__ = ["render"]


def render(report: Report, *, verbose: bool = False, colour: bool = False) -> str:  # noqa: ARG001 one shape for all
    """The lines."""
    return "".join(f"{printable(line)}\n" for line in _lines(report))


def _lines(report: Report) -> Iterator[str]:
    yield "KTAP version 1"
    yield f"# {report.overall.text}"
    yield f"1..{len(report.verdicts)}"
    reported = {id(one) for one in report.findings}
    for number, verdict in enumerate(report.verdicts, 1):
        found = [one for one in verdict.findings if id(one) in reported]
        name = f"{number} {verdict.rule.code} {verdict.rule.name}"
        for one in found:
            yield f"# {one.severity} {one.hit.title} ({place_of([one])}) [{one.fingerprint}]"
        if verdict.outcome is Outcome.ERROR:
            yield f"# failed inside: {verdict.reason}"
        failed = verdict.outcome is Outcome.ERROR or any(one.severity >= FAILS_FROM for one in found)
        skipped = not found and verdict.outcome in {Outcome.UNDECIDED, Outcome.NOT_APPLICABLE}
        directive = f" # SKIP {verdict.outcome}: {verdict.reason}" if skipped else ""
        yield f"{'not ok' if failed else 'ok'} {name}{directive}"

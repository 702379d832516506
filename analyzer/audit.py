"""The pipeline: read what was captured, work out the facts, run the rules."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from analyzer.sources.read import Request, Sources, read_sources
from rules.engine import Outcome, Verdict, load_rules, run, select
from rules.finding import Finding, Severity
from rules.model.captured import facts_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rules.facts import Facts

__all__ = ["Report", "audit"]


@dataclass(frozen=True, eq=False)
class Report:
    """An audit: what was read, what was concluded, what every rule said."""

    sources: Sources
    facts: Facts
    verdicts: tuple[Verdict, ...]
    broken_plugins: tuple[str, ...] = ()
    min_severity: Severity = field(default=Severity.INFO)

    @property
    def findings(self) -> list[Finding]:
        """Findings of at least the wanted severity, worst first."""
        every = (finding for verdict in self.verdicts for finding in verdict.findings)
        return sorted((one for one in every if one.severity >= self.min_severity), key=lambda one: one.order)

    def worst(self) -> Severity | None:
        """The highest severity found."""
        return max((finding.severity for finding in self.findings), default=None)

    def undecided(self, at_least: Severity) -> list[Verdict]:
        """Rules of that severity or above that the evidence did not decide."""
        return [v for v in self.verdicts if v.outcome is Outcome.UNDECIDED and v.rule.severity >= at_least]


def audit(
    request: Request,
    *,
    only: Iterable[str] = (),
    ignore: Iterable[str] = (),
    min_severity: Severity = Severity.INFO,
) -> Report:
    """Audit one evidence set."""
    sources = read_sources(request)
    facts = facts_of(sources.captured)
    rules, broken = load_rules()
    return Report(sources, facts, tuple(run(select(rules, only, ignore), facts)), broken, min_severity)

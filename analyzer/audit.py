"""The pipeline: read what was captured, work out the facts, run the rules."""

from __future__ import annotations

from dataclasses import field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

from analyzer.baseline import Baseline, Entry
from analyzer.incidents.story import Incident, incidents_of
from analyzer.known_bugs import BugState, bugs_of
from analyzer.sources.read import Request, Sources, read_sources
from analyzer.verdict import HostVerdict, verdict_of
from parsers.progress import step
from parsers.records import dataclass
from rules.engine import Outcome, Verdict, load_rules, run, select
from rules.finding import Finding, Severity
from rules.model.captured import build_facts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from analyzer.whatif.outlook import Outlook
    from rules.facts import Facts
    from rules.rule import Rule

__all__ = ["Report", "audit", "judge"]


@dataclass(frozen=True, eq=False)
class Report:
    """An audit: what was read, what was concluded, what every rule said."""

    sources: Sources
    facts: Facts
    verdicts: tuple[Verdict, ...]
    broken_plugins: tuple[str, ...] = ()
    min_severity: Severity = field(default=Severity.INFO)
    baseline: Baseline = field(default_factory=Baseline)
    when: datetime = field(default_factory=lambda: datetime.now(UTC))
    live: bool = False
    """Whether it is of the host that it runs on."""

    @cached_property
    def overall(self) -> HostVerdict:
        """The verdict on the host."""
        return verdict_of(self)

    @cached_property
    def bugs(self) -> list[BugState]:
        """The known bugs, and whether this kernel has them."""
        return bugs_of(self)

    @cached_property
    def incidents(self) -> list[Incident]:
        """Findings that one event or state explains, as stories, worst first."""
        return incidents_of(self)

    @cached_property
    def open_findings(self) -> list[Finding]:
        """Findings of any severity that the baseline does not accept, worst first."""
        every = (finding for verdict in self.verdicts for finding in verdict.findings)
        today = self.when.date()
        return sorted((one for one in every if not self.baseline.accepting(one, today)), key=lambda one: one.order)

    @property
    def failed(self) -> list[Verdict]:
        """Rules that failed inside."""
        return [one for one in self.verdicts if one.outcome is Outcome.ERROR]

    @cached_property
    def findings(self) -> list[Finding]:
        """Findings of at least the wanted severity that the baseline does not accept, worst first."""
        return [one for one, entry in self._with_entries if entry is None]

    @cached_property
    def accepted(self) -> list[tuple[Finding, Entry]]:
        """Findings that the baseline accepts, each with the entry that does."""
        return [(one, entry) for one, entry in self._with_entries if entry is not None]

    @property
    def stale(self) -> list[tuple[Entry, str]]:
        """Entries of the baseline that accept nothing any more, each with the reason."""
        return self.baseline.stale(self.verdicts, self.when.date())

    @cached_property
    def _with_entries(self) -> list[tuple[Finding, Entry | None]]:
        every = (finding for verdict in self.verdicts for finding in verdict.findings)
        wanted = sorted((one for one in every if one.severity >= self.min_severity), key=lambda one: one.order)
        return [(one, self.baseline.accepting(one, self.when.date())) for one in wanted]

    @cached_property
    def outlook(self) -> Outlook:
        """What can leave the host now, and what breaks with it."""
        from analyzer.whatif.outlook import outlook  # noqa: PLC0415 for the formats that say it

        return outlook(self.facts)

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
    baseline: Baseline | None = None,
    live: bool = False,
) -> Report:
    """Audit one evidence set.  UsageError where ``only`` or ``ignore`` names no rule, before anything is read."""
    rules, broken = load_rules()
    chosen = select(rules, only, ignore)
    sources = read_sources(request)
    return _report(sources, build_facts(sources.captured), chosen, broken, min_severity, baseline, live=live)


def judge(
    sources: Sources,
    facts: Facts,
    *,
    only: Iterable[str] = (),
    ignore: Iterable[str] = (),
    min_severity: Severity = Severity.INFO,
    baseline: Baseline | None = None,
    live: bool = False,
) -> Report:
    """Run the rules on facts that were worked out before; ``live`` if they are of this host."""
    rules, broken = load_rules()
    return _report(sources, facts, select(rules, only, ignore), broken, min_severity, baseline, live=live)


def _report(
    sources: Sources,
    facts: Facts,
    rules: tuple[Rule, ...],
    broken: tuple[str, ...],
    min_severity: Severity,
    baseline: Baseline | None,
    *,
    live: bool,
) -> Report:
    with step("running the rules"):
        verdicts = tuple(run(rules, facts))
    return Report(sources, facts, verdicts, broken, min_severity, baseline or Baseline(), live=live)

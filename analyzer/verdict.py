"""The verdict on a host, the first line of every report: damaged, at risk, clean, or blind.

Damage and risk that were found win.  Without them a host is clean only if the rules could look: the page tables (both
the linear map and the vmemmap area), which memory is valid, and most rules of severity high or above that look at
these.  What only a trace, a log, an earlier capture or a crash dump shows is counted and named, and does not make a
host blind: it is about the past, or about more precision.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING

from analyzer.advice import CRASH_DUMP, ONE_MOMENT, RUNNING_MEMORY, Reader, how_to_get, memory_of, reader_of
from parsers.dmesg import Dmesg
from parsers.iomem import Iomem
from parsers.layout import KernelLayout
from parsers.mapping import Mapping
from parsers.memory_blocks import MemoryBlocks
from parsers.records import dataclass
from parsers.vmcore.moment import Flux
from parsers.vmcore.rows import BlockRows, HugetlbRows, SectionRows, StructPageRows, ZoneRows
from rules.engine import Outcome
from rules.finding import Severity
from rules.model.log_events import LogEvents
from rules.model.memory.regions import LinearMap, Vmemmap
from rules.model.memory.resources import Resources
from rules.model.memory.sections import SectionTable
from rules.model.memory.snapshots import Earlier
from rules.model.memory.walk import PageWalk
from rules.model.oops import Oopses
from rules.model.replay.timeline import HotplugLog, Timeline

if TYPE_CHECKING:
    from collections.abc import Iterable

    from analyzer.audit import Report
    from rules.engine import Verdict as RuleVerdict
    from rules.finding import Finding
    from rules.rule import Rule

__all__ = ["PAGE_TABLES", "HostVerdict", "State", "evidence_of", "verdict_of"]

FEWEST = 3
"""Of fewer rules about one subject the undecided ones say little."""
LOOKED_AT = Severity.HIGH
"""From this severity on a rule that could not look counts."""
PAGE_TABLES = "page tables"
_PIECES: dict[type, str] = {
    Mapping: PAGE_TABLES,
    LinearMap: PAGE_TABLES,
    Vmemmap: PAGE_TABLES,
    SectionTable: "/proc/iomem",
    Resources: "/proc/iomem",
    Iomem: "/proc/iomem",
    MemoryBlocks: "memory blocks",
    KernelLayout: "kernel layout",
    Timeline: "a trace",
    HotplugLog: "a trace",
    Earlier: "an earlier capture",
    Dmesg: "kernel log",
    Oopses: "kernel log",
    **dict.fromkeys((PageWalk, SectionRows, BlockRows, StructPageRows, ZoneRows, HugetlbRows), CRASH_DUMP),
}
"""What a person calls the evidence that gives a fact, what decides most first."""
_BEYOND = frozenset({"a trace", "an earlier capture", "kernel log", CRASH_DUMP, RUNNING_MEMORY})
"""Evidence of the past or of more precision: a state can be judged without it."""
_STATE = (LinearMap, Vmemmap, SectionTable)
"""Without any of these the state of memory cannot be judged."""


class State(StrEnum):
    """What a host is; the value is what JSON and metrics say."""

    DAMAGED = "damaged"
    AT_RISK = "at_risk"
    CLEAN = "clean"
    BLIND = "blind"

    @property
    def words(self) -> str:
        """As a person reads it."""
        return self.value.replace("_", " ")


@dataclass(frozen=True)
class HostVerdict:
    """The verdict in one line, and what it relies on."""

    state: State
    reason: str
    """The line without the state."""
    undecided: int
    """Rules of severity high or above that could not look."""
    of: int
    """All rules of that severity that were run."""
    blind: bool
    """Whether too little could be looked at, whatever was found."""
    missing: tuple[str, ...]
    """The evidence that is to blame, what decides most first."""
    unrelated: bool = False
    """There is a kernel log alone, and memory has nothing to do with what happened in it."""

    @property
    def text(self) -> str:
        """The line."""
        return f"{self.state.words}: {self.reason}"


def verdict_of(report: Report) -> HostVerdict:
    """The verdict on the host of a report; findings that the baseline accepts do not count."""
    rules = [one for one in report.verdicts if one.rule.severity >= LOOKED_AT]
    unseeing = [one for one in rules if one.outcome in {Outcome.UNDECIDED, Outcome.ERROR}]
    blame = _blame(report, unseeing)
    blind = _is_blind(report, rules)
    missing = tuple(piece for piece in blame if not blind or piece not in _BEYOND) or tuple(blame)
    lack = f"{len(unseeing)} of {len(rules)} rules of severity high or above could not look"
    worst = _worst(report.open_findings)
    if worst:
        state = State.DAMAGED if worst[0].severity is Severity.CRITICAL else State.AT_RISK
        unseen = f". {lack}: {_no(missing[0])}" if blind and missing else ""
        return HostVerdict(state, f"{_summary(worst)}{unseen}", len(unseeing), len(rules), blind, missing)
    failed = [one.rule.code for one in unseeing if one.outcome is Outcome.ERROR]
    events = report.facts.get(LogEvents)
    if events is not None and events.unrelated and blind and not failed and reader_of(report) is Reader.LOG:
        reason = f"memory has nothing to do with {events.summary}"
        return HostVerdict(State.BLIND, reason, len(unseeing), len(rules), blind, missing, unrelated=True)
    if not rules:
        return HostVerdict(State.BLIND, "no rule of severity high or above was run", 0, 0, blind, missing)
    if blind or failed:
        reason = _blind_reason(report, missing, failed)
        if events is not None and events.events and not failed and reader_of(report) is Reader.LOG:
            lack = f"the log reports {events.summary}. {lack}"
        return HostVerdict(State.BLIND, f"{lack}: {reason}", len(unseeing), len(rules), blind, missing)
    return HostVerdict(State.CLEAN, _clean_reason(rules, unseeing, blame), len(unseeing), len(rules), blind, missing)


def evidence_of(report: Report) -> dict[str, bool]:
    """The evidence without which the state cannot be judged, by name, and whether it is there."""
    return {
        "page_tables": all(report.facts.get(kind) is not None for kind in (LinearMap, Vmemmap)),
        "memory_map": report.facts.get(SectionTable) is not None,
        "kernel_log": report.facts.get(Dmesg) is not None,
        "trace": report.facts.get(Timeline) is not None,
    }


def _worst(findings: Iterable[Finding]) -> list[Finding]:
    """The findings that make a host damaged or at risk: those of the highest severity, if that is high or above."""
    found = sorted((one for one in findings if one.severity >= LOOKED_AT), key=lambda one: one.order)
    return [one for one in found if one.severity is found[0].severity]


def _summary(worst: list[Finding]) -> str:
    """What is wrong: the first finding, and which other rules say the same or more."""
    first = worst[0]
    word, space, rest = first.hit.title.partition(" ")
    title = f"{word[:1].lower()}{word[1:]}{space}{rest}" if word[1:].islower() or len(word) == 1 else first.hit.title
    others = [code for code in dict.fromkeys(one.rule.code for one in worst) if code != first.rule.code]
    also = f", with {', '.join(others[:3])}{' and more' if len(others) > 3 else ''}" if others else ""
    return f"{title} ({first.rule.code}, {first.hit.claim}{also})"


def _is_state_rule(rule: Rule) -> bool:
    """Whether an ordinary capture decides the rule: page tables, lists, configuration."""
    pieces = {_PIECES.get(kind, "") for kind in rule.needs}
    return rule.family not in {"trace", "oops", "witnesses"} and not pieces & _BEYOND


def _is_blind(report: Report, rules: list[RuleVerdict]) -> bool:
    """Whether too little could be looked at to call a host clean."""
    if not rules:
        return True
    of_state = [one for one in rules if _is_state_rule(one.rule)]
    if not of_state:
        return _mostly_undecided(rules)
    if any(report.facts.get(kind) is None for kind in _STATE):
        return True
    subjects = ([one for one in of_state if kind in one.rule.needs] for kind in (LinearMap, Vmemmap, Mapping))
    return any(_mostly_undecided(one) for one in (of_state, *subjects) if len(one) >= FEWEST or one is of_state)


def _mostly_undecided(rules: list[RuleVerdict]) -> bool:
    lost = [one for one in rules if one.outcome in {Outcome.UNDECIDED, Outcome.ERROR}]
    return len(lost) * 2 > len(rules)


def _blame(report: Report, undecided: list[RuleVerdict]) -> dict[str, int]:
    """Missing pieces of evidence, with how many rules lack each, what lies closest to a verdict first."""
    counts: Counter[str] = Counter()
    for one in undecided:
        lacking = set(_lacking(one, report))
        counts.update({_PIECES[kind] for kind in lacking if kind in _PIECES})
    for kind in _STATE:
        if report.facts.get(kind) is None and undecided:
            counts[_PIECES[kind]] += 0
    order = {piece: number for number, piece in enumerate(dict.fromkeys(_PIECES.values()))}
    if report.facts.get(Flux) is not None and all(report.facts.get(kind) is not None for kind in _STATE):
        counts[ONE_MOMENT] = sum(not _lacking(one, report) for one in undecided)
        order[ONE_MOMENT] = -1
    ordered = sorted(counts.items(), key=lambda item: (item[0] in _BEYOND, order[item[0]]))
    memory = memory_of(report)
    return {memory if piece == CRASH_DUMP else piece: count for piece, count in ordered}


def _lacking(one: RuleVerdict, report: Report) -> list[type]:
    """What a rule needs and evidence does not give, but for what changed while it was read."""
    missing = (kind for kind in one.rule.needs if report.facts.get(kind) is None)
    return [kind for kind in missing if not report.facts.changed(kind)]


def _blind_reason(report: Report, missing: tuple[str, ...], failed: list[str]) -> str:
    parts = [f"{', '.join(failed)} failed inside"] if failed else []
    if missing and not set(missing) <= _BEYOND:
        parts.append(_no(missing[0]))
        return f"{' and '.join(parts)}. {how_to_get(missing[0], report)}"
    if missing:
        parts.append(_no(missing[0]))
    return " and ".join(parts) or "the evidence does not cover what they look at"


def _no(piece: str) -> str:
    if piece == ONE_MOMENT:
        return "memory changed while it was read"
    return f"no {piece.removeprefix('an ').removeprefix('a ')}"


def _clean_reason(rules: list[RuleVerdict], undecided: list[RuleVerdict], blame: dict[str, int]) -> str:
    looked = f"nothing found by {len(rules) - len(undecided)} of {len(rules)} rules of severity high or above"
    if not undecided:
        return looked
    would = [piece for piece, count in sorted(blame.items(), key=lambda item: -item[1]) if count][:3]
    rest = f"; {' and '.join(filter(None, (', '.join(would[:-1]), would[-1])))} would decide more" if would else ""
    return f"{looked}{rest}"

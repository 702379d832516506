"""What is on the page, in the order in which it is read: texts and numbers, no markup."""

from __future__ import annotations

import os.path
from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING, Any

from analyzer.advice import advice_for
from analyzer.incidents.story import incidents_by_event
from analyzer.reports.html.embedded import embedded
from analyzer.reports.html.memory_map import MemoryMap, Place
from analyzer.reports.html.strips import Strips, strips
from analyzer.reports.html.timeline import Event, Picture, picture
from analyzer.reports.html.where import place_of, where
from analyzer.reports.send_back import send_back
from analyzer.sources.unread import NOT_RECOGNISED
from analyzer.verdict import State
from parsers.layout import LAYOUT_KEYS, KernelLayout
from parsers.ranges import Ranges
from parsers.records import dataclass
from parsers.uname import KernelRelease
from rules.engine import Outcome
from rules.facts import how_to_collect
from rules.finding import Severity
from rules.model.memory.sections import SectionTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analyzer.audit import Report
    from analyzer.baseline import Entry
    from analyzer.incidents.story import Incident
    from analyzer.sources.read import Unread
    from rules.engine import Verdict
    from rules.finding import Evidence, Finding
    from rules.rule import Rule

__all__ = ["Page", "page_of"]

MAX_HITS = 50
"""Findings of one rule and severity that are written out; the map has all of them."""
MAX_TABLE = 300
MAX_STORIES = 50
MAX_TEXT = 2000
LETTERS = {Severity.CRITICAL: "C", Severity.HIGH: "H", Severity.MEDIUM: "M", Severity.LOW: "L", Severity.INFO: "i"}

_TONES = {State.DAMAGED: "critical", State.AT_RISK: "high", State.CLEAN: "clean", State.BLIND: "undecided"}


@dataclass(frozen=True, slots=True)
class Value:
    """A fact of the layout with its source."""

    name: str
    value: str
    source: str
    precision: str


@dataclass(frozen=True, slots=True)
class Hit:
    """One finding, ready to be written out; ``mark`` is its number on the map, -1 if it is not on it."""

    anchor: str
    finding: Finding
    where: tuple[str, ...]
    evidence: tuple[tuple[str, tuple[tuple[str, tuple[str, ...]], ...]], ...]
    """By source, what was seen in it: a line number or an address, and lines of text."""
    cause: str
    stack: tuple[str, ...]
    mark: int


@dataclass(frozen=True, slots=True)
class Story:
    """An incident, with the anchors of its findings below, and the mark of its leading one on the map."""

    anchor: str
    incident: Incident
    hits: tuple[Hit, ...]
    """Those of its findings that are written out."""

    @property
    def where(self) -> tuple[str, ...]:
        """The place of its leading finding."""
        return self.hits[0].where if self.hits else ()

    @property
    def mark(self) -> int:
        """The number of its leading finding on the map, -1 if none of them is there."""
        return next((hit.mark for hit in self.hits if hit.mark >= 0), -1)


@dataclass(frozen=True, slots=True)
class Group:
    """Findings of one rule and severity: what is common to them is said once."""

    rule: Rule
    severity: Severity
    hits: tuple[Hit, ...]
    left_out: int
    rest_mark: int


@dataclass(frozen=True, slots=True)
class TableRow:
    """Adjacent sections that are alike, in words."""

    sections: str
    pfns: str
    cells: tuple[str, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Page:
    """The whole page."""

    release: str
    headline: str
    advice_first: str
    """What follows the headline: how to get what is missing."""
    verdict: str
    tone: str
    """The class of style that the verdict has."""
    stories: tuple[Story, ...]
    stories_left_out: int
    incident_of: dict[str, str]
    """By the anchor of a finding, that of its incident."""
    incident_at: dict[float, str]
    """By the time of an event, the anchor of the incident that it caused."""
    failed: tuple[Verdict, ...]
    facts: tuple[Value, ...]
    layout: tuple[Value, ...]
    memory: str
    tally: tuple[tuple[Severity, int], ...]
    outcomes: tuple[tuple[Outcome, int], ...]
    notes: tuple[str, ...]
    root: str
    sources: tuple[Any, ...]
    ignored: tuple[str, ...]
    groups: tuple[Group, ...]
    advice: dict[str, str]
    """By rule code, for this reader."""
    map: MemoryMap | None
    no_map: str
    strips: Strips | None
    data: dict[str, Any] | None
    table: tuple[TableRow, ...]
    table_left_out: int
    timeline: Picture | None
    block: tuple[str, ...]
    """Lines for a shell that collect what the undecided rules lack."""
    block_notes: tuple[str, ...]
    undecided: tuple[Verdict, ...]
    accepted: tuple[tuple[Finding, Entry], ...]
    stale: tuple[tuple[Entry, str], ...]
    verdicts: tuple[Verdict, ...]

    @property
    def severities(self) -> list[str]:
        """Those of findings, the worst last: it is drawn over the others."""
        return [str(severity) for severity, _ in reversed(self.tally)]

    def short(self, path: str) -> str:
        """A path below the folder of all sources."""
        return below(self.root, path)


def page_of(report: Report, events: Sequence[Event]) -> Page:
    """The page of a report, with the hotplug operations of ``events``."""
    return _Writing(report).page(events)


class _Writing:
    """One page in the making."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.layout = report.facts.get(KernelLayout)
        self.findings = report.findings
        self.root = _common_folder([source.path for source in report.sources.sources])
        self.places: list[Place] = []

    def page(self, events: Sequence[Event]) -> Page:
        report, layout = self.report, self.layout
        release = report.facts.get(KernelRelease)
        groups = tuple(self._groups())
        drawn = MemoryMap.of(report.facts, self.places)
        picture_of_map = strips(drawn) if drawn else None
        table, left_out = _table(drawn) if drawn else ((), 0)
        stories = self._stories(groups)
        overall = report.overall
        headline, _, how = overall.reason.partition(". ")
        found, outcomes = self._tally()
        lines = send_back(report)
        undecided = tuple(verdict for verdict in report.verdicts if _is_open(verdict))
        return Page(
            release=release.raw if release else "",
            headline=f"{headline[:1].upper()}{headline[1:]}",
            advice_first=how,
            verdict=overall.state.words,
            tone=_TONES[overall.state],
            stories=stories,
            stories_left_out=len(report.incidents) - len(stories),
            incident_of={hit.anchor: story.anchor for story in stories for hit in story.hits},
            incident_at={
                time: f"incident-{one.id}"
                for time, one in incidents_by_event(story.incident for story in stories).items()
            },
            failed=tuple(report.failed),
            facts=tuple(self._facts()),
            layout=tuple(_value(layout, key, self.root) for key in LAYOUT_KEYS if layout and key in layout.facts),
            memory=self._memory(),
            tally=found,
            outcomes=outcomes,
            notes=tuple(self._notes(drawn)),
            root=self.root,
            sources=tuple(report.sources.sources),
            ignored=tuple(_unread(one) for one in report.sources.unread),
            groups=groups,
            advice={group.rule.code: advice_for(group.rule, report) for group in groups},
            map=drawn,
            no_map="" if drawn else self._why_no_map(),
            strips=picture_of_map,
            data=embedded(drawn, picture_of_map.axis) if drawn and picture_of_map else None,
            table=table,
            table_left_out=left_out,
            timeline=picture(events),
            block=tuple(line[2:] for line in lines[1:] if line.startswith("  ")),
            block_notes=tuple(line for line in lines[1:] if not line.startswith("  ")),
            undecided=undecided,
            accepted=tuple(report.accepted),
            stale=tuple(report.stale),
            verdicts=report.verdicts,
        )

    def _stories(self, groups: Sequence[Group]) -> tuple[Story, ...]:
        hits = {id(hit.finding): hit for group in groups for hit in group.hits}
        return tuple(
            Story(f"incident-{one.id}", one, tuple(hits[id(f)] for f in one.findings if id(f) in hits))
            for one in self.report.incidents[:MAX_STORIES]
        )

    def _groups(self) -> list[Group]:
        groups: list[Group] = []
        number = 0
        for (rule, severity), found in groupby(self.findings, key=lambda one: (one.rule, one.severity)):
            every = list(found)
            hits = []
            for finding in every[:MAX_HITS]:
                number += 1
                hits.append(self._hit(finding, f"finding-{number}"))
            rest = every[MAX_HITS:]
            mark = self._place(severity, _joined([place_of(one, self.layout) for one in rest])) if rest else -1
            groups.append(Group(rule, severity, tuple(hits), len(rest), mark))
        return groups

    def _hit(self, finding: Finding, anchor: str) -> Hit:
        mark = self._place(finding.severity, place_of(finding, self.layout))
        sources = groupby(finding.hit.evidence, key=lambda one: below(self.root, one.source))
        evidence = tuple((name, tuple((_spot(one), _lines(one.text)) for one in seen)) for name, seen in sources)
        cause = finding.hit.cause
        what, frames = (cause.what, cause.stack) if cause else ("", ())
        return Hit(anchor, finding, where(finding, self.layout), evidence, what, frames, mark)

    def _place(self, severity: Severity, pfns: Ranges) -> int:
        if not pfns:
            return -1
        self.places.append(Place(severity, pfns))
        return len(self.places) - 1

    def _facts(self) -> list[Value]:
        layout = self.layout
        if layout is None:
            return []
        rows = []
        for key in ("page_size", "va_bits_actual", "phys_offset", "section_size_bits", "block_size"):
            known = "va_bits" if key == "va_bits_actual" and key not in layout.facts else key
            if known in layout.facts:
                rows.append(_value(layout, known, self.root))
        if "phys_offset" not in layout.facts:
            several = ", ".join(f"{value:#x}" for value in layout.phys_offset_candidates[:4])
            rows.insert(2, Value("PHYS_OFFSET", several or "not known", "several fit" if several else "", ""))
        return rows

    def _memory(self) -> str:
        sections = self.report.facts.get(SectionTable)
        if sections is None or self.layout is None:
            return ""
        page = self.layout.page_size
        kinds = {"RAM": sections.ram, "device memory": sections.device}
        parts = [f"{size(ranges.total * page)} {name}" for name, ranges in kinds.items() if ranges]
        return ", ".join([*parts, f"{sections.present_sections.total:,} sections"])

    def _tally(self) -> tuple[tuple[tuple[Severity, int], ...], tuple[tuple[Outcome, int], ...]]:
        found = Counter(finding.severity for finding in self.findings)
        outcomes = Counter(verdict.outcome for verdict in self.report.verdicts)
        return (
            tuple((level, found[level]) for level in reversed(Severity) if found[level]),
            tuple((one, outcomes[one]) for one in Outcome if outcomes[one]),
        )

    def _notes(self, drawn: MemoryMap | None) -> list[str]:
        notes = list(self.layout.notes) if self.layout else []
        for source in self.report.sources.sources:
            notes += [str(one).replace(f"{self.root}{os.sep}", "", 1) for one in source.diagnostics]
        return [*notes, *self.report.broken_plugins, *(drawn.notes if drawn else ())]

    def _why_no_map(self) -> str:
        why = self.report.facts.why_missing(SectionTable)
        return f"No map of the memory: {why}. Collect: {'; '.join(how_to_collect(SectionTable))}"


def _unread(one: Unread) -> str:
    return one.path if one.reason == NOT_RECOGNISED else f"{one.path} ({one.reason})"


def below(root: str, path: str) -> str:
    """A path as seen from a folder above it."""
    return path.removeprefix(f"{root}{os.sep}") if root else path


def size(count: int) -> str:
    """Bytes in the largest unit that leaves few digits: ``96 MiB``."""
    for shift, unit in ((50, "PiB"), (40, "TiB"), (30, "GiB"), (20, "MiB")):
        if count >= 1 << shift:
            return f"{count / (1 << shift):.4g} {unit}"
    return f"{count >> 10} KiB"


def _value(layout: KernelLayout, key: str, root: str) -> Value:
    fact = layout.facts[key]
    names = {"page_size": "pages", "phys_offset": "PHYS_OFFSET", "block_size": "memory block"}
    words = {"va_bits": "virtual addresses", "va_bits_actual": "virtual addresses", "section_size_bits": "section"}
    if key in {"page_size", "block_size"}:
        text = size(fact.value)
    elif key == "section_size_bits":
        text = size(1 << fact.value)
    elif key.startswith("va_bits"):
        text = f"{fact.value} bits"
    else:
        text = f"{fact.value:#x}" if key != "struct_page_size" else f"{fact.value} bytes"
    return Value({**names, **words}.get(key, key), text, below(root, fact.source), str(fact.precision))


def _spot(evidence: Evidence) -> str:
    if evidence.line is not None:
        return f":{evidence.line}"
    return "" if evidence.address is None else f"{evidence.address:#x}"


def _lines(text: str) -> tuple[str, ...]:
    """Evidence by line, cut where it is endless."""
    cut = text.strip()[:MAX_TEXT]
    more = len(text.strip()) - len(cut)
    return (*cut.splitlines(), *([f"… and {more:,} more characters"] if more else []))


def _common_folder(paths: list[str]) -> str:
    folders = {os.path.dirname(path) for path in paths}  # noqa: PTH120 names as they were given, not paths of this host
    try:
        return os.path.commonpath(folders) if folders else ""
    except ValueError:  # some absolute, some not
        return ""


def _joined(several: list[Ranges]) -> Ranges:
    return Ranges.pairs(pair for ranges in several for pair in ranges.tuples())


def _is_open(verdict: Verdict) -> bool:
    """Not decided, or fired and not decided in full."""
    return verdict.outcome is Outcome.UNDECIDED or (verdict.outcome is Outcome.FIRED and bool(verdict.reason))


def _table(drawn: MemoryMap) -> tuple[tuple[TableRow, ...], int]:
    """The map in words, adjacent alike sections on one line."""
    pages = drawn.layout.pages_per_section
    rows = []
    for run in drawn.runs[:MAX_TABLE]:
        alike = drawn.alike[run.alike]
        pattern = drawn.patterns[alike.pattern]
        look = pattern.whole
        sections = f"{run.first}" if run.first == run.last else f"{run.first}–{run.last}"
        cells = (alike.group, alike.memory, alike.state, alike.origin, f"{pattern.valid}/{drawn.per_section}")
        pfns = f"{run.first * pages:#x}-{(run.last + 1) * pages:#x}"
        rows.append(TableRow(sections, pfns, (*cells, look.structs_text, look.linear_text)))
    return tuple(rows), max(len(drawn.runs) - MAX_TABLE, 0)

"""The text of an incident: what happened, when, by whom, what it destroyed, what fails next, which bug, what to do."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

from analyzer.advice import advice_for
from analyzer.incidents.group import grouped, joined_pfns
from analyzer.known_bugs import bug_name
from parsers.expressions import expression
from parsers.layout import KernelLayout
from parsers.records import dataclass
from rules.finding import Claim, Severity
from rules.model.bugs import describe_fixes
from rules.model.memory.resources import Resources

if TYPE_CHECKING:
    from collections.abc import Iterable

    from analyzer.audit import Report
    from analyzer.known_bugs import BugState
    from rules.finding import Cause, Finding

__all__ = ["Incident", "Part", "incidents_by_event", "incidents_of"]

MAX_CHARACTERS = 420
"""Of one part of a story; what is longer is cut at a sentence."""
MAX_NEXT = 300
MAX_EVENTS = 3
MAX_NAMES = 4
_KNOWN_BUG_QUESTION = expression(r"Is it the known bug.*?(?= Assumptions: |$)")
"""What an oops rule says for and against a known bug."""
_LOG_KINDS = frozenset({"dmesg", "trace"})
_VERBS = {
    "arch_add_memory": "added memory",
    "arch_remove_memory": "removed memory",
    "online_pages": "onlined memory",
    "offline_pages": "offlined memory",
}


class Part(NamedTuple):
    """One part of a story: what it says (``then``, ``now``, ``next``, ``oops``, ``bug``) and the sentences."""

    label: str
    text: str


@dataclass(frozen=True, eq=False)
class Incident:
    """One story for findings that belong together."""

    findings: tuple[Finding, ...]
    """Worst first; the first one leads."""
    parts: tuple[Part, ...]
    advice: str
    bug: BugState | None

    @property
    def lead(self) -> Finding:
        return self.findings[0]

    @property
    def severity(self) -> Severity:
        return self.lead.severity

    @property
    def claim(self) -> Claim:
        """The strongest claim among the findings of its severity."""
        alike = (one.hit.claim for one in self.findings if one.severity is self.severity)
        return max(alike, key=list(Claim).index)

    @property
    def cause(self) -> Cause | None:
        """The event that did it."""
        return next((one.hit.cause for one in self.findings if one.hit.cause is not None), None)

    @property
    def title(self) -> str:
        """What is wrong, and where."""
        sections = sorted({number for one in self.findings for number in one.sections})
        if not sections:
            return self.lead.hit.title
        several = f"s {sections[0]}-{sections[-1]}" if len(sections) > 1 else f" {sections[0]}"
        return f"{self.lead.hit.title} (section{several})"

    @property
    def codes(self) -> list[str]:
        """The rules that found it, the worst first."""
        return list(dict.fromkeys(one.rule.code for one in self.findings))

    @property
    def id(self) -> str:
        """Stable while the damage stays where it is: made of the leading finding's fingerprint."""
        return hashlib.sha256(f"incident {self.lead.fingerprint}".encode()).hexdigest()[:12]

    def as_dict(self) -> dict[str, Any]:
        """As in ``ptaudit.report/2``."""
        cause = self.cause
        return {
            "id": self.id,
            "title": self.title,
            "severity": str(self.severity),
            "claim": str(self.claim),
            "findings": [one.fingerprint for one in self.findings],
            "rules": self.codes,
            "cause": None if cause is None else {"event": cause.event, "time": cause.time, "text": cause.text},
            "bug": None if self.bug is None else bug_name(self.bug.bug),
            "story": [part.text for part in self.parts],
            "advice": self.advice,
        }


def incidents_of(report: Report) -> list[Incident]:
    """The incidents among the findings that are reported, worst first."""
    layout = report.facts.get(KernelLayout)
    known = layout is not None and layout.knows("section_size_bits", "page_size")
    pages_per_section = layout.pages_per_section if layout is not None and known else None
    logs = frozenset(source.path for source in report.sources.sources if source.kind in _LOG_KINDS)
    groups = grouped(report.findings, logs, pages_per_section)
    return [_incident(tuple(group), report) for group in groups]


def incidents_by_event(incidents: Iterable[Incident]) -> dict[float, Incident]:
    """By the time of each event of the trace, the incident that it is part of."""
    return {
        finding.hit.cause.time: one
        for one in incidents
        for finding in one.findings
        if finding.hit.cause is not None and finding.hit.cause.time is not None
    }


def _incident(findings: tuple[Finding, ...], report: Report) -> Incident:
    lead = findings[0]
    bug = _bug(findings, report)
    parts = [*_events(findings), Part("now", _now(findings, report))]
    if len(parts) == 1 and lead.severity is Severity.CRITICAL and lead.rule.family != "oops":
        parts.insert(0, Part("then", "Which event did it is not known from this evidence."))
    parts.append(Part("next", _cut(lead.rule.pages["What it means"], MAX_NEXT)))
    oops = next((one for one in findings if one.rule.family == "oops"), None)
    if oops is not None and oops is not lead:
        parts.append(Part("oops", _cut(f"{oops.hit.title} ({oops.rule.code}): {_first_sentence(oops.hit.message)}")))
    asked = _KNOWN_BUG_QUESTION.search(oops.hit.message) if oops is not None else None
    if asked is not None and (bug is None or bug.by == "release"):
        parts.append(Part("bug", asked[0]))
    elif bug is not None:
        parts.append(Part("bug", _of_bug(bug)))
    return Incident(findings, tuple(parts), advice_for(lead.rule, report), bug)


def _events(findings: tuple[Finding, ...]) -> list[Part]:
    """One part an event of the trace, in order of time, with what it did."""
    events: dict[tuple[str, float | None, str], list[Finding]] = {}
    for one in findings:
        if (cause := one.hit.cause) is not None:
            events.setdefault((cause.event, cause.time, cause.what), []).append(one)
    ordered = sorted(events.items(), key=lambda item: (item[0][1] is None, item[0][1] or 0.0))
    return [Part("then", _event(found)) for _, found in ordered[-MAX_EVENTS:]]


def _event(found: list[Finding]) -> str:
    cause = found[0].hit.cause
    assert cause is not None  # noqa: S101 only such findings are grouped by event
    if not cause.operation:
        return cause.what
    verb = next((words for name, words in _VERBS.items() if cause.operation.startswith(name)), "made a call")
    when = "" if cause.time is None else f"At {cause.time:.6f} "
    inner = cause.what.partition(" under ")[0]
    inside = (
        f", which called {inner}"
        if not cause.operation.startswith(inner) and not inner.startswith(cause.operation)
        else ""
    )
    titles = ". ".join(dict.fromkeys(f"{one.hit.title} ({one.rule.code})" for one in found))
    return f"{when}{cause.task} {verb}: {cause.operation}{inside}. {titles}."


def _now(findings: tuple[Finding, ...], report: Report) -> str:
    """What is wrong, in the words of the leading finding, and whose memory it is."""
    names = _owners(findings[0], report)
    whose = f" The memory belongs to {', '.join(names)}." if names else ""
    return f"{_cut(findings[0].hit.message)}{whose}"


def _owners(lead: Finding, report: Report) -> list[str]:
    """Who claims the memory, as /proc/iomem names it, unless the message says so."""
    resources, layout = report.facts.get(Resources), report.facts.get(KernelLayout)
    if resources is None or layout is None or not layout.knows("page_size"):
        return []
    held = joined_pfns([lead]).scale(layout.page_size)
    names = [one.name for one in resources.devices if held.touches([one.start], [one.end])[0]]
    unsaid = [name for name in dict.fromkeys(names) if name not in lead.hit.message]
    return [*unsaid[:MAX_NAMES], *([f"{len(unsaid) - MAX_NAMES} others"] if len(unsaid) > MAX_NAMES else [])]


_TRUST = {("present", "code"): 0, ("present", "state"): 1, ("present", "trace"): 2}


def _bug(findings: tuple[Finding, ...], report: Report) -> BugState | None:
    """The known bug that leaves what was found, if this kernel can have it; the one that is shown best."""
    codes = {one.rule.code for one in findings}
    fitting = [one for one in report.bugs if one.state != "fixed" and codes & {*one.bug.rules, *one.shown_by}]
    return min(fitting, key=lambda one: _TRUST.get((one.state, one.by), 9), default=None)


def _of_bug(state: BugState) -> str:
    """Which bug, and whether this kernel has it."""
    known = {
        "present": "this kernel has it" if state.by != "release" else "this kernel lacks the fix by its release",
        "unknown": "whether this kernel has the fix is not known",
    }[state.state]
    return f"Known bug {bug_name(state.bug)}, {state.bug.title}: {known} ({state.evidence}). {_capital(state)}."


def _capital(state: BugState) -> str:
    text = describe_fixes(state.bug)
    return text[:1].upper() + text[1:]


def _first_sentence(text: str) -> str:
    head, dot, _ = text.partition(". ")
    return head + dot.strip()


def _cut(text: str, most: int = MAX_CHARACTERS) -> str:
    """Text of at most that many characters, cut at the end of a sentence or else of a word."""
    if len(text) <= most:
        return text
    head = text[:most]
    sentence = head.rpartition(". ")[0]
    return f"{sentence}." if len(sentence) > most // 3 else f"{head.rpartition(' ')[0]} …"

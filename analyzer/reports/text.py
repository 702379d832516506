"""The report that a person reads: the verdict, what is wrong, what to do, and nothing about what is right."""

from __future__ import annotations

import textwrap
from collections import Counter
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

import click

from analyzer.advice import Reader, advice_for, reader_of
from analyzer.output import printable
from analyzer.reports.send_back import send_back
from analyzer.sources.unread import NOT_RECOGNISED
from analyzer.verdict import State
from parsers.layout import KernelLayout
from parsers.ranges import Ranges
from parsers.uname import KernelRelease
from rules.engine import Outcome
from rules.finding import Severity
from rules.model.log_events import LogEvents

if TYPE_CHECKING:
    from collections.abc import Iterator

    from analyzer.audit import Report
    from analyzer.incidents.story import Incident
    from rules.finding import Cause, Evidence, Finding

__all__ = ["kernel_line", "place_of", "render", "summary"]

WIDTH = 100
MAX_RANGES = 8
MAX_ALIKE = 8
"""Findings of one rule and severity that are printed each; of more, the first `SHOWN` and then what the rest is."""
SHOWN = 3
MAX_FRAMES = 8
MAX_NOTES = 8
MAX_EVENTS = 8
MAX_STORY = 20
EVERYWHERE = "the whole machine"
MAX_LISTED = 20
"""Entries of a baseline that are listed."""
_COLOURS = {
    Severity.CRITICAL: "bright_red",
    Severity.HIGH: "red",
    Severity.MEDIUM: "yellow",
    Severity.LOW: "cyan",
    Severity.INFO: "blue",
}
_STATE_COLOURS = {State.DAMAGED: "bright_red", State.AT_RISK: "yellow", State.CLEAN: "green", State.BLIND: "magenta"}


def render(report: Report, *, verbose: bool = False, colour: bool = False) -> str:
    """The whole report as text; styled for a terminal if ``colour``.

    The verdict first, then incidents, the other findings, and what would decide more.  ``verbose`` adds every
    finding with its evidence, and what each rule came to.
    """
    lines = [*_verdict(report), "", *_incidents(report, verbose=verbose), *_others(report, verbose=verbose)]
    lines += _log(report, verbose=verbose)
    lines += [summary(report), *_baseline(report), *_notes(report, verbose=verbose)]
    if verbose:
        lines += ["", *_outcomes(report)]
    lines += [*_ignored(report), *_to_collect(report, verbose=verbose)]
    text = "\n".join(lines) + "\n"
    return text if colour else click.unstyle(text)


def _verdict(report: Report) -> Iterator[str]:
    """The verdict, which kernel it is about, and what failed inside."""
    overall = report.overall
    state = click.style(overall.state.words, fg=_STATE_COLOURS[overall.state], bold=True)
    yield f"{state}: {printable(overall.reason)}"
    yield kernel_line(report)
    for verdict in report.failed:
        yield f"error: rule {verdict.rule.code} failed inside: {printable(verdict.reason)}"


def kernel_line(report: Report) -> str:
    """Release, page size, address bits and PHYS_OFFSET."""
    release, layout = report.facts.get(KernelRelease), report.facts.get(KernelLayout)
    parts = [f"kernel {printable(release.raw)}" if release else "kernel release unknown"]
    if layout is not None and layout.knows("page_size"):
        parts.append(f"{layout.page_size >> 10}K pages")
    if layout is not None and layout.knows("va_bits"):
        parts.append(f"{layout.va_bits_actual}-bit addresses")
    if layout is not None:
        fact = layout.facts.get("phys_offset")
        several = " or ".join(f"{value:#x}" for value in layout.phys_offset_candidates[:4])
        unknown = f"PHYS_OFFSET ambiguous: {several}" if several else "PHYS_OFFSET unknown"
        parts.append(f"PHYS_OFFSET {fact.value:#x} ({fact.precision})" if fact else unknown)
    return ", ".join(parts)


def _incidents(report: Report, *, verbose: bool) -> Iterator[str]:
    for _, alike in groupby(report.incidents, key=lambda one: (one.lead.rule, one.severity)):
        every = list(alike)
        shown = len(every) if len(every) <= MAX_ALIKE else SHOWN
        for one in every[:shown]:
            yield from _incident(one)
            for finding in one.findings if verbose else ():
                yield ""
                yield from _finding(finding, report, verbose=True)
            yield ""
        if rest := every[shown:]:
            yield from [*_rest([one.lead for one in rest]), ""]


def _incident(one: Incident) -> Iterator[str]:
    """One story, in at most `MAX_STORY` lines: what is longer loses the ends of its longest parts."""
    head = textwrap.wrap(printable(one.title), WIDTH - 16)
    yield f"{_badge(one.severity)} {click.style(f'{one.lead.rule.code} {head[0]}', bold=True)}"
    yield from (" " * 16 + line for line in head[1:])
    count = f"{len(one.findings)} finding{'' if len(one.findings) == 1 else 's'}"
    fields = [
        *one.parts,
        ("where", place_of(list(one.findings), addresses=False)),
        ("do", one.advice),
        ("seen", f"confidence {one.claim}; {count} by {_codes(one.codes)}; incident {one.id}"),
    ]
    parts = [list(_field(label, text)) for label, text in fields]
    while sum(map(len, parts)) > MAX_STORY - len(head):
        longest = max(parts, key=len)
        longest.pop()
        longest[-1] = f"{longest[-1].rstrip(' …')} …"
    yield from (line for part in parts for line in part)


def _codes(codes: list[str]) -> str:
    return ", ".join(codes[:MAX_RANGES]) + (f" and {len(codes) - MAX_RANGES} more" if len(codes) > MAX_RANGES else "")


def _others(report: Report, *, verbose: bool) -> Iterator[str]:
    """Findings that are part of no incident: in full if ``verbose``, else what and where."""
    in_incidents = {id(finding) for one in report.incidents for finding in one.findings}
    rest = [finding for finding in report.findings if id(finding) not in in_incidents]
    for _, alike in groupby(rest, key=lambda one: (one.rule, one.severity)):
        every = list(alike)
        shown = len(every) if len(every) <= MAX_ALIKE else SHOWN
        for finding in every[:shown]:
            if verbose:
                yield from _finding(finding, report, verbose=True)
                yield ""
            else:
                yield from _short(finding)
        if more := every[shown:]:
            yield from _rest(more)
            yield from [""] * verbose
    if rest and not verbose:
        yield ""


def _log(report: Report, *, verbose: bool) -> Iterator[str]:
    """What went wrong in the kernel log, whether it concerns memory hotplug or not."""
    found = report.facts.get(LogEvents)
    events = () if found is None else found.events
    shown = events if verbose else events[:MAX_EVENTS]
    if events:
        yield f"{len(events)} event{'' if len(events) == 1 else 's'} in the kernel log:"
    for one in shown:
        yield from textwrap.wrap(printable(one.text), WIDTH, initial_indent="  ", subsequent_indent="    ")
    if len(events) > len(shown):
        yield f"  and {len(events) - len(shown)} more (--verbose)"
    if events:
        yield ""


def _short(finding: Finding) -> Iterator[str]:
    """A finding in two lines: what, and where unless it is about the whole machine."""
    yield _head(finding, finding.hit.title)
    if finding.severity > Severity.INFO:
        place = place_of([finding])
        yield from _field("where", place) if place != EVERYWHERE else ()


def _notes(report: Report, *, verbose: bool) -> Iterator[str]:
    """What is odd about the evidence, and plug-ins that failed to load."""
    layout = report.facts.get(KernelLayout)
    notes = [
        *(layout.notes if layout else ()),
        *(str(diagnostic) for source in report.sources.sources for diagnostic in source.diagnostics),
        *report.broken_plugins,
    ]
    shown = notes if verbose else notes[:MAX_NOTES]
    yield from (f"note: {printable(note)}" for note in shown)
    if len(notes) > len(shown):
        yield f"note: and {len(notes) - len(shown)} more (--verbose)"


def _to_collect(report: Report, *, verbose: bool) -> Iterator[str]:
    """What would decide the rest: the commands where the host is blind, or on demand."""
    missing = send_back(report)
    if not missing:
        return
    overall = report.overall
    if overall.unrelated and not verbose:
        return
    unrelated = overall.state is State.BLIND and reader_of(report) in {Reader.LOG, Reader.DUMP}
    yield ""
    if verbose or (overall.blind and not unrelated):
        yield from missing
    else:
        count = sum(one.outcome is Outcome.UNDECIDED for one in report.verdicts)
        subject = "1 rule is" if count == 1 else f"{count} rules are"
        yield f"{subject} undecided: --verbose says which, why, and what to collect"


def _badge(severity: Severity) -> str:
    return click.style(f"{str(severity).upper():<8}", fg=_COLOURS[severity], bold=True)


def _head(finding: Finding, title: str) -> str:
    return f"{_badge(finding.severity)} {click.style(finding.rule.code, bold=True)} {printable(title)}"


def _rest(findings: list[Finding]) -> Iterator[str]:
    """Many findings of one rule and severity as one: how many of what, and where."""
    titles = Counter(one.hit.title for one in findings).most_common()
    yield _head(findings[0], f"and {len(findings)} more like these")
    yield from _field("where", place_of(findings))
    for index, (title, count) in enumerate(titles[:MAX_RANGES]):
        yield from _field("what" if index == 0 else "", f"{count} x {title}")
    if len(titles) > MAX_RANGES:
        yield from _field("", f"and {len(titles) - MAX_RANGES} other titles")
    yield from _field("all", "--format json has every one of them")


def _finding(finding: Finding, report: Report, *, verbose: bool) -> Iterator[str]:
    rule, hit = finding.rule, finding.hit
    yield _head(finding, hit.title)
    yield from _field("claim", f"{hit.claim}, {rule.impact}  [{rule.name}]")
    yield from _field("where", place_of([finding]))
    yield from _field("what", hit.message)
    if hit.cause is not None:
        yield from _field("cause", _cause(hit.cause, verbose=verbose))
    yield from _field("why", rule.pages["What it means"])
    yield from _field("do", advice_for(rule, report))
    for index, evidence in enumerate(hit.evidence):
        yield from _evidence("seen" if index == 0 else "", evidence)
    yield from _field("id", finding.fingerprint)


def _cause(cause: Cause, *, verbose: bool) -> str:
    """The event; of its stack what shows who did it, unless all is wanted."""
    outer = len(cause.stack) - MAX_FRAMES
    if verbose or outer <= 1:
        return cause.text
    return f"{replace(cause, stack=cause.stack[:MAX_FRAMES]).text} < {outer} more (--verbose)"


def _field(name: str, text: str) -> Iterator[str]:
    label = click.style(f"  {name:<6}", dim=True)
    for index, line in enumerate(textwrap.wrap(printable(text), WIDTH - 8) or [""]):
        yield (label if index == 0 else " " * 8) + line


def _evidence(name: str, evidence: Evidence) -> Iterator[str]:
    place = f":{evidence.line}" if evidence.line is not None else ""
    yield (
        click.style(f"  {name:<6}", dim=True)
        + f"{printable(evidence.source)}{place}: {printable(evidence.text.strip())}"
    )


def place_of(findings: list[Finding], *, addresses: bool = True) -> str:
    """Where they are, together; virtual addresses only if wanted, or if nothing else is known."""
    sections = sorted({number for one in findings for number in one.sections})
    pfns = Ranges.pairs(pair for one in findings for pair in one.hit.pfns.tuples())
    vas = [va for one in findings for va in one.hit.vas] if addresses or not pfns else []
    parts = []
    if sections:
        parts.append(("section " if len(sections) == 1 else "sections ") + _numbers(sections))
    if pfns:
        parts.append("PFN " + _ranges(pfns.tuples()))
    parts += [
        f"{region} " + _ranges([(va.start, va.end) for va in vas if va.region == region])
        for region in dict.fromkeys(va.region for va in vas)
    ]
    return "; ".join(parts) or EVERYWHERE


def _ranges(ranges: list[tuple[int, int]]) -> str:
    shown = ", ".join(f"{lo:#x}-{hi:#x}" for lo, hi in ranges[:MAX_RANGES])
    last = f"the last {ranges[-1][0]:#x}-{ranges[-1][1]:#x}" if ranges else ""
    return shown + (f" and {len(ranges) - MAX_RANGES} more, {last}" if len(ranges) > MAX_RANGES else "")


def _numbers(numbers: list[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:MAX_RANGES])
    return shown + (f" and {len(numbers) - MAX_RANGES} more" if len(numbers) > MAX_RANGES else "")


def summary(report: Report) -> str:
    """How many findings of which severity, and what the rules came to, in one line."""
    found = Counter(finding.severity for finding in report.findings)
    severities = ", ".join(f"{found[level]} {level}" for level in reversed(Severity) if found[level])
    outcomes = Counter(verdict.outcome for verdict in report.verdicts)
    rules = ", ".join(f"{outcomes[one]} {str(one).replace('_', ' ')}" for one in Outcome if outcomes[one])
    count = f"{len(report.findings)} finding{'' if len(report.findings) == 1 else 's'}"
    return f"{count}{f' ({severities})' if severities else ''}; rules: {rules}"


def _baseline(report: Report) -> Iterator[str]:
    """Accepted findings, one line each, and what the baseline holds for nothing."""
    accepted, stale = report.accepted, report.stale
    if accepted:
        yield f"{len(accepted)} accepted by {printable(report.baseline.path)}:"
    for finding, entry in accepted[:MAX_LISTED]:
        reason = printable(entry.reason) + (f", until {entry.expires}" if entry.expires else "")
        yield f"  {finding.rule.code} {finding.fingerprint} {printable(finding.hit.title)} ({reason})"
    yield from _unlisted(len(accepted))
    if stale:
        yield f"{len(stale)} stale entries in {printable(report.baseline.path)}, to be removed:"
    for entry, why in stale[:MAX_LISTED]:
        yield f"  {printable(entry.rule)} {printable(entry.fingerprint)} {why} ({printable(entry.reason)})"
    yield from _unlisted(len(stale))


def _unlisted(count: int) -> Iterator[str]:
    if count > MAX_LISTED:
        yield f"  and {count - MAX_LISTED} more: --format json has every one of them"


def _outcomes(report: Report) -> Iterator[str]:
    for verdict in report.verdicts:
        reason = f"  {printable(verdict.reason)}" if verdict.reason else ""
        yield f"  {verdict.rule.code:<8} {verdict.outcome!s:<15}{verdict.rule.name}{reason}"


def _ignored(report: Report) -> Iterator[str]:
    """Files that were given and not used: those with an individual reason first."""
    unread = report.sources.unread
    named = [one for one in unread if one.reason != NOT_RECOGNISED]
    unknown = [one.path for one in unread if one.reason == NOT_RECOGNISED]
    if unread:
        yield ""
    yield from (printable(f"not read: {one.path}: {one.reason}") for one in named[:MAX_LISTED])
    yield from _unlisted(len(named))
    if unknown:
        several = "s were" if len(unknown) > 1 else " was"
        yield f"{len(unknown)} unrecognised file{several} skipped:"
        yield from (f"  {printable(name)}" for name in unknown[:MAX_LISTED])
        yield from _unlisted(len(unknown))

"""The report that a person reads: what is wrong first, and nothing about what is right."""

from __future__ import annotations

import textwrap
from collections import Counter
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

import click

from analyzer.reports.send_back import send_back
from parsers.layout import KernelLayout
from parsers.ranges import Ranges
from parsers.uname import KernelRelease
from rules.engine import Outcome
from rules.finding import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from analyzer.audit import Report
    from rules.finding import Cause, Evidence, Finding

__all__ = ["printable", "render", "summary"]

WIDTH = 100
MAX_RANGES = 8
MAX_ALIKE = 8
"""Findings of one rule and severity that are printed each; of more, the first `SHOWN` and then what the rest is."""
SHOWN = 3
MAX_FRAMES = 8
MAX_LISTED = 20
"""Entries of a baseline that are listed."""
_COLOURS = {
    Severity.CRITICAL: "bright_red",
    Severity.HIGH: "red",
    Severity.MEDIUM: "yellow",
    Severity.LOW: "cyan",
    Severity.INFO: "blue",
}


def render(report: Report, *, verbose: bool = False, colour: bool = False) -> str:
    """The whole report as text; styled for a terminal if ``colour``."""
    lines = [*_header(report), ""]
    for _, alike in groupby(report.findings, key=lambda one: (one.rule, one.severity)):
        every = list(alike)
        shown = len(every) if len(every) <= MAX_ALIKE else SHOWN
        for finding in every[:shown]:
            lines += [*_finding(finding, verbose=verbose), ""]
        if rest := every[shown:]:
            lines += [*_rest(rest), ""]
    lines += [summary(report), *_baseline(report)]
    if verbose:
        lines += ["", *_outcomes(report), *_ignored(report)]
    if missing := send_back(report):
        lines += ["", *missing]
    text = "\n".join(lines) + "\n"
    return text if colour else click.unstyle(text)


def printable(text: str) -> str:
    """Captured text with control characters made visible: a dump must not drive the reader's terminal."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text.replace("\t", " "))


def _header(report: Report) -> Iterator[str]:
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
    yield ", ".join(parts)
    for note in layout.notes if layout else ():
        yield f"note: {printable(note)}"
    for source in report.sources.sources:
        for diagnostic in source.diagnostics:
            yield f"note: {printable(str(diagnostic))}"
    for message in report.broken_plugins:
        yield f"note: {printable(message)}"


def _head(finding: Finding, title: str) -> str:
    badge = click.style(f"{str(finding.severity).upper():<8}", fg=_COLOURS[finding.severity], bold=True)
    return f"{badge} {click.style(finding.rule.code, bold=True)} {printable(title)}"


def _rest(findings: list[Finding]) -> Iterator[str]:
    """Many findings of one rule and severity as one: how many of what, and where."""
    titles = Counter(one.hit.title for one in findings).most_common()
    yield _head(findings[0], f"and {len(findings)} more like these")
    yield from _field("where", _place(findings))
    for index, (title, count) in enumerate(titles[:MAX_RANGES]):
        yield from _field("what" if index == 0 else "", f"{count} x {title}")
    if len(titles) > MAX_RANGES:
        yield from _field("", f"and {len(titles) - MAX_RANGES} other titles")
    yield from _field("all", "--format json has every one of them")


def _finding(finding: Finding, *, verbose: bool) -> Iterator[str]:
    rule, hit = finding.rule, finding.hit
    yield _head(finding, hit.title)
    yield from _field("claim", f"{hit.claim}, {rule.impact}  [{rule.name}]")
    yield from _field("where", _place([finding]))
    yield from _field("what", hit.message)
    if hit.cause is not None:
        yield from _field("cause", _cause(hit.cause, verbose=verbose))
    yield from _field("why", rule.pages["What it means"])
    yield from _field("do", rule.advice)
    for index, evidence in enumerate(hit.evidence):
        yield from _evidence("seen" if index == 0 else "", evidence)
    yield from _field("id", finding.fingerprint)


def _cause(cause: Cause, *, verbose: bool) -> str:
    """The event; of its stack what tells who did it, unless all is wanted."""
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


def _place(findings: list[Finding]) -> str:
    """Where they are, together."""
    sections = sorted({number for one in findings for number in one.sections})
    pfns = Ranges.pairs(pair for one in findings for pair in one.hit.pfns.tuples())
    vas = [va for one in findings for va in one.hit.vas]
    parts = []
    if sections:
        parts.append(("section " if len(sections) == 1 else "sections ") + _numbers(sections))
    if pfns:
        parts.append("PFN " + _ranges(pfns.tuples()))
    parts += [
        f"{region} " + _ranges([(va.start, va.end) for va in vas if va.region == region])
        for region in dict.fromkeys(va.region for va in vas)
    ]
    return "; ".join(parts) or "the whole machine"


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
    """Files that were not recognised."""
    names = report.sources.ignored
    if names:
        yield ""
        yield f"{len(names)} files are of no kind that is known, and were not read:"
        yield from (f"  {printable(name)}" for name in names[:MAX_LISTED])
        yield from _unlisted(len(names))

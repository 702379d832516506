"""``ptaudit audit``: the main job."""

from __future__ import annotations

import importlib
import sys
from contextlib import nullcontext
from pathlib import Path

import click

from analyzer.audit import Report, audit
from analyzer.baseline import read_baseline, render_baseline
from analyzer.options import (
    FILE,
    NAME,
    SEVERITY,
    codes,
    evidence_options,
    fail_on_option,
    format_option,
    severity,
)
from analyzer.output import is_directory, make_directory, printable, refuse_evidence, shows_colour, visible, write_text
from analyzer.refused import name_refused
from analyzer.reports.text import summary
from analyzer.sources.own_reports import OWN_REPORT
from analyzer.sources.read import Request
from analyzer.sources.unread import NOT_RECOGNISED
from analyzer.status import Status
from rules.finding import Severity

__all__ = ["FORMATS", "command", "status"]

FORMATS = {
    "text": "txt",
    "json": "json",
    "sarif": "sarif",
    "html": "html",
    "prometheus": "prom",
    "markdown": "md",
    "junit": "xml",
    "ktap": "ktap",
    "csv": "csv",
}
"""Each format's module in `analyzer.reports`, imported when it is wanted, and the suffix of its file."""
_BY_SUFFIX = {f".{suffix}": form for form, suffix in FORMATS.items()} | {".htm": "html", ".tap": "ktap"}


@click.command(name="audit")
@click.option("--live", "on_this_host", is_flag=True, help="This host, now: collect and audit in one go.")
@format_option(*FORMATS, default=None)
@click.option("--output", type=NAME, metavar="FILE", help="The suffix chooses the format; DIR/ takes all.")
@click.option("--baseline", "known", type=FILE, metavar="FILE", help="Findings that are accepted.")
@click.option("--write-baseline", type=FILE, metavar="FILE", help="Accept what is found now.")
@click.option("--select", "only", multiple=True, metavar="CODES", help="Run only these rules or families.")
@click.option("--ignore", multiple=True, metavar="CODES", help="Leave these rules or families out.")
@click.option("--min-severity", type=SEVERITY, metavar="SEVERITY", default="info", help="Report nothing below this.")
@fail_on_option
@click.option("--strict", is_flag=True, help="Exit with 3 if a rule that severe is undecided.")
@click.option("-v", "--verbose", is_flag=True, help="Also print evidence, and each rule's outcome.")
@evidence_options
def command(
    request: Request,
    on_this_host: bool,
    form: str | None,
    output: str | None,
    known: Path | None,
    write_baseline: Path | None,
    only: tuple[str, ...],
    ignore: tuple[str, ...],
    min_severity: str,
    fail_on: str,
    strict: bool,
    verbose: bool,
) -> None:
    """Audit evidence of one arm64 host.
    Example: ptaudit audit captured-host/
    """
    directory = Path(output) if output is not None and is_directory(output) else None
    if on_this_host:
        from analyzer.collect.on_this_host import live  # noqa: PLC0415 rarely wanted
    with live(request, directory) if on_this_host else nullcontext(request) as wanted:
        report = audit(
            wanted,
            only=codes(only),
            ignore=codes(ignore),
            min_severity=severity(min_severity),
            baseline=read_baseline(known) if known else None,
            live=on_this_host,
        )
    if directory is not None:
        _write_all(report, directory, verbose=verbose)
    elif output is not None:
        chosen = form or _BY_SUFFIX.get(Path(output).suffix.lower(), "text")
        _write(report, Path(output), _rendered(report, chosen, verbose=verbose))
    else:
        text = _rendered(report, form or "text", verbose=verbose, colour=shows_colour(sys.stdout))
        click.echo(text, nl=False)
    if write_baseline is not None:
        _write(report, write_baseline, render_baseline(report))
    name_refused(report.sources)
    _name_failures(report)
    sys.exit(status(report, severity(fail_on), strict=strict))


def status(report: Report, fail_on: Severity, *, strict: bool) -> Status:
    """The exit status: what failed inside goes first, then findings, what was not read, and what is undecided."""
    worst = report.worst()
    if report.failed:
        return Status.FAILED
    if worst is not None and worst >= fail_on:
        return Status.FINDINGS
    if report.sources.refused:
        return Status.USAGE
    return Status.UNDECIDED if strict and report.undecided(fail_on) else Status.NOTHING


def _name_failures(report: Report) -> None:
    """Rules that failed, and plug-ins that could not be loaded, on standard error: whatever the format."""
    for verdict in report.failed:
        click.echo(printable(f"ptaudit: rule {verdict.rule.code} failed inside: {verdict.reason}"), err=True)
    for message in report.broken_plugins:
        click.echo(printable(f"ptaudit: {message}"), err=True)


def _rendered(report: Report, form: str, *, verbose: bool, colour: bool = False) -> str:
    text: str = importlib.import_module(f"analyzer.reports.{form}").render(report, verbose=verbose, colour=colour)
    return visible(text.encode("utf-8", "backslashreplace").decode(), form)  # file names need not be UTF-8


def _write(report: Report, path: Path, text: str) -> None:
    """Write a file, unless it is evidence that was given, read or not."""
    read = report.sources
    unread = (one.path for one in read.unread if one.reason not in {NOT_RECOGNISED, OWN_REPORT})
    refuse_evidence(path, (*(source.path for source in read.sources), *unread))
    write_text(path, text)


def _write_all(report: Report, directory: Path, *, verbose: bool) -> None:
    """Every format, side by side; the verdict and the summary go to the terminal."""
    make_directory(directory)
    for form, suffix in FORMATS.items():
        _write(report, directory / f"report.{suffix}", _rendered(report, form, verbose=verbose))
    click.echo(printable(report.overall.text))
    click.echo(printable(f"{directory}/report.{{{','.join(FORMATS.values())}}}: {summary(report)}"))

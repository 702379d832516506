"""``ptaudit audit``: the main job."""

from __future__ import annotations

import importlib
import sys
from contextlib import nullcontext
from pathlib import Path

import click

from analyzer.audit import Report, audit
from analyzer.baseline import read_baseline, render_baseline
from analyzer.collect.on_this_host import live
from analyzer.options import SEVERITY, codes, evidence_options, severity
from analyzer.output import is_directory, make_directory, write_text
from analyzer.reports.text import summary
from analyzer.sources.read import Request

__all__ = ["FORMATS", "command"]

FORMATS = {"text": "txt", "json": "json", "sarif": "sarif", "html": "html", "prometheus": "prom"}
"""Each format's module in `analyzer.reports`, imported when it is wanted, and the suffix of its file."""


@click.command(name="audit")
@click.option("--live", "on_this_host", is_flag=True, help="This host, now: collect and audit in one go.")
@click.option(
    "--format", "form", type=click.Choice(list(FORMATS)), metavar="F", default="text", help=", ".join(FORMATS)
)
@click.option("--output", metavar="FILE", help="Write there; into a directory (DIR/), every format.")
@click.option(
    "--baseline", "known", type=click.Path(path_type=Path), metavar="FILE", help="Findings that are accepted."
)
@click.option("--write-baseline", type=click.Path(path_type=Path), metavar="FILE", help="Accept what is found now.")
@click.option("--select", "only", multiple=True, metavar="CODES", help="Run only these rules or families.")
@click.option("--ignore", multiple=True, metavar="CODES", help="Leave these rules or families out.")
@click.option("--min-severity", type=SEVERITY, metavar="SEVERITY", default="info", help="Report nothing below this.")
@click.option("--fail-on", type=SEVERITY, metavar="SEVERITY", default="high", help="Exit with 1 from this on (high).")
@click.option("--strict", is_flag=True, help="Exit with 3 if such a rule is undecided.")
@click.option("-v", "--verbose", is_flag=True, help="Also say what every rule came to.")
@evidence_options
def command(
    request: Request,
    on_this_host: bool,
    form: str,
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
    """Audit what was captured from one arm64 host.

    Example: ptaudit audit captured-host/ --format json --output report.json
    """
    directory = Path(output) if output is not None and is_directory(output) else None
    with live(request, directory) if on_this_host else nullcontext(request) as wanted:
        report = audit(
            wanted,
            only=codes(only),
            ignore=codes(ignore),
            min_severity=severity(min_severity),
            baseline=read_baseline(known) if known else None,
        )
    if directory is not None:
        _write_all(report, directory, verbose=verbose)
    elif output is not None:
        write_text(Path(output), _rendered(report, form, verbose=verbose))
    else:
        click.echo(_rendered(report, form, verbose=verbose, colour=sys.stdout.isatty()), nl=False)
    if write_baseline is not None:
        write_text(write_baseline, render_baseline(report))
    worst = report.worst()
    if worst is not None and worst >= severity(fail_on):
        sys.exit(1)
    if strict and report.undecided(severity(fail_on)):
        sys.exit(3)


def _rendered(report: Report, form: str, *, verbose: bool, colour: bool = False) -> str:
    text: str = importlib.import_module(f"analyzer.reports.{form}").render(report, verbose=verbose, colour=colour)
    return text.encode("utf-8", "backslashreplace").decode()  # file names need not be UTF-8


def _write_all(report: Report, directory: Path, *, verbose: bool) -> None:
    """Every format, side by side; the summary goes to the terminal."""
    make_directory(directory)
    for form, suffix in FORMATS.items():
        write_text(directory / f"report.{suffix}", _rendered(report, form, verbose=verbose))
    click.echo(f"{directory}/report.{{{','.join(FORMATS.values())}}}: {summary(report)}")

"""``ptaudit audit``: the main job."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from analyzer.audit import audit
from analyzer.commands.options import SEVERITY, codes, evidence_options, severity
from analyzer.reports import json, text
from analyzer.sources.read import Request

__all__ = ["command"]

FORMATS = {"text": text.render, "json": json.render}


@click.command(name="audit")
@evidence_options
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="text", help="Report format.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the report to a file.")
@click.option("--select", "only", multiple=True, metavar="CODES", help="Run only these rules or families.")
@click.option("--ignore", multiple=True, metavar="CODES", help="Leave these rules or families out.")
@click.option("--min-severity", type=SEVERITY, default="info", help="Report nothing below this.")
@click.option("--fail-on", type=SEVERITY, default="high", help="Exit with 1 from this severity on.")
@click.option("--strict", is_flag=True, help="Exit with 3 if a rule of that severity is undecided.")
@click.option("-v", "--verbose", is_flag=True, help="Also say what every rule came to.")
def command(
    request: Request,
    form: str,
    output: Path | None,
    only: tuple[str, ...],
    ignore: tuple[str, ...],
    min_severity: str,
    fail_on: str,
    strict: bool,
    verbose: bool,
) -> None:
    """Audit what was captured from one arm64 host.

    SOURCE is a capture directory, a copied /proc and /sys tree, or a file of any kind that is understood.

    \b
    Example:
      ptaudit audit captured-host/ --format json --output report.json

    Exit status: 0 nothing from --fail-on up, 1 findings, 2 unreadable input, 3 undecided with --strict.
    """
    report = audit(
        request,
        only=codes(only),
        ignore=codes(ignore),
        min_severity=severity(min_severity),
    )
    rendered = FORMATS[form](report, verbose=verbose, colour=output is None and sys.stdout.isatty())
    if output is None:
        click.echo(rendered, nl=False)
    else:
        output.write_text(rendered, encoding="utf-8")
    worst = report.worst()
    if worst is not None and worst >= severity(fail_on):
        sys.exit(1)
    if strict and report.undecided(severity(fail_on)):
        sys.exit(3)

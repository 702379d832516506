"""``ptaudit diff``: what changed between two captures."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from analyzer.audit import audit
from analyzer.diff.capture_diff import diff, worst_hazard
from analyzer.diff.diff_text import lines
from analyzer.options import SEVERITY, parse_layout, severity
from analyzer.sources.read import Request

__all__ = ["command"]

_PATH = click.Path(path_type=Path)


@click.command(name="diff")
@click.argument("before", type=_PATH)
@click.argument("after", type=_PATH)
@click.option("--layout", multiple=True, metavar="KEY=VALUE", help="A layout value that is known, of both.")
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), metavar="FORMAT", default="text", help="text, json"
)
@click.option("--fail-on", type=SEVERITY, metavar="SEVERITY", default="high", help="Exit with 1 from this on (high).")
def command(before: Path, after: Path, layout: tuple[str, ...], form: str, fail_on: str) -> None:
    """Show what changed between two captures, and which changes are hazards.

    Linear map and vmemmap area, sections, memory blocks, resources, findings.  Two boots are compared by page frame
    number; a change of a live mapping is a hazard only within one boot.

    \b
    Example:
      ptaudit diff monday/ tuesday/

    Exit status: 0 no hazard from --fail-on up, 1 hazards or new findings, 2 not comparable.
    """
    values = parse_layout(layout)
    document = diff(*(audit(Request((path,), layout=values)) for path in (before, after)))
    if form == "json":
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(lines(document, (str(before), str(after)))))
    worst = worst_hazard(document)
    if worst is not None and worst >= severity(fail_on):
        sys.exit(1)

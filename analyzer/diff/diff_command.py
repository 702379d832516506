"""``ptaudit diff``: what changed between two captures."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from analyzer.audit import audit
from analyzer.diff.capture_diff import diff, worst_hazard
from analyzer.diff.diff_text import lines
from analyzer.options import FILE, budget_option, fail_on_option, parse_layout, severity
from analyzer.output import as_json
from analyzer.sources.read import Request
from analyzer.status import Status
from analyzer.tables.change_frames import diff_frame
from analyzer.tables.emit import TABLE_FORMATS, emit, form_of, table_options, write_lines

__all__ = ["command"]


@click.command(name="diff")
@click.argument("before", type=FILE)
@click.argument("after", type=FILE)
@budget_option
@click.option("--layout", multiple=True, metavar="KEY=VALUE", help="A layout value that is known, of both.")
@table_options
@fail_on_option
def command(
    before: Path,
    after: Path,
    budget: int,
    layout: tuple[str, ...],
    form: str | None,
    output: Path | None,
    fail_on: str,
) -> None:
    """Show what changed between two captures, and which changes are hazards.

    Linear map and vmemmap area, sections, memory blocks, resources, findings.  Two boots are compared by page frame
    number; a change of a live mapping is a hazard only within one boot.

    \b
    Example:
      ptaudit diff monday/ tuesday/

    Exit status: 0 no hazard of that severity, 1 hazards or new findings, 2 not comparable.
    """
    values = parse_layout(layout)
    document = diff(*(audit(Request((path,), layout=values, budget=budget)) for path in (before, after)))
    form = form_of(form, output)
    if form in TABLE_FORMATS:
        emit(diff_frame(document), form, output)
    elif form == "json":
        write_lines([as_json(document)], output)
    else:
        write_lines(lines(document, (str(before), str(after))), output)
    worst = worst_hazard(document)
    if worst is not None and worst >= severity(fail_on):
        sys.exit(Status.FINDINGS)

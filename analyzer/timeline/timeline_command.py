"""``ptaudit timeline``: the hotplug operations of a trace, replayed."""

from __future__ import annotations

import json

import click

from analyzer.options import evidence_options
from analyzer.reports.text import printable
from analyzer.sources.read import Request, read_sources
from analyzer.text_table import table
from analyzer.timeline.operation_rows import OperationRow, operation_rows, trace_notes
from rules.model.captured import build_facts

__all__ = ["command"]

_HEADINGS = ("time", "cpu", "task", "operation", "range", "result", "sections: state", "trouble", "line")


@click.command(name="timeline")
@evidence_options
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="Output format.")
def command(request: Request, form: str) -> None:
    """Replay the hotplug operations of a trace: when, who, what, and what went wrong.

    \b
    Example:
      ptaudit timeline captured-host/trace
    """
    facts = build_facts(read_sources(request).captured)
    rows, notes = operation_rows(facts), trace_notes(facts)
    if form == "json":
        click.echo(json.dumps({"operations": [row.as_dict() for row in rows], "notes": notes}, indent=2))
        return
    for line in table(_HEADINGS, map(_cells, rows)):
        click.echo(printable(line))
    for note in notes:
        click.echo(f"note: {printable(note)}")


def _cells(row: OperationRow) -> tuple[str, ...]:
    where = "" if row.start is None or row.end is None else f"{row.unit} {row.start:#x}-{row.end:#x}"
    time = "" if row.time is None else f"{row.time:.6f}"
    line = "" if row.line is None else str(row.line)
    trouble = f"{row.trouble} DAMAGE" if row.damage else row.trouble
    cpu = "" if row.cpu is None else str(row.cpu)
    return time, cpu, row.task, "  " * row.depth + row.operation, where, row.result, row.state, trouble, line

"""``ptaudit timeline``: the hotplug operations of a trace, replayed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from analyzer.options import evidence_options
from analyzer.output import printable
from analyzer.sources.read import Request, read_sources
from analyzer.tables.emit import TABLE_FORMATS, emit, form_of, table_options, write_lines
from analyzer.tables.event_frames import timeline_frame
from analyzer.text_table import table
from analyzer.timeline.operation_rows import OperationRow, operation_rows, trace_notes
from rules.model.captured import build_facts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rules.facts import Facts

__all__ = ["command"]

_HEADINGS = ("time", "cpu", "task", "operation", "range", "result", "sections: state", "trouble", "line")


@click.command(name="timeline")
@evidence_options
@table_options
def command(request: Request, form: str | None, output: Path | None) -> None:
    """Replay the hotplug operations of a trace: when, who, what, and what went wrong.

    \b
    Example:
      ptaudit timeline captured-host/trace
    """
    facts = build_facts(read_sources(request).captured)
    form = form_of(form, output)
    if form in TABLE_FORMATS:
        emit(timeline_frame(facts), form, output)
        return
    write_lines(_as_json(facts) if form == "json" else _as_text(facts), output)


def _as_json(facts: Facts) -> Iterator[str]:
    operations = [row.as_dict() for row in operation_rows(facts)]
    yield json.dumps({"operations": operations, "notes": trace_notes(facts)}, indent=2)


def _as_text(facts: Facts) -> Iterator[str]:
    yield from map(printable, table(_HEADINGS, map(_cells, operation_rows(facts))))
    yield from (f"note: {printable(note)}" for note in trace_notes(facts))


def _cells(row: OperationRow) -> tuple[str, ...]:
    where = "" if row.start is None or row.end is None else f"{row.unit} {row.start:#x}-{row.end:#x}"
    time = "" if row.time is None else f"{row.time:.6f}"
    line = "" if row.line is None else str(row.line)
    trouble = f"{row.trouble} DAMAGE" if row.damage else row.trouble
    cpu = "" if row.cpu is None else str(row.cpu)
    return time, cpu, row.task, "  " * row.depth + row.operation, where, row.result, row.state, trouble, line

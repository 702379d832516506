"""``ptaudit timeline``: the hotplug operations of a trace, replayed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from analyzer.audit import judge
from analyzer.incidents.story import incidents_by_event
from analyzer.options import evidence_options
from analyzer.output import as_json, printable
from analyzer.refused import name_refused
from analyzer.sources.read import Request, read_sources
from analyzer.tables.emit import TABLE_FORMATS, emit, form_of, table_options, write_lines
from analyzer.tables.event_frames import timeline_frame
from analyzer.text_table import table
from analyzer.timeline.operation_rows import OperationRow, operation_rows, trace_notes
from rules.model.captured import build_facts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from analyzer.incidents.story import Incident
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
    sources = read_sources(request)
    facts = build_facts(sources.captured)
    form = form_of(form, output)
    if form in TABLE_FORMATS:
        emit(timeline_frame(facts), form, output)
    else:
        rows = operation_rows(facts)
        caused = incidents_by_event(judge(sources, facts).incidents)
        write_lines(_as_json(facts, rows, caused) if form == "json" else _as_text(facts, rows, caused), output)
    sys.exit(name_refused(sources))


def _as_json(facts: Facts, rows: list[OperationRow], caused: dict[float, Incident]) -> Iterator[str]:
    operations = [{**row.as_dict(), "incident": _incident(row, caused)} for row in rows]
    yield as_json({"operations": operations, "notes": trace_notes(facts)})


def _incident(row: OperationRow, caused: dict[float, Incident]) -> str | None:
    """The incident that the operation is an event of."""
    found = None if row.time is None or not row.trouble else caused.get(row.time)
    return None if found is None else found.id


def _as_text(facts: Facts, rows: list[OperationRow], caused: dict[float, Incident]) -> Iterator[str]:
    yield from map(printable, table(_HEADINGS, map(_cells, rows)))
    lines = {_incident(row, caused): row.line for row in rows}
    for incident in dict.fromkeys(caused.values()):
        if incident.id in lines:
            severity, line = str(incident.severity).upper(), lines[incident.id]
            yield printable(f"incident {incident.id}: {severity} {incident.title} (line {line})")
    yield from (f"note: {printable(note)}" for note in trace_notes(facts))


def _cells(row: OperationRow) -> tuple[str, ...]:
    where = "" if row.start is None or row.end is None else f"{row.unit} {row.start:#x}-{row.end:#x}"
    time = "" if row.time is None else f"{row.time:.6f}"
    line = "" if row.line is None else str(row.line)
    trouble = f"{row.trouble} DAMAGE" if row.damage else row.trouble
    cpu = "" if row.cpu is None else str(row.cpu)
    return time, cpu, row.task, "  " * row.depth + row.operation, where, row.result, row.state, trouble, line

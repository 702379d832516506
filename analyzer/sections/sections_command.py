"""``ptaudit sections``: the memory map as the kernel's sections see it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from analyzer.options import evidence_options
from analyzer.output import as_json, printable
from analyzer.refused import name_refused
from analyzer.sections.section_rows import SectionRow, empty_table_counts, section_rows
from analyzer.sources.read import Request, read_sources
from analyzer.tables.emit import TABLE_FORMATS, emit, form_of, table_options, write_lines
from analyzer.tables.memory_frames import section_frame
from analyzer.text_table import table
from rules.model.captured import build_facts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rules.facts import Facts

__all__ = ["command", "section_lines"]

_HEADINGS = ("section", "PFNs", "state", "origin", "kind", "node", "flags", "subsections", "struct pages", "linear map")


@click.command(name="sections")
@evidence_options
@click.option("--tables", is_flag=True, help="Also count empty translation tables.")
@table_options
def command(request: Request, tables: bool, form: str | None, output: Path | None) -> None:
    """Show sections, their subsections, and what maps their struct pages.

    \b
    Example:
      ptaudit sections captured-host/
      ptaudit sections captured-host/ --output sections.parquet
    """
    sources = read_sources(request)
    facts = build_facts(sources.captured)
    form = form_of(form, output)
    if form in TABLE_FORMATS:
        emit(section_frame(facts), form, output)
    else:
        write_lines(_as_json(facts, tables) if form == "json" else section_lines(facts, tables=tables), output)
    sys.exit(name_refused(sources))


def _as_json(facts: Facts, tables: bool) -> Iterator[str]:
    counts = empty_table_counts(facts) if tables else {}
    yield as_json({"sections": [row.as_dict() for row in section_rows(facts)], "empty_tables": counts})


def section_lines(facts: Facts, *, tables: bool = False) -> Iterator[str]:
    """The map of sections as text."""
    cells = [_cells(row) for row in section_rows(facts)]
    known = [column for column in range(len(_HEADINGS)) if not cells or any(line[column] for line in cells)]
    shown = table([_HEADINGS[column] for column in known], ([line[column] for column in known] for line in cells))
    yield from map(printable, shown)
    for region, levels in (empty_table_counts(facts) if tables else {}).items():
        yield f"empty tables in the {region} area: {sum(levels.values())}"


def _cells(row: SectionRow) -> tuple[str, ...]:
    number = str(row.first) if row.first == row.last else f"{row.first}-{row.last}"
    pfns = f"{row.start_pfn:#x}-{row.end_pfn:#x}"
    about = (row.state, row.origin, row.kind, row.node, row.flags)
    return number, pfns, *about, row.subsections, row.struct_pages, row.linear

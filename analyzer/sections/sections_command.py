"""``ptaudit sections``: the memory map as the kernel's sections see it."""

from __future__ import annotations

import json

import click

from analyzer.options import evidence_options
from analyzer.sections.section_rows import SectionRow, empty_table_counts, section_rows
from analyzer.sources.read import Request, read_sources
from analyzer.text_table import table
from rules.model.captured import build_facts

__all__ = ["command"]

_HEADINGS = ("section", "PFNs", "state", "origin", "kind", "node", "flags", "subsections", "struct pages", "linear map")


@click.command(name="sections")
@evidence_options
@click.option("--tables", is_flag=True, help="Also count empty translation tables.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="Output format.")
def command(request: Request, tables: bool, form: str) -> None:
    """Show sections, their subsections, and what maps their struct pages.

    \b
    Example:
      ptaudit sections captured-host/
    """
    facts = build_facts(read_sources(request).captured)
    rows = section_rows(facts)
    counts = empty_table_counts(facts) if tables else {}
    if form == "json":
        document = {"sections": [row.as_dict() for row in rows], "empty_tables": counts}
        click.echo(json.dumps(document, indent=2))
        return
    cells = [_cells(row) for row in rows]
    known = [column for column in range(len(_HEADINGS)) if not cells or any(line[column] for line in cells)]
    for line in table([_HEADINGS[column] for column in known], ([line[column] for column in known] for line in cells)):
        click.echo(line)
    for region, levels in counts.items():
        click.echo(f"empty tables in the {region} area: {sum(levels.values())}")


def _cells(row: SectionRow) -> tuple[str, ...]:
    number = str(row.first) if row.first == row.last else f"{row.first}-{row.last}"
    pfns = f"{row.start_pfn:#x}-{row.end_pfn:#x}"
    about = (row.state, row.origin, row.kind, row.node, row.flags)
    return number, pfns, *about, row.subsections, row.struct_pages, row.linear

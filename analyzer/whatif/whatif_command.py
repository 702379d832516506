"""``ptaudit whatif``: what an operation of memory hotplug would do to the host that was captured."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import click

from analyzer.options import evidence_options, format_option
from analyzer.output import as_json
from analyzer.refused import name_refused
from analyzer.sources.read import Request, read_sources
from analyzer.whatif.answer import document, exit_status
from analyzer.whatif.foresight import every_operation, what_if
from analyzer.whatif.operation import Operation, is_operation, parse_operation
from analyzer.whatif.whatif_text import lines, table
from parsers.errors import UsageError
from rules.model.captured import build_facts

__all__ = ["command"]


@click.command(name="whatif")
@click.option("--all", "every", is_flag=True, help="All that can leave or go offline.")
@click.option("--in-sequence", is_flag=True, help="Each after the ones before it.")
@format_option("text", "json")
@partial(evidence_options, metavar="SOURCE... OPERATION...")
def command(request: Request, every: bool, in_sequence: bool, form: str) -> None:
    """Predict what an operation of memory hotplug would do.

    OPERATION: remove:UNIT, offline:memoryN, online:memoryN, add:0xSTART-0xEND. UNIT: a name in /proc/iomem, memoryN,
    0xSTART-0xEND. Exit status: 0 safe, or refused without harm; 1 something breaks; 3 unknown.

    \b
    Example:
      ptaudit whatif captured-host/ remove:namespace0.1
    """
    words = [str(one) for one in request.paths]
    operations: list[str | Operation] = [parse_operation(one) for one in words if is_operation(one)]
    sources = tuple(Path(one) for one in words if not is_operation(one))
    if not operations and not every:
        raise UsageError("no operation: remove:UNIT, offline:memoryN, online:memoryN, add:0xSTART-0xEND, or --all")
    if not sources and not request.kinds:
        raise UsageError("nothing to read: name a directory or a file")
    read = read_sources(replace(request, paths=sources))
    facts = build_facts(read.captured)
    if every:
        operations += every_operation(facts)
    answers = what_if(facts, operations, in_sequence=in_sequence)
    if form == "json":
        click.echo(as_json(document(answers)))
    else:
        click.echo("\n".join(table(answers) if every else lines(answers)))
    refused = name_refused(read)
    sys.exit(exit_status(answers) or refused)

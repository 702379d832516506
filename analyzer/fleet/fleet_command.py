"""``ptaudit fleet``: many bundles, and what their results say together."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from analyzer.options import FILE, NAME, FilePath, fail_on_option, format_option, severity
from analyzer.status import Status
from analyzer.tables.emit import TABLE_FORMATS, emit

__all__ = ["command"]


_Option = Callable[[Callable[..., Any]], Callable[..., Any]]


def _results(text: str) -> _Option:
    return click.option(
        "-o",
        "--output",
        type=FilePath(file_okay=False),
        metavar="DIRECTORY",
        default="ptaudit-fleet",
        show_default=True,
        help=text,
    )


def _bound(name: str, unit: str, kind: click.IntRange | click.FloatRange, default: float, text: str) -> _Option:
    return click.option(name, type=kind, metavar=unit, default=default, show_default=True, help=text)


class _RunByDefault(click.Group):
    """``fleet PATH...`` runs; ``fleet query`` and ``fleet diff`` are separate commands."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``run`` in front of what is not a command."""
        if args and args[0] not in self.commands and args[0] not in {"-h", "--help"}:
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 the signature is click's
        """Names in the order of their use."""
        return list(self.commands)


@click.group(name="fleet", cls=_RunByDefault, subcommand_metavar="PATH... | query SQL | diff OLD NEW")
def command() -> None:
    """Audit many bundles, and ask questions about them all.

    \b
    Example:
      ptaudit fleet bundles/ --output results/
      ptaudit fleet query "SELECT DISTINCT rule FROM findings" -o results/
    """


@command.command(name="run")
@click.argument("paths", nargs=-1, required=True, type=NAME, metavar="PATH|@LIST...")
@_results("Where results go; run again to continue.")
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1, 1024),
    metavar="N",
    default=os.cpu_count() or 1,
    help="Bundles at a time (all CPUs).",
)
@_bound("--timeout", "SECONDS", click.FloatRange(1), 120.0, "Time for a bundle.")
@_bound("--memory", "MIB", click.IntRange(256), 4096, "Memory for a bundle.")
@click.option("--scheduler", metavar="ADDRESS", help="A dask.distributed scheduler to run on.")
@click.option("--expected", type=FILE, metavar="FILE", help="Hosts, one a line: those without a bundle are missing.")
@fail_on_option
def run(
    paths: tuple[str, ...],
    output: Path,
    jobs: int,
    timeout: float,
    memory: int,
    scheduler: str | None,
    expected: Path | None,
    fail_on: str,
) -> None:
    """Audit every bundle below PATH (the default command).

    Bundles are capture directories, archives and crash dumps.

    Exit status: 4 if a bundle could not be audited to its end or a rule failed, 1 for findings, 2 for bundles that
    are missing or cannot be read.

    \b
    Example:
      ptaudit fleet bundles/ --output results/
    """
    from analyzer.fleet.local import Limits  # noqa: PLC0415 the pool is only for running
    from analyzer.fleet.progress import Progress  # noqa: PLC0415
    from analyzer.fleet.run import run_fleet  # noqa: PLC0415
    from analyzer.fleet.summary import as_html, as_text, failed_rules, headline, summarize, worst_of  # noqa: PLC0415
    from analyzer.output import printable, write_text  # noqa: PLC0415

    begin = time.monotonic()
    try:
        with Progress(show=sys.stderr.isatty()) as progress:
            statuses = run_fleet(
                paths, output, jobs=jobs, limits=Limits(timeout, memory << 20), scheduler=scheduler,
                progress=progress.step, expected=expected,
            )  # fmt: skip
    except KeyboardInterrupt:
        click.echo(f"ptaudit: interrupted; what came is in {output}/, the same command goes on from there", err=True)
        sys.exit(Status.INTERRUPTED)
    seconds, summaries = time.monotonic() - begin, summarize(output)
    write_text(output / "summary.html", as_html(output, summaries))
    click.echo(f"{headline(output)}\n")
    click.echo(as_text(summaries))
    counts = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
    where = printable(f"{output}/summary.html, *.parquet")
    click.echo(f"{counts} in {seconds:.1f} s ({statuses.total() / seconds:.1f}/s); {where}")
    broken = failed_rules(output)
    for rule, count in broken:
        click.echo(f"ptaudit: rule {rule} failed inside on {count} bundle{'' if count == 1 else 's'}", err=True)
    worst = worst_of(output)
    if broken or any(statuses[one] for one in ("timeout", "memory", "crashed")):
        sys.exit(Status.FAILED)
    if worst is not None and severity(worst) >= severity(fail_on):
        sys.exit(Status.FINDINGS)
    if statuses["unreadable"] or statuses["missing"]:
        sys.exit(Status.USAGE)


@command.command(name="query")
@click.argument("sql")
@_results("The results to ask.")
@format_option("text", *TABLE_FORMATS)
@_bound("--timeout", "SECONDS", click.FloatRange(1), 60.0, "Time for the query.")
@_bound("--memory", "MIB", click.IntRange(64), 1024, "Memory for the query.")
def query(sql: str, output: Path, form: str, timeout: float, memory: int) -> None:
    """Ask the results in SQL: tables bundles, findings, undecided, units.

    \b
    Example:
      ptaudit fleet query "SELECT bundle FROM findings WHERE rule = 'VMM-01'"
    """
    from analyzer.fleet.store import QueryBounds, query_frame  # noqa: PLC0415 DuckDB is an extra
    from analyzer.fleet.store import query as ask  # noqa: PLC0415
    from analyzer.output import printable  # noqa: PLC0415
    from analyzer.text_table import table  # noqa: PLC0415

    bounds = QueryBounds(timeout, memory << 20)
    if form in TABLE_FORMATS:
        emit(query_frame(output, sql, bounds), form, None)
        return
    columns, rows = ask(output, sql, bounds)
    for line in table(columns, (["" if cell is None else str(cell) for cell in row] for row in rows)):
        click.echo(printable(line))


@command.command(name="diff")
@click.argument("old", type=FilePath(exists=True, file_okay=False))
@click.argument("new", type=FilePath(exists=True, file_okay=False))
@fail_on_option
def diff(old: Path, new: Path, fail_on: str) -> None:
    """Which hosts got worse between two results.

    \b
    Example:
      ptaudit fleet diff results-monday/ results-tuesday/
    """
    from analyzer.fleet.difference import COLUMNS, difference  # noqa: PLC0415 DuckDB is an extra
    from analyzer.output import printable  # noqa: PLC0415
    from analyzer.text_table import table  # noqa: PLC0415

    rows = difference(old, new)
    for line in table(COLUMNS, ([str(cell) for cell in row] for row in rows)):
        click.echo(printable(line))
    if any(row[0] == "worse" and severity(row[3]) >= severity(fail_on) for row in rows):
        sys.exit(Status.FINDINGS)

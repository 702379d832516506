"""Tables on their way out: CSV and Parquet, to a file or to standard output.

Both formats have plain columns: categories become text, ``timedelta64`` becomes seconds.  Parquet is written by DuckDB
(the extra ``fleet``), which keeps ``uint64`` and missing numbers as they are; the same table gives the same bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from analyzer.options import FilePath, format_option
from analyzer.output import visible, write_bytes
from analyzer.temporary import folder
from parsers.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import duckdb
    import pandas as pd

__all__ = ["TABLE_FORMATS", "emit", "form_of", "table_options", "write_lines"]

TABLE_FORMATS = ("csv", "parquet")


def table_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--format`` with the formats of tables, and ``--output``, whose suffix chooses one."""
    output = click.option(
        "--output",
        type=FilePath(dir_okay=False),
        metavar="FILE",
        help="Write there; .json, .csv and .parquet choose the format.",
    )
    return format_option("text", "json", *TABLE_FORMATS, default=None)(output(command))


def form_of(form: str | None, output: Path | None) -> str:
    """The format that was asked for, by name or by the suffix of the output; ``text`` if neither."""
    suffix = output.suffix.lstrip(".") if output is not None else ""
    return form or (suffix if suffix in {"json", *TABLE_FORMATS} else "text")


def emit(table: pd.DataFrame, form: str, output: Path | None) -> None:
    """Write a table as ``csv`` or ``parquet``, whole or not at all.

    UsageError for Parquet to a terminal; MissingDependencyError where DuckDB is not installed.
    """
    plain = _plain(table)
    if form == "csv":
        data = visible(plain.to_csv(index=False), "csv").encode("utf-8", "backslashreplace")
    elif output is None and sys.stdout.isatty():
        raise UsageError("Parquet is binary: name a file with --output, or redirect it")
    else:
        data = _parquet(plain)
    if output is not None:
        write_bytes(output, data)
    else:
        click.echo(data, nl=False)


def write_lines(lines: Iterable[str], output: Path | None) -> None:
    """Text to a file, or line by line to standard output."""
    if output is not None:
        write_bytes(output, "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace"))
        return
    for line in lines:
        click.echo(line)


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """The table without dtypes that the formats do not have."""
    times = table.select_dtypes("timedelta").columns
    return table.assign(**{name: table[name].dt.total_seconds() for name in times})


def _parquet(table: pd.DataFrame) -> bytes:
    from analyzer.fleet.store import in_database  # noqa: PLC0415 DuckDB is an extra

    with folder() as home:
        path = f"{home}/table.parquet"

        def write(database: duckdb.DuckDBPyConnection) -> None:
            database.execute("SET threads = 1")  # row groups in one order
            database.register("written", table)
            database.execute(f"COPY written TO '{path}' (FORMAT parquet, COMPRESSION zstd)")

        in_database(write)
        return Path(path).read_bytes()

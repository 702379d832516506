"""What a fleet's runs keep in their folder: results as they come, and Parquet tables made of them.

``state.sqlite`` holds the bundles that the last run was asked for and the last result of every bundle, committed one
by one: whatever interrupts a run, the next goes on.  ``bundles.parquet``, ``findings.parquet`` and
``undecided.parquet`` are made of it by DuckDB, in the order of the bundles' names, so the same results give the same
bytes; what differs between runs, the time taken, is in ``timings.parquet`` alone.  Nothing is held in memory that
grows with the fleet.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from analyzer.memory import at_most, more_than_now
from analyzer.tables.frames import of_masked
from analyzer.temporary import folder as temporary_folder
from parsers.errors import InputError, MissingDependencyError, UsageError
from parsers.records import dataclass

if TYPE_CHECKING:
    from types import TracebackType

    import duckdb
    import pandas as pd

    from analyzer.fleet.find import Bundle
    from analyzer.fleet.unit import BundleResult

__all__ = ["TABLES", "QueryBounds", "State", "in_database", "open_tables", "query", "query_frame"]

TABLES = ("bundles", "findings", "undecided", "units", "timings")
YOUNGER = frozenset({"units"})
"""Tables that results of older versions do not have."""
BATCH = 512
_TICK = 0.2
RESULTS = 2
"""Which fields a result has: kept ones of another number are audited again."""
T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS wanted (number INTEGER PRIMARY KEY, bundle BLOB UNIQUE NOT NULL, host TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS results (
  bundle BLOB PRIMARY KEY, content TEXT NOT NULL, version TEXT NOT NULL, status TEXT NOT NULL, document BLOB NOT NULL);
"""
_COLUMNS = {
    "bundle": "VARCHAR",
    "host": "VARCHAR",
    "content": "VARCHAR",
    "status": "VARCHAR",
    "error": "VARCHAR",
    "seconds": "DOUBLE",
    "release": "VARCHAR",
    "page_size": "BIGINT",
    "machine": "VARCHAR",
    "worst": "VARCHAR",
    "verdict": "VARCHAR",
    "verdict_text": "VARCHAR",
    "missing": "VARCHAR[]",
    "nr_incidents": "BIGINT",
    "findings": (
        "STRUCT(rule VARCHAR, name VARCHAR, severity VARCHAR, impact VARCHAR, claim VARCHAR, fingerprint VARCHAR, "
        "title VARCHAR, message VARCHAR, sections BIGINT[], pfn_ranges VARCHAR[])[]"
    ),
    "undecided": ("STRUCT(rule VARCHAR, severity VARCHAR, outcome VARCHAR, reason VARCHAR, collect VARCHAR[])[]"),
    "units": (
        "STRUCT(operation VARCHAR, unit VARCHAR, answer VARCHAR, claim VARCHAR, node BIGINT, start VARCHAR, "
        "size BIGINT, rules VARCHAR[], why VARCHAR)[]"
    ),
}
_QUERIES = {
    "bundles": "SELECT bundle, host, content, status, error, verdict, verdict_text, missing, release, page_size, "
    "machine, worst, nr_incidents, len(findings) AS nr_findings, len(undecided) AS nr_undecided, "
    "len([one FOR one IN units IF one.operation = 'remove' AND one.answer = 'breaks']) AS unsafe_units "
    "FROM results ORDER BY bundle",
    "findings": "SELECT bundle, host, one.* FROM (SELECT bundle, host, unnest(findings) AS one FROM results) "
    "ORDER BY bundle, one.rule, one.fingerprint, one.message",
    "undecided": "SELECT bundle, host, one.* FROM (SELECT bundle, host, unnest(undecided) AS one FROM results) "
    "ORDER BY bundle, one.rule",
    "units": "SELECT bundle, host, one.* FROM (SELECT bundle, host, unnest(units) AS one FROM results) "
    "ORDER BY bundle, one.operation DESC, one.start, one.unit",
    "timings": "SELECT bundle, host, seconds FROM results ORDER BY bundle",
}


class State:
    """The state of a folder, held by one run at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.version = f"{version('ptaudit')}, results {RESULTS}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.database = sqlite3.connect(folder / "state.sqlite", timeout=0, isolation_level=None)
            self.database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self.database.execute("PRAGMA journal_mode = WAL")
            self.database.execute("PRAGMA synchronous = NORMAL")
            self.database.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            busy = "locked" in str(error)
            raise UsageError(
                "another run uses it" if busy else f"no folder for results: {error}", path=str(folder)
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.database.close()

    def want(self, bundles: Iterable[Bundle]) -> int:
        """Remember what this run is asked for, each bundle once; returns how many there are."""
        self.database.execute("BEGIN IMMEDIATE")
        self.database.execute("DELETE FROM wanted")
        self.database.executemany(
            "INSERT OR IGNORE INTO wanted (bundle, host) VALUES (?, ?)",
            ((os.fsencode(one.path), _text(one.host)) for one in bundles),
        )
        self.database.execute("COMMIT")
        count: int = self.database.execute("SELECT count(*) FROM wanted").fetchone()[0]
        return count

    def pending(self) -> Iterator[tuple[str, str]]:
        """Every wanted bundle and its content as this version of ptaudit audited it, "" where it did not."""
        last = 0
        while rows := self.database.execute(
            "SELECT number, bundle, CASE WHEN status = 'audited' AND version = ? THEN content ELSE '' END "
            "FROM wanted LEFT JOIN results USING (bundle) WHERE number > ? ORDER BY number LIMIT ?",
            (self.version, last, BATCH),
        ).fetchall():
            for last, bundle, content in rows:  # noqa: B007 the next batch starts there
                yield os.fsdecode(bundle), content or ""

    def add(self, result: BundleResult) -> None:
        """Keep a result, at once."""
        self.database.execute(
            "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?)",
            (os.fsencode(result["bundle"]), result["content"], self.version, result["status"], _document(result)),
        )

    def export(self) -> None:
        """Write the Parquet tables of what is there of the wanted bundles."""
        lines = self.folder / "results.jsonl.part"
        try:
            with lines.open("wb") as file:
                for host, document in self.database.execute(
                    "SELECT host, document FROM wanted JOIN results USING (bundle)"
                ):
                    file.write(b'{"host":' + json.dumps(host).encode() + b"," + document[1:] + b"\n")
            in_database(lambda database: _write_tables(database, self.folder, lines))
        finally:
            lines.unlink(missing_ok=True)


def _text(name: str) -> str:
    """A file name that is not UTF-8, as text."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _document(result: BundleResult) -> bytes:
    """The result as JSON that every reader takes: no lone surrogates, no NUL."""
    printable = {**result, "bundle": _text(result["bundle"]), "error": result["error"]}
    text = json.dumps(printable, ensure_ascii=False, separators=(",", ":")).replace("\\u0000", "")
    return text.encode("utf-8", "replace")


def in_database(work: Callable[[duckdb.DuckDBPyConnection], T], seconds: float | None = None) -> T:
    """The result of ``work`` with an in-memory DuckDB, in a thread, which ends when this one is interrupted.

    DuckDB looks for signals by itself, and makes another exception of the one that they raise, or ends the process; in
    a thread it does not.  TimeoutError where it takes longer; MissingDependencyError where it is not installed.
    """
    results: list[T] = []
    errors: list[BaseException] = []
    opened: list[duckdb.DuckDBPyConnection] = []
    ended = threading.Event()

    def run() -> None:
        try:
            with _connect() as database:
                opened.append(database)
                results.append(work(database))
        except BaseException as error:
            errors.append(error)
        ended.set()

    thread = threading.Thread(target=run, name="ptaudit-duckdb")
    thread.start()
    try:
        if not ended.wait(seconds):
            raise TimeoutError
    finally:
        while not ended.is_set():  # what it does between two statements is not interrupted
            for database in opened:
                with suppress(Exception):  # it may have been closed a moment ago
                    database.interrupt()
            ended.wait(_TICK)
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _connect() -> duckdb.DuckDBPyConnection:
    try:
        import duckdb  # noqa: PLC0415 an extra
    except ImportError as error:
        raise MissingDependencyError("fleets and Parquet need DuckDB: pip install 'ptaudit[fleet]'") from error
    return duckdb.connect()


def _write_tables(database: duckdb.DuckDBPyConnection, folder: Path, lines: Path) -> None:
    columns = ", ".join(f"{name}: '{kind}'" for name, kind in _COLUMNS.items())
    for setting in (
        "threads = 1",  # row groups in one order
        "memory_limit = '1GB'",
        f"temp_directory = {_quoted(folder / 'spill')}",
    ):
        database.execute(f"SET {setting}")
    database.execute(
        f"CREATE VIEW results AS SELECT * FROM read_json({_quoted(lines)}, format = 'newline_delimited', "  # noqa: S608
        f"columns = {{{columns}}}, maximum_object_size = 268435456)"
    )
    for table, sql in _QUERIES.items():
        part = folder / f"{table}.parquet.part"
        database.execute(f"COPY ({sql}) TO {_quoted(part)} (FORMAT parquet, COMPRESSION zstd)")
        part.replace(folder / f"{table}.parquet")


def open_tables(database: duckdb.DuckDBPyConnection, folder: Path, prefix: str = "") -> None:
    """Make the tables of a folder readable under their names; InputError where there are none."""
    for table in TABLES:
        path = folder / f"{table}.parquet"
        if not path.exists() and table in YOUNGER:
            continue
        if not path.exists():
            raise InputError(f"no {path.name}: no results of a fleet", path=str(folder))
        try:
            database.execute(f"CREATE VIEW {prefix}{table} AS SELECT * FROM read_parquet({_quoted(path)})")  # noqa: S608
        except Exception as error:
            if type(error).__module__.startswith(("duckdb", "_duckdb")):
                raise InputError("not a Parquet table, or damaged: run the fleet again", path=str(path)) from error
            raise


@dataclass(frozen=True)
class QueryBounds:
    """What a query may take."""

    seconds: float = 60.0
    memory_bytes: int = 1 << 30
    """For rows and what they are made of; what does not fit goes to a temporary folder, at most four times as much."""
    rows: int = 1_000_000


def query(folder: Path, sql: str, bounds: QueryBounds | None = None) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows of one SELECT over the tables of a folder; it can read nothing else, and write nothing.

    UsageError for a query that cannot be answered, or takes more than its bounds.
    """
    bounds = bounds or QueryBounds()

    def rows_of(result: duckdb.DuckDBPyConnection) -> tuple[list[str], list[tuple[Any, ...]]]:
        rows: list[tuple[Any, ...]] = []
        while some := result.fetchmany(BATCH):
            rows += some
            _refuse_rows(len(rows), bounds)
        return [column[0] for column in result.description or []], rows

    return _ask(folder, sql, rows_of, bounds)


def query_frame(folder: Path, sql: str, bounds: QueryBounds | None = None) -> pd.DataFrame:
    """`query` as a DataFrame; integers stay integers where some are missing."""
    bounds = bounds or QueryBounds()
    table = _ask(folder, sql, lambda result: of_masked(result.fetchnumpy()), bounds)
    _refuse_rows(len(table), bounds)
    return table


def _refuse_rows(count: int, bounds: QueryBounds) -> None:
    if count > bounds.rows:
        raise UsageError(f"query: more than {bounds.rows} rows: add a LIMIT, or count them")


def _ask(folder: Path, sql: str, take: Callable[[duckdb.DuckDBPyConnection], T], bounds: QueryBounds) -> T:
    """What ``take`` makes of the result of one SELECT over the tables of a folder."""
    room = more_than_now(2 * bounds.memory_bytes)  # text that a function makes is not in DuckDB's own limit
    with temporary_folder() as home, at_most(room):
        try:
            return in_database(lambda database: _asked(database, folder, sql, take, bounds, home), bounds.seconds)
        except TimeoutError:
            raise UsageError(f"query: no answer after {bounds.seconds:g} s (--timeout)") from None
        except MemoryError as error:
            raise UsageError(f"query: takes more than {bounds.memory_bytes >> 20} MiB of memory") from error


def _asked(
    database: duckdb.DuckDBPyConnection,
    folder: Path,
    sql: str,
    take: Callable[[duckdb.DuckDBPyConnection], T],
    bounds: QueryBounds,
    home: Path,
) -> T:
    open_tables(database, folder)
    paths = ", ".join(_quoted(folder / f"{table}.parquet") for table in TABLES)
    for setting in (
        f"memory_limit = '{bounds.memory_bytes}B'",
        f"temp_directory = {_quoted(home)}",
        f"max_temp_directory_size = '{4 * bounds.memory_bytes}B'",
        f"allowed_paths = [{paths}]",
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        database.execute(f"SET {setting}")
    try:
        statements = [str(one.type).rpartition(".")[2] for one in database.extract_statements(sql)]
        if statements != ["SELECT"]:
            raise UsageError("query: one SELECT is expected")  # noqa: TRY301
        return take(database.execute(sql))
    except Exception as error:
        if type(error).__module__.startswith(("duckdb", "_duckdb")):
            if "OutOfMemory" in type(error).__name__:
                raise MemoryError(str(error)) from error
            raise UsageError(f"query: {str(error).splitlines()[0]}") from error
        raise


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"

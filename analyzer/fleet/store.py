"""Results of a fleet: a journal that survives interruption, and Parquet tables made of it.

``journal.jsonl`` gets one line a bundle as soon as its result is there; ``bundles.parquet``, ``findings.parquet``
and ``undecided.parquet`` are written from it, the last result of a bundle counting.  Memory does not grow with
the fleet: DuckDB streams the journal.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from parsers.errors import InputError, MissingDependencyError, UsageError

if TYPE_CHECKING:
    from types import TracebackType

    import duckdb

    from analyzer.fleet.unit import BundleResult

__all__ = ["TABLES", "Journal", "connect", "query", "write_tables"]

TABLES = ("bundles", "findings", "undecided")

_FINDING = (
    "STRUCT(bundle VARCHAR, content VARCHAR, rule VARCHAR, name VARCHAR, severity VARCHAR, claim VARCHAR, "
    "fingerprint VARCHAR, title VARCHAR, message VARCHAR, sections BIGINT[], pfn_ranges VARCHAR[])"
)
_UNDECIDED = (
    "STRUCT(bundle VARCHAR, content VARCHAR, rule VARCHAR, severity VARCHAR, reason VARCHAR, collect VARCHAR[])"
)
_COLUMNS = {
    "bundle": "VARCHAR",
    "content": "VARCHAR",
    "status": "VARCHAR",
    "error": "VARCHAR",
    "seconds": "DOUBLE",
    "release": "VARCHAR",
    "page_size": "BIGINT",
    "machine": "VARCHAR",
    "worst": "VARCHAR",
    "nr_findings": "BIGINT",
    "nr_undecided": "BIGINT",
    "findings": f"{_FINDING}[]",
    "undecided": f"{_UNDECIDED}[]",
}


class Journal:
    """Appends results; a line that was cut by an interruption is dropped when the journal is opened again."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        self.known = self._repair()
        self.file = self.path.open("a", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()

    def add(self, result: BundleResult) -> None:
        """Keep a result, at once."""
        self.file.write(json.dumps(result, ensure_ascii=False, separators=(",", ":")) + "\n")
        self.file.flush()

    def _repair(self) -> dict[str, str]:
        """Content by bundle of what was audited before."""
        known: dict[str, str] = {}
        if not self.path.exists():
            return known
        whole = 0
        with self.path.open("rb") as file:
            for line in file:
                try:
                    entry = json.loads(line) if line.endswith(b"\n") else None
                except ValueError:
                    entry = None
                if entry is None:
                    break
                whole += len(line)
                if entry["status"] == "audited":
                    known[entry["bundle"]] = entry["content"]
        with self.path.open("r+b") as file:
            file.truncate(whole)
        return known


def connect() -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB; MissingDependencyError where it is not installed."""
    try:
        import duckdb  # noqa: PLC0415 an extra
    except ImportError as error:
        raise MissingDependencyError("fleet needs DuckDB: pip install 'ptaudit[fleet]'") from error
    connection = duckdb.connect()
    connection.execute("SET preserve_insertion_order = true")
    return connection


def write_tables(folder: Path) -> None:
    """The Parquet tables of a folder's journal, in the order of bundle names: the same results give the same rows."""
    columns = ", ".join(f"{name}: '{kind}'" for name, kind in _COLUMNS.items())
    journal = _quoted(folder / "journal.jsonl")
    flat = ", ".join(name for name in _COLUMNS if name not in {"findings", "undecided", "seconds"})
    with connect() as database:
        database.execute(
            f"CREATE VIEW journal AS SELECT *, row_number() OVER () AS entry FROM read_json({journal}, "  # noqa: S608
            f"format = 'newline_delimited', columns = {{{columns}}}, maximum_object_size = 268435456)"
        )
        database.execute(
            "CREATE VIEW latest AS SELECT * FROM journal "
            "QUALIFY row_number() OVER (PARTITION BY bundle ORDER BY entry DESC) = 1"
        )
        queries = {
            "bundles": f"SELECT {flat}, seconds FROM latest ORDER BY bundle",  # noqa: S608
            "findings": "SELECT f.* FROM (SELECT unnest(findings) AS f FROM latest) "
            "ORDER BY f.bundle, f.rule, f.fingerprint",
            "undecided": "SELECT u.* FROM (SELECT unnest(undecided) AS u FROM latest) ORDER BY u.bundle, u.rule",
        }
        for table, query in queries.items():
            part = folder / f"{table}.parquet.part"
            database.execute(f"COPY ({query}) TO {_quoted(part)} (FORMAT parquet, COMPRESSION zstd)")
            part.replace(folder / f"{table}.parquet")


def query(folder: Path, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows of a query over the tables of a folder; the connection can reach nothing else."""
    missing = [table for table in TABLES if not (folder / f"{table}.parquet").exists()]
    if missing:
        raise InputError(f"no {missing[0]}.parquet: no results of a fleet", path=str(folder))
    with connect() as database:
        for table in TABLES:
            path = _quoted(folder / f"{table}.parquet")
            database.execute(f"CREATE TABLE {table} AS SELECT * FROM read_parquet({path})")  # noqa: S608
        database.execute("SET enable_external_access = false")
        try:
            result = database.execute(sql)
            return [column[0] for column in result.description or []], result.fetchall()
        except Exception as error:
            if type(error).__module__.startswith(("duckdb", "_duckdb")):
                raise UsageError(f"query: {error}") from error
            raise


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"

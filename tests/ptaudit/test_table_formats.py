"""CSV and Parquet of sections, timeline, diff and fleet query: the library's tables, types kept."""

from __future__ import annotations

import io
from pathlib import Path

import duckdb
import pandas as pd
import pytest
from click.testing import CliRunner, Result

import ptaudit
from analyzer.cli import ptaudit as command_line

CAPTURES = Path(__file__).parents[2] / "fixtures" / "captures" / "pmem-6.12-vuln"
BEFORE, AFTER = CAPTURES / "01-three-namespaces", CAPTURES / "02-one-removed"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command_line, [str(one) for one in arguments])


def described(path: Path) -> dict[str, str]:
    return {row[0]: row[1] for row in duckdb.sql(f"DESCRIBE SELECT * FROM '{path}'").fetchall()}


@pytest.mark.parametrize("command", ["sections", "timeline"])
def test_csv_is_the_library_table(command: str) -> None:
    table = getattr(ptaudit.open(AFTER), command)()
    done = run(command, AFTER, "--format", "csv")
    assert done.exit_code == 0, done.output
    read = pd.read_csv(io.BytesIO(done.stdout_bytes), dtype={"start": "UInt64", "end": "UInt64"})
    assert list(read.columns) == list(table.columns)
    assert len(read) == len(table)
    assert read.start.tolist() == table.start.tolist()
    if command == "timeline":
        assert read.time.tolist() == pytest.approx(table.time.dt.total_seconds().tolist(), abs=1e-9)


@pytest.mark.parametrize("command", ["sections", "timeline"])
def test_parquet_keeps_unsigned_and_missing_numbers(command: str, tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    assert run(command, AFTER, "--output", path).exit_code == 0
    types = described(path)
    table = getattr(ptaudit.open(AFTER), command)()
    assert list(types) == list(table.columns)
    assert types["start"] == "UBIGINT"
    assert types["line"] == "UINTEGER"
    missing = duckdb.sql(f"SELECT count(*) FROM '{path}' WHERE line IS NULL").fetchall()
    assert missing == [(table.line.isna().sum(),)]


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.parquet", "two.parquet"):
        run("sections", AFTER, "--output", tmp_path / name)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_the_suffix_of_the_output_chooses_the_format(tmp_path: Path) -> None:
    for suffix, head in (("csv", "section,start_pfn"), ("json", "{"), ("txt", "section")):
        path = tmp_path / f"sections.{suffix}"
        assert run("sections", AFTER, "--output", path).exit_code == 0
        assert path.read_text().startswith(head)
    path = tmp_path / "named.csv"
    run("sections", AFTER, "--output", path, "--format", "json")
    assert path.read_text().startswith("{")


def test_diff_rows_are_the_changes(tmp_path: Path) -> None:
    path = tmp_path / "diff.csv"
    assert run("diff", BEFORE, AFTER, "--output", path).exit_code == 1
    read = pd.read_csv(path, dtype={"start": "UInt64", "end": "UInt64", "line": "UInt32"})
    hazards = read[read.what == "hazard"]
    assert {"critical"} <= set(hazards.severity)
    lost = read[(read.what == "hazard") & (read.severity == "critical") & (read.unit == "pfn")]
    assert list(zip(lost.start, lost.end, strict=True))[:2] == [(0x80000, 0x82000), (0x84000, 0x88000)]
    assert {"mapping", "finding", "section"} <= set(read.what)
    row = read[(read.what == "mapping") & read.line.notna()].iloc[0]
    text = Path(row.source).read_text().splitlines()[row.line - 1]
    assert str(row.after).split("\n")[0].split("-")[0] in text


def test_fleet_query_gives_integers_where_some_are_missing(tmp_path: Path) -> None:
    results = tmp_path / "results"
    (tmp_path / "bundles" / "whole").mkdir(parents=True)
    (tmp_path / "bundles" / "bare").mkdir()
    for name in ("kernel_page_tables", "iomem", "config", "uname", "memory_blocks"):
        (tmp_path / "bundles" / "whole" / name).write_bytes((AFTER / name).read_bytes())
    (tmp_path / "bundles" / "bare" / "uname").write_text("Linux bare 6.12.0 #1 SMP aarch64 GNU/Linux\n")
    run("fleet", tmp_path / "bundles", "-o", results, "-j", "1")
    sql = "SELECT host, page_size FROM bundles ORDER BY host"
    done = run("fleet", "query", sql, "-o", results, "--format", "csv")
    assert done.stdout.splitlines() == ["host,page_size", "bare,", "whole,4096"]
    parquet = tmp_path / "query.parquet"
    parquet.write_bytes(run("fleet", "query", sql, "-o", results, "--format", "parquet").stdout_bytes)
    assert described(parquet) == {"host": "VARCHAR", "page_size": "BIGINT"}
    assert run("fleet", "query", "DROP TABLE bundles", "-o", results, "--format", "csv").exit_code != 0

"""All benchmarks, one table: what was measured, and beside it the yardstick of the same run.

    python benchmarks/run_all.py [--quick] [NAME...]

A busy machine slows a benchmark and its yardstick alike: of two runs, compare the ratios.  A goal is for the ratio,
or with a unit for what was measured on two cores.  How each row grows with the size of its input: benchmarks/growth.py.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
NUMBER = r"([\d.,]+)"


@dataclass(frozen=True)
class Row:
    """A line of the table: two numbers that a benchmark prints, found by patterns with one group."""

    what: str
    unit: str
    measured: str
    yardstick: str
    beside: str
    goal: str = ""
    """What the ratio, or with a unit what was measured, should be."""


@dataclass(frozen=True)
class Benchmark:
    """A script, its arguments for a quick run, and what is taken from its output."""

    script: str
    quick: tuple[str, ...]
    rows: tuple[Row, ...]
    growth: tuple[tuple[str, ...], ...] = ()
    """Arguments for one size and for ten times that size; none where the input has no size."""


BENCHMARKS = {
    "start": Benchmark(
        "bench_start.py",
        ("--runs", "3"),
        (
            Row(
                "ptaudit --help",
                "ms",
                rf"ptaudit --help +{NUMBER} ms",
                rf"python -c pass +{NUMBER} ms",
                "python -c pass",
            ),
            Row(
                "import ptaudit",
                "ms",
                rf"import ptaudit +{NUMBER} ms",
                rf"python -c pass +{NUMBER} ms",
                "python -c pass",
            ),
            Row(
                "audit, cold start",
                "ms",
                rf"ptaudit audit +{NUMBER} ms",
                rf"python -c pass +{NUMBER} ms",
                "python -c pass",
                "<= 10",
            ),
        ),
    ),
    "ptdump": Benchmark(
        "bench_ptdump.py",
        ("--rows", "100000"),
        (
            Row(
                "page-table dump",
                "MB/s",
                rf"ptaudit +{NUMBER} MB/s",
                rf"line by line +{NUMBER} MB/s",
                "a regular expression",
                ">= 25",
            ),
            Row(
                "peak memory of a page-table dump",
                "MB",
                rf"peak memory {NUMBER} MB",
                rf"rows, {NUMBER} MB",
                "size of the file",
                "<= 1.2",
            ),
        ),
        (("--rows", "100000"), ("--rows", "1000000")),
    ),
    "log": Benchmark(
        "bench_log.py",
        ("--mb", "5"),
        (
            Row(
                "kernel log",
                "MB/s",
                rf"ptaudit, usual +{NUMBER} MB/s",
                rf"grep -c, one literal +{NUMBER} MB/s",
                "grep -c",
                ">= 50 MB/s",
            ),
            Row(
                "kernel log, a flood of messages",
                "MB/s",
                rf"ptaudit, only memory failures +{NUMBER} MB/s",
                rf"grep -c, one literal +{NUMBER} MB/s",
                "grep -c",
                ">= 50 MB/s",
            ),
        ),
        (("--mb", "4"), ("--mb", "40")),
    ),
    "host": Benchmark(
        "bench_host.py",
        ("--tib", "1"),
        (
            Row(
                "model, rules, coverage of a host",
                "s",
                rf"{NUMBER} s  model, rules and coverage",
                rf"{NUMBER} s  yardstick",
                "sort 10 million",
            ),
        ),
        (("--tib", "1"), ("--tib", "10")),
    ),
    "ftrace": Benchmark(
        "bench_ftrace.py",
        ("20",),
        (
            Row(
                "trace, text",
                "MB/s",
                rf"text, 1 line in 10000 +{NUMBER} MB/s",
                rf"grep -c, one literal +{NUMBER} MB/s",
                "grep -c",
                ">= 0.4",
            ),
            Row(
                "trace.dat",
                "M/s",
                rf"trace.dat +{NUMBER} M events/s",
                rf"trace-cmd report +{NUMBER} M events/s",
                "trace-cmd report",
                ">= 10",
            ),
        ),
        (("20",), ("200",)),
    ),
    "replay": Benchmark(
        "bench_replay.py",
        ("50000",),
        (
            Row(
                "replay of a trace",
                "s",
                rf"replay +{NUMBER} s",
                rf"one dict update each +{NUMBER} s",
                "a dict update each",
                "<= 3",
            ),
        ),
        (("50000",), ("500000",)),
    ),
    "walk": Benchmark(
        "bench_walk.py",
        ("--gib", "64"),
        (
            Row(
                "walk of a crash dump",
                "s",
                rf"walk of the core: {NUMBER} s",
                rf"plain reading of the same pages: {NUMBER} s",
                "reading the same pages",
                "<= 1.3",
            ),
        ),
        (("--gib", "100"), ("--gib", "1000")),
    ),
    "kcore": Benchmark(
        "bench_kcore.py",
        ("--gib", "64"),
        (
            Row(
                "walk of /proc/kcore",
                "s",
                rf"walk {NUMBER} s",
                rf"plain reading {NUMBER} s",
                "reading the same pages",
                "<= 1.3",
            ),
        ),
        (("--gib", "100"), ("--gib", "1000")),
    ),
    "kdump": Benchmark(
        "bench_kdump.py",
        ("--gib", "16"),
        tuple(
            Row(
                f"walk of a kdump, {codec}",
                "s",
                rf"{codec}: walk {NUMBER} s",
                rf"{codec}: .*decompressing alone {NUMBER} s",
                "decompressing alone",
                "<= 1.3",
            )
            for codec in ("zlib", "lzo", "snappy", "zstd")
        ),
        (("--gib", "25"), ("--gib", "250")),
    ),
    "fleet": Benchmark(
        "bench_fleet.py",
        ("--count", "60"),
        (Row("fleet", "1/s", rf"{NUMBER} bundles/s", rf"pass takes {NUMBER} ms", "python -c pass, ms", ">= 25 /s"),),
        (("--count", "60"), ("--count", "600")),
    ),
}


def number(pattern: str, output: str) -> float | None:
    found = re.search(pattern, output)
    return float(found[1].replace(",", "")) if found else None


def cells(row: Row, output: str) -> tuple[str, str, str]:
    """What was measured, its yardstick and their ratio; a yardstick that is not installed is missing."""
    measured, yardstick = number(row.measured, output), number(row.yardstick, output)
    if measured is None:
        return "not printed", "", ""
    if not yardstick:
        return f"{measured:g}", "-", "-"
    return f"{measured:g}", f"{yardstick:g}", f"{measured / yardstick:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small inputs: does everything run?")
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *BENCHMARKS], help=", ".join(BENCHMARKS))
    arguments = parser.parse_args()
    print(f"{'benchmark':<40} {'measured':>11} {'':<5} {'yardstick':>10}  {'':<22} {'ratio':>8}  goal")
    failed = False
    for name in arguments.names or BENCHMARKS:
        benchmark = BENCHMARKS[name]
        begin = time.monotonic()
        command = [sys.executable, str(HERE / benchmark.script), *(benchmark.quick if arguments.quick else ())]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        failed |= done.returncode != 0
        for row in benchmark.rows:
            measured, yardstick, ratio = cells(row, done.stdout)
            failed |= measured == "not printed"
            numbers = f"{measured:>11} {row.unit:<5} {yardstick:>10}  {row.beside:<22} {ratio:>8}"
            print(f"{row.what:<40} {numbers}  {row.goal}", flush=True)
        print(f"{name}: {time.monotonic() - begin:.0f} s{f', FAILED: {done.stderr[-300:]}' if done.returncode else ''}",
              file=sys.stderr)  # fmt: skip
    sys.exit(failed)


if __name__ == "__main__":
    main()

"""All benchmarks, one table: what was measured, and beside it the yardstick of the same run.

    python benchmarks/run_all.py [--quick] [--markdown] [NAME...]

A busy machine slows a benchmark and its yardstick alike: of two runs, compare the ratios.  A goal is for the ratio,
or with a unit for what was measured on two cores.

Each benchmark also runs on a tenth of its input, and the exponent is the power of the size with which its cost grows:
1 is in proportion, 2 its square; below 1 a cost that does not depend on the size weighs.
"""

from __future__ import annotations

import argparse
import math
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
NUMBER = r"([\d.,]+)"
NOT_PRINTED = "not printed"


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
    tenth: tuple[str, ...] = ()
    """Arguments for a tenth of the size that it has without any; none where the input has no size."""


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
        ("--rows", "100000"),
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
        ("--mb", "4"),
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
        ("--tib", "2"),
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
        ("100",),
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
        ("100000",),
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
        ("--gib", "102"),
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
        ("--gib", "102"),
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
        ("--gib", "102"),
    ),
    "fleet": Benchmark(
        "bench_fleet.py",
        ("--count", "60"),
        (Row("fleet", "1/s", rf"{NUMBER} bundles/s", rf"pass takes {NUMBER} ms", "python -c pass, ms", ">= 25 /s"),),
        ("--count", "200"),
    ),
}


def number(pattern: str, output: str) -> float | None:
    found = re.search(pattern, output)
    return float(found[1].replace(",", "")) if found else None


def cells(row: Row, output: str) -> tuple[str, str, str]:
    """What was measured, its yardstick and their ratio; a yardstick that is not installed is missing."""
    measured, yardstick = number(row.measured, output), number(row.yardstick, output)
    if measured is None:
        return NOT_PRINTED, "", ""
    if not yardstick:
        return f"{measured:g}", "-", "-"
    return f"{measured:g}", f"{yardstick:g}", f"{measured / yardstick:.3g}"


def exponent(row: Row, tenth: str, whole: str) -> str:
    """The power of the size with which the cost of a row grows, from the output for a tenth of a size and for the size.

    What is measured is a cost, or with a unit "…/s" how much is done a second.
    """
    small, large = number(row.measured, tenth), number(row.measured, whole)
    if not small or not large:
        return ""
    return f"{math.log10(10 * small / large if row.unit.endswith('/s') else large / small):.2f}"


def run(benchmark: Benchmark, arguments: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HERE / benchmark.script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def line(cells: tuple[str, ...], *, markdown: bool) -> str:
    if markdown:
        return f"| {' | '.join(cells)} |"
    what, measured, unit, yardstick, beside, ratio, goal, growth = cells
    return f"{what:<40} {measured:>11} {unit:<5} {yardstick:>10}  {beside:<22} {ratio:>8}  {goal:<10} {growth:>8}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small inputs: does everything run?")
    parser.add_argument("--markdown", action="store_true", help="the table in Markdown")
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *BENCHMARKS], help=", ".join(BENCHMARKS))
    arguments = parser.parse_args()
    head = ("benchmark", "measured", "", "yardstick", "", "ratio", "goal", "exponent")
    print(line(head, markdown=arguments.markdown))
    if arguments.markdown:
        print(line(("---",) * len(head), markdown=True))
    failed = False
    for name in arguments.names or BENCHMARKS:
        benchmark = BENCHMARKS[name]
        begin = time.monotonic()
        whole = run(benchmark, benchmark.quick if arguments.quick else ())
        tenth = run(benchmark, benchmark.tenth) if benchmark.tenth and not arguments.quick else None
        wrong = [one for one in (whole, tenth) if one is not None and one.returncode != 0]
        failed |= bool(wrong)
        for row in benchmark.rows:
            measured, yardstick, ratio = cells(row, whole.stdout)
            failed |= measured == NOT_PRINTED
            growth = exponent(row, tenth.stdout, whole.stdout) if tenth is not None else ""
            shown = (row.what, measured, row.unit, yardstick, row.beside, ratio, row.goal, growth)
            print(line(shown, markdown=arguments.markdown), flush=True)
        print(f"{name}: {time.monotonic() - begin:.0f} s{''.join(f', FAILED: {one.stderr[-300:]}' for one in wrong)}",
              file=sys.stderr)  # fmt: skip
    sys.exit(failed)


if __name__ == "__main__":
    main()

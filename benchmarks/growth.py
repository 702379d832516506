"""How the cost of each benchmark grows: every row at one size and at ten times that size, and the exponent.

    python benchmarks/growth.py [NAME...]

An exponent of 1 is time in proportion to the size, 2 its square; below 1 a cost that does not depend on the size
weighs.  The sizes are in the table of benchmarks/run_all.py.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from collections.abc import Sequence

from run_all import BENCHMARKS, HERE, Row, number

TIMES = 10
"""How much larger the second size is."""


def exponent(row: Row, small: float, large: float) -> float:
    """The power of the size with which time grows, from what a row measured at a size and at `TIMES` that size.

    What is measured is a time, or with a unit "…/s" how much is done a second.
    """
    growth = TIMES * small / large if row.unit.endswith("/s") else large / small
    return math.log(growth, TIMES)


def outputs(script: str, sizes: Sequence[Sequence[str]]) -> list[str]:
    """What a benchmark prints at each size."""
    commands = [[sys.executable, str(HERE / script), *arguments] for arguments in sizes]
    return [subprocess.run(command, check=True, capture_output=True, text=True).stdout for command in commands]


def main() -> None:
    grown = [name for name, benchmark in BENCHMARKS.items() if benchmark.growth]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *grown], help=", ".join(grown))
    print(f"{'benchmark':<40} {'measured':>9} {f'{TIMES} times':>9} {'':<5} {'exponent':>8}")
    failed = False
    for name in parser.parse_args().names or grown:
        benchmark = BENCHMARKS[name]
        small, large = outputs(benchmark.script, benchmark.growth)
        for row in benchmark.rows:
            one, ten = number(row.measured, small), number(row.measured, large)
            shown = [f"{value:g}" if value else "-" for value in (one, ten)]
            power = f"{exponent(row, one, ten):.2f}" if one and ten else "-"
            failed |= power == "-"
            print(f"{row.what:<40} {shown[0]:>9} {shown[1]:>9} {row.unit:<5} {power:>8}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()

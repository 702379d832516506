"""Cold starts: ``ptaudit --help`` and the audit of a capture of normal size, beside ``python -c pass``.

    python benchmarks/bench_start.py [--runs 9]

Each is a separate process; the runs take turns, so that a busy machine slows all of them.  Wall time is what a
person waits for, CPU time what does not depend on the neighbours; of both the middle of the runs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

CAPTURE = Path(__file__).parents[1] / "fixtures" / "captures" / "pmem-6.12-vuln" / "02-one-removed"
MAIN = [sys.executable, "-P", "-c", "from analyzer.cli import main; main()"]
COMMANDS = {
    "python -c pass": [sys.executable, "-P", "-c", "pass"],
    "ptaudit --help": [*MAIN, "--help"],
    "ptaudit audit": [*MAIN, "audit", str(CAPTURE)],
    "  of its page tables, iomem, uname": [
        *MAIN,
        "audit",
        *(f"{CAPTURE}/{name}" for name in ("kernel_page_tables", "iomem", "uname")),
    ],
}


def cost(command: list[str]) -> tuple[float, float]:
    """Seconds of wall and of CPU time."""
    before, begin = os.times(), time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    wall, after = time.perf_counter() - begin, os.times()
    return wall, after.children_user + after.children_system - before.children_user - before.children_system


def middle(numbers: list[float]) -> float:
    return sorted(numbers)[len(numbers) // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9)
    runs = [{name: cost(command) for name, command in COMMANDS.items()} for _ in range(parser.parse_args().runs)]
    for name in COMMANDS:
        wall, processor = (1000 * middle([run[name][kind] for run in runs]) for kind in (0, 1))
        print(f"{name:<36} {wall:6.0f} ms   {processor:6.0f} ms CPU")


if __name__ == "__main__":
    main()

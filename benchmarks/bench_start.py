"""Cold starts: ``ptaudit --help`` and the audit of a capture of normal size, beside ``python -c pass``.

    python benchmarks/bench_start.py [--runs 9]

Each is a separate process; the runs take turns, so that a busy machine slows all of them.  Wall time is what a
person waits for, CPU time what does not depend on the neighbours; of both the middle of the runs.  Modules are compiled
beforehand, as an installation does.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CAPTURE = Path(__file__).parents[1] / "fixtures" / "captures" / "pmem-6.12-vuln" / "02-one-removed"
MAIN = [sys.executable, "-P", "-c", "from analyzer.cli import main; main()"]
COMMANDS = {
    "python -c pass": [sys.executable, "-P", "-c", "pass"],
    "ptaudit --help": [*MAIN, "--help"],
    "import ptaudit": [sys.executable, "-P", "-c", "import ptaudit"],
    "ptaudit audit": [*MAIN, "audit", str(CAPTURE)],
    "  of its page tables, iomem, uname": [
        *MAIN,
        "audit",
        *(f"{CAPTURE}/{name}" for name in ("kernel_page_tables", "iomem", "uname")),
    ],
}


def cost(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds of wall and of CPU time."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, env=environment)
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def middle(numbers: list[float]) -> float:
    return sorted(numbers)[len(numbers) // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9)
    nr_runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as compiled:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}
        _, *runs = [
            {name: cost(command, environment) for name, command in COMMANDS.items()} for _ in range(nr_runs + 1)
        ]
    for name in COMMANDS:
        wall, processor = (1000 * middle([run[name][kind] for run in runs]) for kind in (0, 1))
        print(f"{name:<36} {wall:6.0f} ms   {processor:6.0f} ms CPU")


if __name__ == "__main__":
    main()

"""A fleet of bundles: rate, cost of a bundle as it grows, memory of the coordinator, and interruption.

    python benchmarks/bench_fleet.py [--count 2000]

Audits generated bundles (make_bundles.py), and a tenth of them once as a whole and once killed with SIGKILL after a
third and interrupted with SIGINT after another; the results have to be the same bytes.  The yardstick is starting
``python -c pass``.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from make_bundles import make_bundles

from analyzer.fleet.local import Limits
from analyzer.fleet.run import run_fleet
from analyzer.fleet.summary import as_html, summarize

PART = 10
"""Of so many bundles one is audited with interruptions."""
COMPARED = ("bundles.parquet", "findings.parquet", "undecided.parquet", "summary.html")


@dataclass(frozen=True)
class Sample:
    """The coordinator after so many results."""

    results: int
    seconds: float
    mib: float


def yardstick() -> float:
    """Seconds of one ``python -c pass``, the middle of nine."""
    times = []
    for _ in range(9):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        times.append(time.perf_counter() - begin)
    return sorted(times)[4]


def coordinate(bundles: str, output: str, scheduler: str) -> None:
    """What ``ptaudit fleet`` does, printing its time and memory after every result."""
    begin, count = time.monotonic(), 0

    def after_each(*_: object) -> None:
        nonlocal count
        count += 1
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        print(count, f"{time.monotonic() - begin:.3f} {pages * os.sysconf('SC_PAGESIZE') / (1 << 20):.1f}", flush=True)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = Path(output)
    try:
        run_fleet(
            [bundles],
            folder,
            jobs=os.cpu_count() or 1,
            limits=Limits(60.0, 2 << 30),
            scheduler=scheduler or None,
            progress=after_each,
        )
    except KeyboardInterrupt:
        sys.exit(130)
    (folder / "summary.html").write_text(as_html(folder, summarize(folder)))


class Coordinator:
    """A run in its own process."""

    def __init__(self, bundles: Path, output: Path, scheduler: str = "") -> None:
        command = [sys.executable, __file__, "--coordinate", str(bundles), str(output), scheduler]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.samples: list[Sample] = []

    def watch(self, results: int | None = None) -> list[Sample]:
        """Until it ends, or has so many results."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            count, seconds, mib = line.split()
            self.samples.append(Sample(int(count), float(seconds), float(mib)))
            if results is not None and len(self.samples) >= results:
                return self.samples
        self.process.communicate()
        return self.samples

    def stop(self, how: signal.Signals) -> None:
        self.process.send_signal(how)
        self.process.communicate()


def digests(output: Path) -> dict[str, str]:
    return {name: hashlib.sha256((output / name).read_bytes()).hexdigest() for name in COMPARED}


def print_samples(samples: list[Sample]) -> None:
    """Cost of a bundle and memory of the coordinator, in tenths of the run."""
    print("   results   ms/bundle   coordinator")
    step = max(len(samples) // 10, 1)
    for before, after in zip(samples[::step], samples[step::step], strict=False):
        each = 1000 * (after.seconds - before.seconds) / (after.results - before.results)
        print(f"{after.results:10,}  {each:8.1f} ms  {after.mib:7.1f} MiB")


def main() -> None:
    if sys.argv[1:2] == ["--coordinate"]:
        coordinate(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    count = parser.parse_args().count
    with tempfile.TemporaryDirectory() as folder:
        make_bundles(Path(folder) / "bundles", count)
        make_bundles(Path(folder) / "some", count // PART)
        before = yardstick()
        samples = Coordinator(Path(folder) / "bundles", Path(folder) / "whole").watch()
        after = yardstick()
        print_samples(samples)
        rate = len(samples) / samples[-1].seconds
        print(f"{rate:8.1f} bundles/s on {os.cpu_count()} cores")
        print(f"yardstick: python -c pass takes {before * 1000:.0f} ms before, {after * 1000:.0f} ms after")
        same = goes_on(Path(folder) / "some", count // PART, Path(folder))
        print(f"after going on, the results are {'the same bytes' if same else 'DIFFERENT'}")
        sys.exit(not same)


def goes_on(bundles: Path, count: int, folder: Path) -> bool:
    """Whether a run that was killed and interrupted ends with the bytes of one that was not."""
    without, parts = folder / "without", folder / "parts"
    Coordinator(bundles, without).watch()
    for how in (signal.SIGKILL, signal.SIGINT):
        run = Coordinator(bundles, parts)
        run.watch(count // 3)
        run.stop(how)
        print(f"{how.name} after {count // 3} results")
    Coordinator(bundles, parts).watch()
    return digests(without) == digests(parts)


if __name__ == "__main__":
    main()

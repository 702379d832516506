"""Replay of a long trace: a million hotplug events, by CPU time, with yardsticks in the same run.

    python benchmarks/bench_replay.py [EVENTS]

The trace is a recorded cycle of a DIMM (add, online, offline, remove) again and again, each time at another of 64
places and a second later.  The yardsticks read the same file: `grep -c`, and one dictionary update an event in Python.
"""

from __future__ import annotations

import re
import resource
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench_ftrace import peak_mb, run, timed  # noqa: E402

from parsers import ftrace  # noqa: E402
from rules.model.replay.timeline import Timeline  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

CYCLE = ROOT / "fixtures" / "rules" / "TRC-01" / "quiet" / "trace"
PLACES = 64
_MOVED = re.compile(r"(start|end|pfn)=0x([0-9a-f]+)")
_TIME = re.compile(r"( +)(\d+)\.(\d{6}): ")
# Bytes that one place of 512 MiB takes among physical addresses, page frames and struct pages.
STEP = {"pa": 1 << 29, "pfn": 1 << 17, "vmemmap": 1 << 23}


def cycles(count: int) -> Iterator[str]:
    lines = [line for line in CYCLE.read_text().splitlines(keepends=True) if line.startswith("  ")]
    places = ["".join(_MOVED.sub(partial(_moved, place), line) for line in lines) for place in range(PLACES)]
    for number in range(count // len(lines)):
        yield _TIME.sub(partial(_later, number), places[number % PLACES])


def _later(number: int, match: re.Match[str]) -> str:
    return f"{match[1]}{int(match[2]) + 10 * number}.{match[3]}: "


def _moved(place: int, match: re.Match[str]) -> str:
    value = int(match[2], 16)
    unit = "vmemmap" if value >= 1 << 60 else "pfn" if match[1] == "pfn" else "pa"
    return f"{match[1]}={value + place * STEP[unit]:#x}"


def counted(path: Path) -> int:
    seen: dict[str, int] = {}
    with path.open() as stream:
        for line in stream:
            if line.startswith("#"):
                continue
            name = line.split(": ", 2)[1]
            seen[name] = seen.get(name, 0) + 1
    return len(seen)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace"
        with path.open("w") as stream:
            stream.write("# tracer: nop\n#\n")
            stream.writelines(cycles(count))
        megabytes = path.stat().st_size / 1e6
        seconds, trace = timed(lambda: ftrace.read(path))
        print(f"{len(trace)} events, {megabytes:.0f} MB")
        print(f"read                    {seconds:8.1f} s")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        seconds, timeline = timed(lambda: Timeline.replay(trace, None, None))
        print(f"replay                  {seconds:8.2f} s   {len(timeline.calls)} calls")
        print(f"  peak                  {peak_mb():8d} MB (read alone {before} MB)")
        print(f"  grep -c, one literal  {run('grep', '-c', 'online_pages', str(path)):8.1f} s")
        seconds, _ = timed(lambda: counted(path))
        print(f"  one dict update each  {seconds:8.2f} s")


if __name__ == "__main__":
    begin = time.perf_counter()
    main()
    print(f"all                     {time.perf_counter() - begin:8.1f} s")

"""Speed and memory of the page-table dump parser, beside a regular-expression loop and ``wc -l`` in the same run.

python benchmarks/bench_ptdump.py [--rows N]
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from parsers.arm64 import Attr, MemType
from parsers.mapping import Mapping, Marker
from parsers.ptdump import parse, render

ROW = re.compile(r"0x([0-9a-f]{16})-0x([0-9a-f]{16})\s+(\d+)([KMGTPE])(?:\s+(PGD|P4D|PUD|PMD|PTE)\b)?(.*)$")
PAGE, PMD = 4096, 2 << 20
NORMAL = Attr.PRESENT | Attr.VALID | Attr.PXN | Attr.SHARED | Attr.AF | Attr.UXN
KINDS = (
    (Attr(0), 3),
    (NORMAL, 3),
    (NORMAL | Attr.CONT, 3),
    (NORMAL | Attr.RDONLY, 3),
    (Attr(0), 2),
    (NORMAL | Attr.BLOCK, 2),
)


def dump_text(rows: int) -> bytes:
    """A fragmented linear map of ``rows`` rows: runs of pages and holes, now and then blocks."""
    random = np.random.default_rng(1)
    kind = random.integers(0, len(KINDS), rows)
    kind[1:][kind[1:] == kind[:-1]] = (kind[1:][kind[1:] == kind[:-1]] + 1) % len(KINDS)
    level = np.array([level for _, level in KINDS], np.int8)[kind]
    span = np.where(level == 3, PAGE, PMD)
    size = (span * random.integers(1, 64, rows)).astype(np.uint64)
    start = np.uint64(0xFFFF << 48) + np.concatenate([[np.uint64(0)], np.cumsum(size)[:-1]])
    attrs = np.array([attrs for attrs, _ in KINDS], np.uint16)[kind]
    markers = [Marker("Linear Mapping start", 0), Marker("Linear Mapping end", rows)]
    memtype = np.where(attrs == 0, 0, MemType.NORMAL_TAGGED).astype(np.uint8)
    nothing = start[:0]
    return render(
        Mapping(
            start=start,
            size=size,
            level=level,
            attrs=attrs,
            memtype=memtype,
            observed_start=nothing,
            observed_last=nothing,
            source="",
            markers=tuple(markers),
        ),
        va_bits=48,
        page_size=PAGE,
    )


def regex_loop(data: bytes) -> int:
    rows = []
    for line in data.decode().splitlines():
        if match := ROW.match(line):
            start, end, size, unit, level, attrs = match.groups()
            rows.append((int(start, 16), int(end, 16), int(size), unit, level, attrs.split()))
    return len(rows)


def best_of(repeats: int, work: Callable[[], object]) -> float:
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


def peak_memory(path: Path) -> int:
    """Peak memory, in bytes, of a process that does nothing but parse a file, less an idle one's."""
    # VmHWM and not ru_maxrss: the latter is handed down from the process that starts this one.
    script = (
        "import sys; from pathlib import Path; from parsers.ptdump import parse_file\n"
        "def peak():\n"
        "    return next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "idle = peak()\n"
        "parse_file(Path(sys.argv[1]), sys.argv[1])\n"
        "print(peak() - idle)\n"
    )
    root = Path(__file__).resolve().parent.parent
    run = subprocess.run([sys.executable, "-c", script, path], cwd=root, check=True, capture_output=True, text=True)
    return int(run.stdout) * 1024


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=1_000_000)
    rows = options.parse_args().rows
    data = dump_text(rows)
    dmesg = re.sub(rb"(?m)^", b"[   12.345678] ", data.rstrip(b"\n")) + b"\n"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel_page_tables"
        path.write_bytes(data)
        peak = peak_memory(path)
        print(f"{rows} rows, {len(data) / 1e6:.1f} MB; peak memory {peak / 1e6:.1f} MB, {peak / len(data):.2f} x that")
        table = (
            ("ptaudit", len(data), best_of(3, lambda: parse(data, ""))),
            ("ptaudit, as pasted into a dmesg", len(dmesg), best_of(3, lambda: parse(dmesg, ""))),
            ("regular expression, line by line", len(data), best_of(1, lambda: regex_loop(data))),
            (
                "wc -l",
                len(data),
                best_of(3, lambda: subprocess.run(["wc", "-l", path], check=True, capture_output=True)),
            ),
        )
    for name, size, seconds in table:
        print(f"{name:34} {size / 1e6 / seconds:8.1f} MB/s {seconds:8.3f} s")


if __name__ == "__main__":
    main()

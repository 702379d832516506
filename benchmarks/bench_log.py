"""Speed of the kernel-log parser on usual and hostile logs, beside ``grep -c`` in the same run.

python benchmarks/bench_log.py [--mb N]
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from parsers.dmesg import parse_dmesg

BANNER = b"[    0.000000] Linux version 6.12.1 (a@b) (gcc) #1 SMP\n"
USUAL = b"[%5d.234567] usb 1-1: new high-speed USB device number 2 using xhci_hcd, nothing about memory here\n"
FAILURE = b"[%5d.234567] Memory failure: 0x43344: recovery action for free buddy page: Recovered\n"
FAULT = b"[%5d.234567] Unable to handle kernel paging request at virtual address ffff000007c00000\n"
WARNING = b"[%5d.234567] WARNING: CPU: 0 PID: 1 at mm/memory.c:1234 do_anonymous_page+0x1/0x2\n"


def repeated(line: bytes, size: int, before: bytes = b"") -> bytes:
    """The line, numbered, until the log has that many bytes."""
    return BANNER + b"".join(before + line % (number % 100_000) for number in range(size // len(before + line)))


def best_of(repeats: int, work: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    """Seconds of CPU, which other work on the machine does not change much."""
    times = []
    for _ in range(repeats):
        begin = clock()
        work()
        times.append(clock() - begin)
    return min(times)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--mb", type=int, default=40)
    size = options.parse_args().mb * 1_000_000
    logs = {
        "usual": repeated(USUAL, size),
        "quoted": repeated(USUAL, size, b"> "),
        "syslog": repeated(USUAL, size, b"Nov 21 08:00:00 host kernel: "),
        "only memory failures": repeated(FAILURE, size),
        "only faults": repeated(FAULT, size),
        "only warnings": repeated(WARNING, size),
        "empty lines": BANNER + b"\n" * size,
    }
    for name, log in logs.items():
        seconds = best_of(3, lambda log=log: parse_dmesg(log, "log"))  # type: ignore[misc]
        print(f"ptaudit, {name:22} {len(log) / 1e6 / seconds:8.1f} MB/s {seconds:8.3f} s")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dmesg"
        path.write_bytes(logs["usual"])
        command = ["grep", "-c", "Unable to handle kernel", path]
        seconds = best_of(3, lambda: subprocess.run(command, check=False, capture_output=True), time.perf_counter)
        print(f"{'grep -c, one literal':31} {len(logs['usual']) / 1e6 / seconds:8.1f} MB/s {seconds:8.3f} s")


if __name__ == "__main__":
    main()

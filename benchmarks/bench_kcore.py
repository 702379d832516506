"""Reading a generated /proc/kcore of a host with 1 TiB of RAM, mapped by pages: 2 GiB of tables at offsets of 2**48.

    python benchmarks/bench_kcore.py [--gib 1024] [--directory /dev/shm]

Prints the time and the peak resident size of the walk in a process of its own, and the time of the second reading that
shows whether memory changed meanwhile.  The directory has to be on a file system with sparse files of 2**49 bytes.
"""

from __future__ import annotations

import argparse
import os
import resource
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.bench_walk import INFO, ROOT, LinearMap
from parsers.vmcore.addresses import AddressMap
from parsers.vmcore.memory import UNIT
from parsers.vmcore.opening import open_dump
from parsers.vmcore.pagetable import walk_page_tables

FAR = 1 << 48
LINEAR = 0xFFFF_0000_0000_0000
NOWHERE = (1 << 64) - 1
STEP = 4096


def write_kcore(path: Path, source: LinearMap) -> None:
    """One run of RAM that holds the tables, and vmalloc without a physical address."""
    size = (source.end - ROOT // UNIT) * UNIT
    info = struct.pack("<III", 11, len(INFO), 0) + b"VMCOREINFO\0\0" + INFO + bytes(-len(INFO) % 4)
    loads = [(FAR + ROOT, LINEAR + ROOT, ROOT, size), (FAR - UNIT, 0xFFFF_8000_8000_0000, NOWHERE, UNIT)]
    ident, at = b"\x7fELF\x02\x01\x01" + bytes(9), 64 + 56 * 3
    head = struct.pack("<16sHHIQQQIHHHHHH", ident, 4, 183, 1, 0, 64, 0, 0, 64, 56, 3, 0, 0, 0)
    head += struct.pack("<IIQQQQQQ", 4, 0, at, 0, 0, len(info), 0, 0)
    for offset, va, pa, length in loads:
        head += struct.pack("<IIQQQQQQ", 1, 7, offset, va, pa, length, length, UNIT)
    with path.open("wb") as file:
        file.write(head + info)
        units = source.units
        for first in range(0, units.size, STEP):
            data, _ = source.read_units(units[first : first + STEP])
            os.pwrite(file.fileno(), data.tobytes(), FAR + int(units[first]) * UNIT)


def walk_only(core: Path) -> None:
    raw = open_dump(core)
    addresses = AddressMap.from_vmcoreinfo(raw.vmcoreinfo)
    times = []
    none = np.empty(0, dtype=np.uint64)
    for pages_of in (None, (none, none)):
        start = time.perf_counter()
        walk = walk_page_tables(raw.memory, addresses, source="kcore", pages_of=pages_of)
        times.append(time.perf_counter() - start)
        rows = len(walk.mapping)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(f"{times[0]:.2f} {times[1]:.2f} {used.ru_utime + used.ru_stime:.2f} {used.ru_maxrss >> 10} {rows}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=int, default=1024)
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--walk-only", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.walk_only:
        walk_only(options.walk_only)
        return
    source = LinearMap(options.gib)
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        core = Path(directory) / "kcore"
        write_kcore(core, source)
        command = [sys.executable, "-m", "benchmarks.bench_kcore", "--walk-only", str(core)]
        first, second, processor, peak, _ = subprocess.run(
            command, check=True, capture_output=True, text=True
        ).stdout.split()
    print(f"{options.gib} GiB: walk {first} s, second reading {second} s, {processor} s of CPU time, peak {peak} MiB")


if __name__ == "__main__":
    main()

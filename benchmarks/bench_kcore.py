"""Reading a generated /proc/kcore of a host with 1 TiB of RAM, mapped by pages: 2 GiB of tables at offsets of 2**48.

    python benchmarks/bench_kcore.py [--gib 1024] [--directory /dev/shm]

Prints the time and the peak resident size of the walk in its own process, the time of the second reading that
shows whether memory changed meanwhile, and the time of a plain reading of the same pages, and of one that also compares
each entry with the one before it.  The directory has to be on
a file system with sparse files of 2**49 bytes.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from linear_map import ROOT, LinearMap, compared_reading, figures_of, peak_mib, plain_reading, write_elf

from parsers.vmcore.addresses import AddressMap
from parsers.vmcore.memory import UNIT
from parsers.vmcore.opening import open_dump
from parsers.vmcore.pagetable import walk_page_tables


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
    print(f"{times[0]:.3f} {times[1]:.3f} {used.ru_utime + used.ru_stime:.2f} {peak_mib()} {rows}")


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
        offset = write_elf(core, source, kcore=True)
        size = (source.end - ROOT // UNIT) * UNIT
        plain, compared = plain_reading(core, offset, size), compared_reading(core, offset, size)
        first, second, processor, peak, _ = figures_of(__file__, core)
    print(f"{options.gib} GiB: walk {first} s, second reading {second} s, {processor} s of CPU time, peak {peak} MiB")
    print(f"plain reading {plain:.3f} s of the same pages; the walk takes {float(first) / plain:.2f} times as long")
    print(f"reading and comparing with all processors: {compared:.3f} s")


if __name__ == "__main__":
    main()

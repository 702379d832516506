"""The page-table walk beside drgn's reads: a 1 TiB linear map of 4 KiB pages, 268 million PTEs, in a generated core.

    python benchmarks/bench_walk.py [--gib 1024] [--directory /var/tmp]

Prints, from one run: PTEs decoded a second from memory, the time of the whole walk of the core, the time that
drgn's Program.read takes for the same table pages, the time of a plain reading of them and of one that also compares
each entry with the one before it, drgn's entry-by-entry rate, and the peak resident size of the walk in its own
process.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import drgn
import numpy as np
from linear_map import (
    ENTRIES,
    INFO,
    ROOT,
    LinearMap,
    compared_reading,
    figures_of,
    peak_mib,
    plain_reading,
    write_elf,
)

from parsers.mapping import U8, U64, Bool
from parsers.vmcore.addresses import AddressMap
from parsers.vmcore.memory import UNIT, PhysicalMemory
from parsers.vmcore.opening import open_dump
from parsers.vmcore.pagetable import Walk, walk_page_tables
from parsers.vmcoreinfo import parse_vmcoreinfo


class Stored(PhysicalMemory):
    """The same tables, held in memory."""

    def __init__(self, source: LinearMap) -> None:
        self.extents_of = source.extents
        self.data, _ = source.read_units(source.units)

    @property
    def extents(self) -> tuple[U64, U64]:
        return self.extents_of

    def read_units(self, units: U64) -> tuple[U8, Bool]:
        index = units.astype(np.int64) - ROOT // UNIT
        present = (index >= 0) & (index < len(self.data))
        return self.data[np.where(present, index, 0)], present


def timed_walk(memory: PhysicalMemory, addresses: AddressMap) -> tuple[float, Walk]:
    start = time.perf_counter()
    walk = walk_page_tables(memory, addresses, source="generated")
    return time.perf_counter() - start, walk


def walk_only(core: Path) -> None:
    raw = open_dump(core)
    seconds, walk = timed_walk(raw.memory, AddressMap.from_vmcoreinfo(raw.vmcoreinfo))
    print(f"{seconds} {len(walk.mapping)} {peak_mib()}")


def program_reads(core: Path, pages: U64) -> tuple[float, float]:
    """Seconds to read all table pages with Program.read, and entries a second of its per-entry reads."""
    program = drgn.Program()
    program.set_core_dump(core)
    addresses = pages.tolist()
    start = time.perf_counter()
    for address in addresses:
        program.read(address, UNIT, True)
    whole = time.perf_counter() - start
    some = [address + 8 * entry for address in addresses[-1000:] for entry in range(ENTRIES)]
    start = time.perf_counter()
    for address in some:
        program.read_u64(address, True)
    return whole, len(some) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=int, default=1024)
    parser.add_argument("--directory", type=Path, default=None)
    parser.add_argument("--walk-only", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.walk_only:
        walk_only(options.walk_only)
        return
    part = Stored(LinearMap(min(options.gib, 64)))
    seconds, walk = timed_walk(part, AddressMap.from_vmcoreinfo(parse_vmcoreinfo(INFO, "generated")))
    ptes = int(walk.mapping.tables.used[walk.mapping.tables.level == 3].sum())
    print(f"decode from memory: {ptes / 1e6:.0f} M PTEs in {seconds:.3f} s, {ptes / seconds / 1e6:.0f} M PTEs/s")
    del part, walk
    source = LinearMap(options.gib)
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        core = Path(directory) / "linear-map.core"
        offset = write_elf(core, source)
        size = (source.end - ROOT // UNIT) * UNIT
        print(f"core: {size >> 20} MiB, {source.nr_pte * ENTRIES / 1e6:.0f} M PTEs")
        plain = plain_reading(core, offset, size)
        compared = compared_reading(core, offset, size)
        reads, rate = program_reads(core, source.units * np.uint64(UNIT))
        output = figures_of(__file__, core)
        seconds = float(output[0])
    print(f"walk of the core: {seconds:.2f} s, {output[1]} rows, peak {output[2]} MiB")
    print(f"plain reading of the same pages: {plain:.2f} s; the walk takes {seconds / plain:.2f} times as long")
    print(f"reading and comparing with all processors: {compared:.2f} s; the walk takes {seconds / compared:.2f} times")
    print(f"Program.read of the same pages: {reads:.2f} s; the walk takes {seconds / reads:.2f} times as long")
    print(f"drgn entry by entry: {rate / 1e6:.2f} M/s; all entries would take {source.nr_pte * ENTRIES / rate:.0f} s")


if __name__ == "__main__":
    main()

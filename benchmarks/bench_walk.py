"""The page-table walk beside drgn's reads: a 1 TiB linear map of 4 KiB pages, 268 million PTEs, in a generated core.

    python benchmarks/bench_walk.py [--gib 1024] [--directory /var/tmp]

Prints, from one run: PTEs decoded a second from memory, the time of the whole walk of the core, the time that
drgn's Program.read takes for the same table pages, drgn's entry-by-entry rate, and the peak resident size of the
walk in a process of its own.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import drgn
import numpy as np

from parsers.mapping import U8, U64, Bool
from parsers.vmcore.addresses import AddressMap
from parsers.vmcore.distilled import write_core
from parsers.vmcore.memory import UNIT, PhysicalMemory
from parsers.vmcore.opening import open_dump
from parsers.vmcore.pagetable import Walk, walk_page_tables
from parsers.vmcoreinfo import parse_vmcoreinfo

ROOT = 0x40000000  # page tables: root, PUDs, PMDs, PTEs, one after another
RAM = 0x80_0000_0000
LEAF, TABLE = 0x0068_0000_0000_0707, 0x3
ENTRIES = 512
INFO = b"""OSRELEASE=6.12.0
PAGESIZE=4096
SYMBOL(swapper_pg_dir)=ffff800080000000
SYMBOL(_stext)=ffff800080000000
NUMBER(VA_BITS)=48
NUMBER(kimage_voffset)=0xffff800040000000
NUMBER(PHYS_OFFSET)=0x0
NUMBER(TCR_EL1_T1SZ)=0x10
"""


class LinearMap(PhysicalMemory):
    """Tables that map ``gib`` GiB of pages, computed as they are read."""

    def __init__(self, gib: int) -> None:
        self.nr_pte, self.nr_pmd, self.nr_pud = gib * ENTRIES, gib, -(-gib // ENTRIES)
        self.pud = ROOT // UNIT + 1
        self.pmd = self.pud + self.nr_pud
        self.pte = self.pmd + self.nr_pmd
        self.end = self.pte + self.nr_pte

    @property
    def extents(self) -> tuple[U64, U64]:
        return np.array([ROOT], np.uint64), np.array([self.end * UNIT], np.uint64)

    @property
    def units(self) -> U64:
        return np.arange(ROOT // UNIT, self.end, dtype=np.uint64)

    def read_units(self, units: U64) -> tuple[U8, Bool]:
        index = np.arange(ENTRIES, dtype=np.uint64)
        entries = np.zeros((units.size, ENTRIES), np.uint64)
        levels = ((self.pte, self.nr_pte, RAM // UNIT, LEAF), (self.pmd, self.nr_pmd, self.pte, TABLE))
        levels += ((self.pud, self.nr_pud, self.pmd, TABLE), (ROOT // UNIT, 1, self.pud, TABLE))
        below = (self.nr_pte * ENTRIES, self.nr_pte, self.nr_pmd, self.nr_pud)
        for (first, count, target, bits), targets in zip(levels, below, strict=True):
            rows = np.flatnonzero((units >= first) & (units < first + count))
            number = (units[rows] - np.uint64(first))[:, None] * np.uint64(ENTRIES) + index
            entry = (np.uint64(target) + number) * np.uint64(UNIT) | np.uint64(bits)
            entries[rows] = np.where(number < targets, entry, 0)
        return entries.view(np.uint8), (units >= ROOT // UNIT) & (units < self.end)


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
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{seconds} {len(walk.mapping)} {peak}")


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
        size = write_core(core, source, source.units, INFO)
        print(f"core: {size >> 20} MiB, {source.nr_pte * ENTRIES / 1e6:.0f} M PTEs")
        reads, rate = program_reads(core, source.units * np.uint64(UNIT))
        command = [sys.executable, __file__, "--walk-only", str(core)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        seconds = float(output[0])
    print(f"walk of the core: {seconds:.2f} s, {output[1]} rows, peak {output[2]} MiB")
    print(f"Program.read of the same pages: {reads:.2f} s; the walk takes {seconds / reads:.2f} times as long")
    print(f"drgn entry by entry: {rate / 1e6:.2f} M/s; all entries would take {source.nr_pte * ENTRIES / rate:.0f} s")


if __name__ == "__main__":
    main()

"""Page tables of a linear map that is made of pages, as large as wanted, and files that hold them as dumps do."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import cramjam
import lzallright
import numpy as np
import zstandard

from parsers.mapping import U8, U64, Bool
from parsers.vmcore.memory import UNIT, PhysicalMemory

ROOT = 0x40000000  # page tables: root, PUDs, PMDs, PTEs, one after another
RAM = 0x80_0000_0000
LEAF, TABLE = 0x0068_0000_0000_0707, 0x3
ENTRIES = 512
FAR = 1 << 48
LINEAR = 0xFFFF_0000_0000_0000
NOWHERE = (1 << 64) - 1
STEP = 4096
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


def write_elf(path: Path, source: LinearMap, *, kcore: bool = False) -> int:
    """An ELF core of the tables as they are, or what /proc/kcore would be; returns where the tables begin in it.

    /proc/kcore has one run of RAM, at an offset of 2**48, and vmalloc without a physical address.
    """
    size = (source.end - ROOT // UNIT) * UNIT
    info = struct.pack("<III", 11, len(INFO), 0) + b"VMCOREINFO\0\0" + INFO + bytes(-len(INFO) % 4)
    offset = FAR + ROOT if kcore else UNIT
    loads = [(offset, LINEAR + ROOT, ROOT, size)]
    if kcore:
        loads.append((FAR - UNIT, 0xFFFF_8000_8000_0000, NOWHERE, UNIT))
    ident, at = b"\x7fELF\x02\x01\x01" + bytes(9), 64 + 56 * (1 + len(loads))
    head = struct.pack("<16sHHIQQQIHHHHHH", ident, 4, 183, 1, 0, 64, 0, 0, 64, 56, 1 + len(loads), 0, 0, 0)
    head += struct.pack("<IIQQQQQQ", 4, 0, at, 0, 0, len(info), 0, 0)
    for start, va, pa, length in loads:
        head += struct.pack("<IIQQQQQQ", 1, 7, start, va, pa, length, length, UNIT)
    with path.open("wb") as file:
        file.write(head + info)
        file.flush()
        units = source.units
        for first in range(0, units.size, STEP):
            data, _ = source.read_units(units[first : first + STEP])
            os.pwrite(file.fileno(), data.tobytes(), offset + first * UNIT)
    return offset


PACKERS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "zlib": (1, lambda page: zlib.compress(page, 1)),
    "lzo": (2, lambda page: lzallright.LZOCompressor().compress(page)),
    "snappy": (4, lambda page: bytes(cramjam.snappy.compress_raw(page))),
    "zstd": (0x20, zstandard.ZstdCompressor().compress),
}
"""Compressions of makedumpfile: the flag of a page, and what packs one as makedumpfile does."""


def write_kdump(path: Path, source: LinearMap, codec: str) -> U64:
    """A kdump of the tables, as makedumpfile writes it; returns offsets and sizes of the pages in it, ``(n, 2)``."""
    first, end = ROOT // UNIT, source.end
    half = -(-end // (8 * UNIT))
    bits = np.zeros(half * 8 * UNIT, np.uint8)
    bits[first:end] = 1
    bitmap = np.packbits(bits, bitorder="little").tobytes()
    utsname = b"".join(text.ljust(65, b"\0") for text in (b"Linux", b"vm", b"6.12", b"#1", b"aarch64", b"(none)"))
    head = b"KDUMP   " + struct.pack("<i", 6) + utsname + bytes(22)
    head += struct.pack("<IiiIIIIIIi", 1, UNIT, 1, 2 * half, end, 0, 0, 0, 0, 1)
    sub = struct.pack("<QiiQQQQQQQQQQQ", 0, 0, 0, 0, 0, UNIT + 200, len(INFO), 0, 0, 0, 0, 0, 0, end)
    top = (head.ljust(UNIT, b"\0") + sub.ljust(200, b"\0") + INFO).ljust(2 * UNIT, b"\0") + bitmap + bitmap
    flag, pack = PACKERS[codec]
    places = np.zeros((end - first, 2), np.uint64)
    at = len(top) + 24 * (end - first)
    with path.open("wb") as file:
        file.write(top)
        file.seek(at)
        for begin in range(0, end - first, STEP):
            pages, _ = source.read_units(source.units[begin : begin + STEP])
            for number, page in enumerate(pages, begin):
                packed = pack(page.tobytes())
                places[number] = at, len(packed)
                at += file.write(packed)
        file.seek(len(top))
        rows = zip(places[:, 0].tolist(), places[:, 1].tolist(), strict=True)
        file.write(b"".join(struct.pack("<QIIQ", offset, size, flag, 0) for offset, size in rows))
    return places


def plain_reading(path: Path, offset: int, size: int) -> float:
    """Seconds to read bytes of a file, one MiB after the other into the same buffer."""
    buffer = memoryview(bytearray(1 << 20))
    start = time.perf_counter()
    with path.open("rb") as file:
        for at in range(offset, offset + size, len(buffer)):
            os.preadv(file.fileno(), [buffer], at)
    return time.perf_counter() - start


def compared_reading(path: Path, offset: int, size: int) -> float:
    """Seconds to read the same and compare every word with the one before it, with all processors: nothing else."""
    block = 1 << 20
    starts = range(offset, offset + size, block)

    def share(first: int) -> None:
        words, steps, differs = (
            np.empty(block // 8, "<u8"),
            np.empty(block // 8 - 1, "<u8"),
            np.empty(block // 8 - 1, "?"),
        )
        with path.open("rb") as file:
            for at in starts[first :: len(threads)]:
                os.preadv(file.fileno(), [words.data.cast("B")], at)
                np.subtract(words[1:], words[:-1], out=steps)
                np.not_equal(steps, UNIT, out=differs)

    threads = [threading.Thread(target=share, args=(first,)) for first in range(len(os.sched_getaffinity(0)))]
    start = time.perf_counter()
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return time.perf_counter() - start


def figures_of(script: str, dump: Path) -> list[str]:
    """What ``script --walk-only dump`` prints: in its own process, whose peak memory is that of the walk."""
    command = [sys.executable, script, "--walk-only", str(dump)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def peak_mib() -> int:
    """The most memory that this process has had; ru_maxrss would count what its parent had when it forked."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) >> 10

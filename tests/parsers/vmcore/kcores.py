"""Files that are shaped as /proc/kcore: offsets near 2**48, RAM at linear addresses, zeros for what is not read."""

from __future__ import annotations

import os
import struct
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from parsers.vmcore.memory import PhysicalMemory, page_runs

MASK = (1 << 64) - 1
FAR = 1 << 48
ROOM = Path("/dev/shm")
"""A file system on which a sparse file may be that long: ext4 ends at 2**44."""


@contextmanager
def room_for_kcore():
    """A directory that such a file fits into; the test is skipped where there is none."""
    try:
        with tempfile.TemporaryDirectory(dir=ROOM) as directory, (Path(directory) / "x").open("wb") as stream:
            stream.truncate(FAR << 1)
    except OSError:
        pytest.skip(f"no sparse file of 2**49 bytes in {ROOM}")
    with tempfile.TemporaryDirectory(dir=ROOM) as directory:
        yield Path(directory)


class WithStructPages(PhysicalMemory):
    """Another memory, and the struct pages of its pages of zeros: in use, so that the kernel reads such a page."""

    def __init__(self, memory, facts):
        self.memory, self.pages = memory, {}
        page_size, size = facts.addresses.granule.page_size, facts.vmcoreinfo.size("page")
        flags_at, count_at = (facts.vmcoreinfo.offset(f"page.{name}") for name in ("flags", "_mapcount"))
        numbers = facts.sections.section_nr.tolist()
        for start, end in zip(*memory.extents, strict=True):
            units = np.arange(int(start) // 4096, int(end) // 4096, dtype=np.uint64)
            data, _ = memory.read_units(units)
            for unit in units[~data.any(axis=1)].tolist():
                pfn = unit * 4096 // page_size
                section = pfn * page_size >> facts.sections.section_size_bits
                if section not in numbers:
                    continue
                memmap = int(facts.sections.section_mem_map[numbers.index(section)]) & ~63
                at = facts.explain(memmap + pfn * size)[-1].output
                if at is not None and not memory.read_units(np.array([at // 4096], np.uint64))[1][0]:
                    page = self.page(at // 4096)
                    page[at % 4096 + flags_at : at % 4096 + flags_at + 8] = struct.pack("<Q", 1 << 12)
                    page[at % 4096 + count_at : at % 4096 + count_at + 4] = b"\xff\xff\xff\xff"

    def page(self, unit):
        if unit not in self.pages:
            data, _ = self.memory.read_units(np.array([unit], np.uint64))
            self.pages[unit] = bytearray(data.tobytes())
        return self.pages[unit]

    @property
    def extents(self):
        starts, ends = self.memory.extents
        units = [np.arange(int(a) // 4096, int(b) // 4096) for a, b in zip(starts, ends, strict=True)]
        first, count = page_runs(
            np.unique(np.concatenate([*units, np.array(sorted(self.pages), int)])).astype(np.uint64)
        )
        return first * np.uint64(4096), (first + count) * np.uint64(4096)

    def read_units(self, units):
        data, present = self.memory.read_units(units)
        for row in np.flatnonzero(np.isin(units, np.array(sorted(self.pages), np.uint64))).tolist():
            data[row] = np.frombuffer(self.pages[int(units[row])], np.uint8)
            present[row] = True
        return data, present


def write_kcore(path, memory, info, addresses, *, old=False, hidden=False):
    """The memory of a dump as /proc/kcore would show it.

    ``old``: as before 4.19, without physical addresses.  ``hidden``: the linear map lacks the kernel image, of which
    since 7.2 this is so of data and bss.
    """
    starts, ends = memory.extents
    loads = [(addresses.swapper_pg_dir & -4096, addresses.root_pa & -4096, 4096)]  # the image
    if hidden:
        first = addresses.image_start & -4096
        loads = [(first, first - addresses.kimage_voffset & MASK, (addresses.image_end - first) & -4096)]
        low, high = loads[0][1] - 4096, loads[0][1] + loads[0][2] + 4096
        apart = (starts >= high) | (ends <= low)  # one run of RAM holds the image, and more
        low, high = min(low, *starts[~apart].tolist()), max(high, *ends[~apart].tolist())
        starts, ends = np.append(starts[apart], np.uint64(low)), np.append(ends[apart], np.uint64(high))
    loads.append((0xFFFFFDFF00000000, MASK, 4096))  # vmalloc: no physical address
    linear = [(int(pa) - addresses.phys_offset + addresses.page_offset & MASK, int(pa), int(end - pa))
              for pa, end in zip(starts, ends, strict=True)]  # fmt: skip
    loads += linear
    name = b"VMCOREINFO\0\0"
    note = struct.pack("<III", 11, len(info), 0) + name + info + bytes(-len(info) % 4)
    base = addresses.page_offset
    with path.open("wb") as stream:
        count = 1 + len(loads)
        at = 64 + 56 * count
        ident = b"\x7fELF\x02\x01\x01" + bytes(9)
        stream.write(struct.pack("<16sHHIQQQIHHHHHH", ident, 4, 183, 1, 0, 64, 0, 0, 64, 56, count, 0, 0, 0))
        stream.write(struct.pack("<IIQQQQQQ", 4, 0, at, 0, 0, len(note), 0, 0))
        for va, pa, size in loads:
            offset = FAR + (va - base & MASK) % (1 << 47)
            stream.write(struct.pack("<IIQQQQQQ", 1, 7, offset, va, 0 if old else pa, size, size, 4096))
        stream.write(note)
        for va, pa, size in [loads[0], *linear]:
            units = np.arange(pa // 4096, (pa + size) // 4096, dtype=np.uint64)
            data, _ = memory.read_units(units)
            if hidden and (va, pa) != loads[0][:2]:
                data[np.isin(units, np.arange(loads[0][1] // 4096, (loads[0][1] + loads[0][2]) // 4096))] = 0
            os.pwrite(stream.fileno(), data.tobytes(), FAR + (va - base & MASK) % (1 << 47))
    return path

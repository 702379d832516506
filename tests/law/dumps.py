"""Crash dumps with parts taken away: kinds of pages that a filter left out, a file full of holes, one cut short."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import PTE
from parsers.vmcore.blocks import read_blocks
from parsers.vmcore.distilled import write_core
from parsers.vmcore.dump import Dump
from parsers.vmcore.hugetlb import read_hugetlb
from parsers.vmcore.memory import UNIT, PhysicalMemory, RecordingMemory
from parsers.vmcore.opening import open_dump
from parsers.vmcore.pagetable import walk_page_tables
from parsers.vmcore.resources import read_iomem
from parsers.vmcore.sparsemem import read_sections
from parsers.vmcore.struct_pages import read_struct_pages
from parsers.vmcore.texts import Texts
from parsers.vmcore.zones import read_zones
from tests.parsers.vmcore.cores import kdump

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from parsers.mapping import U8, U64, Bool
    from parsers.vmcore.opening import RawDump

__all__ = ["damaged_dumps"]

GROUPS = 8


class _Zeroed(PhysicalMemory):
    """Another memory in which some pages read as zeros, as they do where a file has holes."""

    def __init__(self, memory: PhysicalMemory, units: U64) -> None:
        self.memory, self.zeroed = memory, units

    @property
    def extents(self) -> tuple[U64, U64]:
        return self.memory.extents

    def read_units(self, units: U64) -> tuple[U8, Bool]:
        data, present = self.memory.read_units(units)
        data[np.isin(units, self.zeroed)] = 0
        return data, present


def damaged_dumps(path: Path) -> Iterator[tuple[str, bytes]]:
    """What was done to the dump, and the bytes that are left; nothing for one that cannot be opened."""
    raw = open_dump(path)
    starts, ends = (bound // np.uint64(UNIT) for bound in raw.memory.extents)
    units = np.concatenate([np.arange(lo, hi, dtype=np.uint64) for lo, hi in zip(starts, ends, strict=True)])
    if units.size > 1 << 17:
        return  # of a whole machine: distil it first
    parts = [*_kinds(raw), *_tables(raw), *_places(units)]
    for name, gone in parts:
        left = np.setdiff1d(units, gone)
        if 0 < left.size < units.size:
            yield f"{name} excluded", _core(raw.memory, left, raw)
            yield f"{name} zeroed", _core(_Zeroed(raw.memory, gone), units, raw)
    for name, gone in parts[:2]:
        left = np.setdiff1d(units, gone)
        if left.size:
            small = {"machine": "aarch64", "block_size": UNIT}
            yield f"kdump, {name} excluded", kdump(raw.memory, left, raw.vmcoreinfo_bytes, **small)
    for name, info in _of_other_boots(raw.vmcoreinfo_bytes):
        yield name, _core(raw.memory, units, replace(raw, vmcoreinfo_bytes=info))
    whole = _core(raw.memory, units, raw)
    for percent in (25, 50, 75, 95):
        yield f"the core cut at {percent} %", whole[: len(whole) * percent // 100]


def _core(memory: PhysicalMemory, units: U64, raw: RawDump) -> bytes:
    with tempfile.TemporaryDirectory(prefix="law-") as folder:
        path = Path(folder) / "core"
        write_core(path, memory, units, raw.vmcoreinfo_bytes)
        return path.read_bytes()


def _of_other_boots(info: bytes) -> Iterator[tuple[str, bytes]]:
    """VMCOREINFO of the same kernel with another base of the image, or of the linear map."""
    for key, size in (("kimage_voffset", 2 << 20), ("PHYS_OFFSET", 1 << 30)):
        before, name, rest = info.partition(f"NUMBER({key})=".encode())
        value, _, after = rest.partition(b"\n")
        moved = (int(value, 16) + size) % 2**64
        yield f"{key} of another boot", b"%b%b%#x\n%b" % (before, name, moved, after)


def _kinds(raw: RawDump) -> Iterator[tuple[str, U64]]:
    """Pages by what they hold, without those that every reader needs: symbols and types."""
    readers: dict[str, Callable[[Dump], object]] = {
        "page tables": lambda dump: walk_page_tables(dump.memory, dump.addresses, source=dump.path),
        "section table": read_sections,
        "memory blocks": read_blocks,
        "zones": read_zones,
        "huge page pools": read_hugetlb,
        "resources": read_iomem,
        "texts": lambda dump: Texts.of(dump, raw.vmcoreinfo.osrelease, with_dmesg=True),
        "struct pages": _read_struct_pages,
    }
    shared = _read_by(raw, lambda _: None)
    yield "symbols and types", shared
    seen = shared
    for name, read in readers.items():
        found = np.setdiff1d(_read_by(raw, read), seen)
        seen = np.union1d(seen, found)
        if found.size:
            yield name, found


def _tables(raw: RawDump) -> Iterator[tuple[str, U64]]:
    """Table pages of the linear map and of the struct pages, level by level, one of them, and subsection maps."""
    dump = Dump(raw)
    tables = walk_page_tables(dump.memory, dump.addresses, source=dump.path).mapping.tables
    assert tables is not None
    page, root = dump.addresses.granule.page_size, dump.addresses.granule.first_level(dump.addresses.va_bits)
    mine = dump.addresses.of_memory(tables.va, tables.va)
    for level in range(root, PTE + 1):
        yield f"tables of level {level}", _units(tables.pa[(tables.level == level) & (mine | (level == root))], page)
    yield "the last table", _units(tables.pa[mine][-1:], page)
    sections = dump.attempt("section table", lambda: read_sections(dump))
    if sections is not None:
        pa, known = dump.physical(sections.usage)
        yield "subsection maps", np.unique(pa[known]) // np.uint64(UNIT)


def _units(pages: U64, page_size: int) -> U64:
    """Page frames of 4096 bytes of pages."""
    first = np.unique(pages) // np.uint64(UNIT)
    return np.asarray((first[:, None] + np.arange(page_size // UNIT, dtype=np.uint64)).ravel())


def _read_struct_pages(dump: Dump) -> object:
    walk = walk_page_tables(dump.memory, dump.addresses, source=dump.path)
    return read_struct_pages(dump, dump.attempt("section table", lambda: read_sections(dump)), walk)


def _read_by(raw: RawDump, read: Callable[[Dump], object]) -> U64:
    memory = RecordingMemory(raw.memory)
    dump = Dump(raw, memory=memory)
    dump.attempt("what is read", lambda: read(dump))
    return memory.units


def _places(units: U64) -> Iterator[tuple[str, U64]]:
    for number, part in enumerate(np.array_split(units, GROUPS)):
        yield f"pages {number + 1}/{GROUPS}", part
    for step in (2, 5):
        yield f"every page of {step}", units[::step]
    for odd, name in enumerate(("even", "odd")):
        yield f"{name} pages", units[units % 2 == odd]  # parts of pages of 16K and 64K
    for number in range(3):
        yield f"holes of 64 KiB, {number + 1}/3", units[np.arange(units.size) // 16 % 3 == number]

"""Synthetic memory for the tests: page tables of any geometry, patched pages, kdumps."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

import cramjam
import lzallright
import numpy as np
import zstandard

from parsers.vmcore.addresses import AddressMap
from parsers.vmcore.memory import UNIT, PhysicalMemory
from parsers.vmcoreinfo import parse_vmcoreinfo

MASK = (1 << 64) - 1


class PatchedMemory(PhysicalMemory):
    """Another memory with some bytes changed, and some pages gone."""

    def __init__(self, memory, patches=(), missing=()):
        self.memory, self.patches, self.missing = memory, dict(patches), set(missing)

    @property
    def extents(self):
        return self.memory.extents

    def read_units(self, units):
        data, present = self.memory.read_units(units)
        for pa, value in self.patches.items():
            for row in np.flatnonzero(units == pa // UNIT):
                data[row, pa % UNIT : pa % UNIT + len(value)] = np.frombuffer(value, np.uint8)
        present &= ~np.isin(units * np.uint64(UNIT), np.array(sorted(self.missing), np.uint64))
        data[~present] = 0
        return data, present


def word(value):
    return struct.pack("<Q", value & MASK)


class PageMemory(PhysicalMemory):
    """Pages in a dictionary: unit number to 4096 bytes."""

    def __init__(self, pages):
        self.pages = pages

    @property
    def units(self):
        return np.array(sorted(self.pages), np.uint64)

    @property
    def extents(self):
        return self.units * np.uint64(UNIT), (self.units + np.uint64(1)) * np.uint64(UNIT)

    def read_units(self, units):
        out, present = np.zeros((units.size, UNIT), np.uint8), np.zeros(units.size, bool)
        for row, unit in enumerate(units.tolist()):
            if unit in self.pages:
                out[row] = np.frombuffer(bytes(self.pages[unit]), np.uint8)
                present[row] = True
        return out, present


def vmcoreinfo(page_size=4096, va_bits=48, va_actual=None, *, root_va=0xFFFF800080000000, root_pa=0x40000000, **more):
    lines = {
        "OSRELEASE": "6.12.0",
        "PAGESIZE": page_size,
        "SYMBOL(swapper_pg_dir)": f"{root_va:x}",
        "SYMBOL(_stext)": f"{root_va:x}",
        "NUMBER(VA_BITS)": va_bits,
        "NUMBER(PHYS_OFFSET)": "0x40000000",
        "NUMBER(kimage_voffset)": hex(root_va - root_pa & MASK),
        "NUMBER(TCR_EL1_T1SZ)": hex(64 - (va_actual or va_bits)),
        **more,
    }
    return "".join(f"{key}={value}\n" for key, value in lines.items() if value is not None).encode()


def address_map(*arguments, **keywords):
    return AddressMap.from_vmcoreinfo(parse_vmcoreinfo(vmcoreinfo(*arguments, **keywords), "made"))


@dataclass
class Tables:
    """Page tables under construction: ``set`` puts a descriptor where a virtual address leads to."""

    page_size: int = 4096
    va_bits: int = 48
    va_actual: int | None = None
    root_pa: int = 0x40000000
    words: dict = field(default_factory=dict)  # physical address of an entry to its value
    next_table: int = 0x41000000
    tables: set = field(default_factory=set)

    def __post_init__(self):
        self.addresses = address_map(self.page_size, self.va_bits, self.va_actual, root_pa=self.root_pa)
        self.tables.add(self.root_pa)

    @property
    def granule(self):
        return self.addresses.granule

    def new_table(self):
        self.tables.add(self.next_table)
        self.next_table += self.page_size
        return self.next_table - self.page_size

    def address(self, pa):
        """``pa`` as the address field of a descriptor."""
        if self.page_size == 65536:
            return (pa & 0xFFFFFFFF0000) | (pa >> 48 & 0xF) << 12
        if self.addresses.lpa2:
            return (pa & (1 << 50) - 1) | (pa >> 50 & 3) << 8
        return pa

    def entry(self, va, level):
        """Physical address of the entry for ``va`` at ``level``, making the tables above it."""
        table, bits = self.root_pa, self.addresses.va_bits
        for at in range(self.granule.first_level(bits), 4):
            shift = self.granule.span(at).bit_length() - 1
            index = (va & (1 << bits) - 1) >> shift
            pa = table + 8 * index
            if at == level:
                return pa
            if pa not in self.words:
                self.words[pa] = self.address(self.new_table()) | 3
            value = self.words[pa]
            table = self.output(value)
            bits = shift
        raise AssertionError(level)

    def output(self, value):
        low = value & ((1 << (50 if self.addresses.lpa2 else 48)) - self.page_size)
        if self.page_size == 65536:
            return low | (value >> 12 & 0xF) << 48
        return low | (value >> 8 & 3) << 50 if self.addresses.lpa2 else low

    def set(self, va, level, value):
        self.words[self.entry(va, level)] = value
        return self

    def image(self):
        """Map ``swapper_pg_dir`` where it lies, as every kernel does."""
        return self.leaf(self.addresses.swapper_pg_dir, 3, self.root_pa)

    def leaf(self, va, level, pa, bits=0x0068_0000_0000_0400):
        return self.set(va, level, self.address(pa) | bits | (3 if level == 3 else 1))

    @property
    def memory(self):
        pages = {}
        for table in self.tables:
            for unit in range(table // UNIT, (table + self.page_size) // UNIT):
                pages[unit] = bytearray(UNIT)
        for pa, value in self.words.items():
            pages[pa // UNIT][pa % UNIT : pa % UNIT + 8] = word(value)
        return PageMemory(pages)


CODECS = {
    "none": (0, lambda data: data),
    "zlib": (1, zlib.compress),
    "lzo": (2, lambda data: lzallright.LZOCompressor().compress(data)),
    "snappy": (4, lambda data: bytes(cramjam.snappy.compress_raw(data))),
    "zstd": (0x20, lambda data: zstandard.ZstdCompressor().compress(data)),
}


def forty_tables() -> Tables:
    """Forty tables of the last level, each with one page of the linear map."""
    made = Tables()
    for number in range(40):
        made.leaf(0xFFFF000000000000 + (number << 21), 3, 0x8000_0000 + (number << 12))
    return made


def kdump(memory, units, info, *, machine="Unknown", block_size=65536, codec="zlib", split=None, listed=None):
    """A kdump of the blocks that hold ``units``; ``split`` is (start, end) of the blocks that this file describes.

    ``listed`` are the blocks of the first bitmap, if there are more of them.
    """
    per_block = block_size // UNIT
    blocks = np.unique(units // np.uint64(per_block))
    max_mapnr = int(np.max(blocks if listed is None else listed)) + 1
    half = (max_mapnr + 8 * block_size - 1) // (8 * block_size)
    bitmap = np.zeros(half * block_size * 8, np.uint8)
    bitmap[blocks.astype(np.int64)] = 1
    bits = np.packbits(bitmap, bitorder="little").tobytes()
    bitmap[[] if listed is None else listed] = 1
    first_bits = np.packbits(bitmap, bitorder="little").tobytes()
    utsname = b"".join(text.ljust(65, b"\0") for text in (b"Linux", b"vm", b"6.12", b"#1", machine.encode(), b"(none)"))
    head = b"KDUMP   " + struct.pack("<i", 6) + utsname + bytes(22)
    head += struct.pack("<IiiIIIIIIi", 1, block_size, 1, 2 * half, max_mapnr & 0xFFFFFFFF, 0, 0, 0, 0, 1)
    info_at = block_size + 200
    note = struct.pack("<III", 11, len(info), 0) + b"VMCOREINFO\0\0" + info + bytes(-len(info) % 4)
    first, last = split or (0, 0)
    sub = struct.pack("<QiiQQQQQQQQ", 0, 0, 1 if split else 0, first, last, 0, 0, info_at, len(note), 0, 0)
    sub += struct.pack("<QQQ", first, last, max_mapnr)
    top = head.ljust(block_size, b"\0") + sub.ljust(200, b"\0") + note
    top = top.ljust(2 * block_size, b"\0") + first_bits + bits
    mine = [block for block in blocks.tolist() if split is None or first <= block < last]
    flags, pack = CODECS[codec]
    data_at = len(top) + 24 * len(mine)
    descriptors, body = b"", b""
    for block in mine:
        data, _ = memory.read_units(np.arange(block * per_block, (block + 1) * per_block, dtype=np.uint64))
        packed = pack(data.tobytes())
        use = flags if len(packed) < block_size else 0
        packed = packed if use else data.tobytes()
        descriptors += struct.pack("<QIIQ", data_at + len(body), len(packed), use, 0)
        body += packed
    return top + descriptors + body


def flattened(plain, piece=70000):
    """The same file as a stream of pieces, the header first with wrong content and again at the end."""
    out = [b"makedumpfile\0\0\0\0" + struct.pack(">qq", 1, 1).ljust(4080, b"\0")]
    out.append(struct.pack(">qq", 0, 512) + bytes(512))
    out += [
        struct.pack(">qq", at, len(plain[at : at + piece])) + plain[at : at + piece]
        for at in range(512, len(plain), piece)
    ]
    out.append(struct.pack(">qq", 0, 512) + plain[:512] + struct.pack(">qq", -1, -1))
    return b"".join(out)

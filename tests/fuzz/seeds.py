"""Seeds that are made: small crash dumps, page tables, BTF, kallsyms, rings of the kernel log, traces."""

from __future__ import annotations

import struct
import tempfile
from functools import cache
from pathlib import Path

from parsers.vmcore.distilled import write_core
from tests.parsers.ftrace.writer import Writer
from tests.parsers.vmcore.cores import Tables, flattened, kdump, vmcoreinfo

__all__ = ["IMAGE", "btf", "cores", "kallsyms", "kdumps", "ring_of_descriptors", "ring_of_records", "traces"]

LINEAR, IMAGE = 0xFFFF000000000000, 0xFFFF800080000000
ROOT = 0x40000000
OVERLAY = 0x40010000
"""Where a target puts its input into memory: the kernel image's sixteenth page."""


@cache
def tables(page_size: int = 4096, va_bits: int = 48) -> Tables:
    made = Tables(page_size, va_bits)
    for number in range(6):
        made.leaf(
            LINEAR + (number << 21) if va_bits == 48 else -(1 << va_bits) % (1 << 64),
            3,
            0x8000_0000 + number * page_size,
        )
    return made


def core(made: Tables, **more: object) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "core"
        memory = made.memory
        write_core(path, memory, memory.units, vmcoreinfo(made.page_size, made.va_bits, root_pa=made.root_pa, **more))
        return path.read_bytes()


@cache
def cores() -> tuple[bytes, ...]:
    """ELF cores of a few pages: tables of 4K and of 64K pages."""
    return core(tables()), core(tables(65536, 52)), core(tables(16384, 47))


@cache
def kdumps() -> tuple[bytes, ...]:
    """kdumps as makedumpfile and as hypervisors write them, flattened, split, of several compressions."""
    made = tables()
    memory, info = made.memory, vmcoreinfo()
    made_of = (
        kdump(memory, memory.units[:2], info, block_size=4096, machine="aarch64"),
        kdump(memory, memory.units, info, block_size=4096),
        kdump(memory, memory.units, info, block_size=4096, codec="zstd"),
        kdump(memory, memory.units, info, block_size=4096, codec="none", split=(0x40000, 0x41002)),
    )
    return (*(squeezed(one) for one in made_of), squeezed(flattened(made_of[1][:65536])))


def squeezed(data: bytes) -> bytes:
    """Data as runs of (length, fill) and literal bytes: a bitmap of zeros is not what a fuzzer should look at."""
    out, at = bytearray(), 0
    while at < len(data):
        stop = at
        while stop < len(data) and data[stop] == 0:
            stop += 1
        if stop - at >= 64 or stop == len(data):
            out += struct.pack("<HI", 0, stop - at)
            at = stop
            continue
        end = data.find(bytes(64), max(at, stop))
        end = min(len(data) if end < 0 else end, at + 60000)
        out += struct.pack("<H", end - at) + data[at:end]
        at = end
    return bytes(out)


def expanded(data: bytes, limit: int = 32 << 20) -> bytes:
    """The inverse of `squeezed`, for any bytes."""
    out, at = bytearray(), 0
    while at + 2 <= len(data) and len(out) < limit:
        (size,) = struct.unpack_from("<H", data, at)
        at += 2
        if size:
            out += data[at : at + size]
            at += size
        elif at + 4 <= len(data):
            out += bytes(min(struct.unpack_from("<I", data, at)[0], limit - len(out)))
            at += 4
        else:
            break
    return bytes(out)


@cache
def btf() -> tuple[bytes, ...]:
    """A type of every kind, referring to each other, and a structure of itself."""
    names = bytearray(b"\0")

    def name(text: str) -> int:
        names.extend(text.encode() + b"\0")
        return len(names) - len(text) - 1

    def kind(text: str, number: int, count: int, size: int, *rest: int, flag: int = 0) -> bytes:
        words = (name(text) if text else 0, flag << 31 | number << 24 | count, size, *rest)
        return struct.pack(f"<{len(words)}I", *words)

    types = b"".join(
        (
            kind("long unsigned int", 1, 0, 8, 64),
            kind("", 2, 0, 1),
            kind("", 3, 0, 0, 1, 1, 16),
            kind("mem_section", 4, 3, 40, name("section_mem_map"), 1, 0, name("usage"), 2, 64, name("self"), 5, 128),
            kind("", 2, 0, 4),
            kind("", 5, 2, 8, name("one"), 1, 0, name("two"), 2, 0),
            kind("zone_type", 6, 2, 4, name("ZONE_DMA"), 0, name("ZONE_NORMAL"), 2**32 - 1, flag=1),
            kind("later", 7, 0, 0),
            kind("u64", 8, 0, 1),
            kind("", 9, 0, 9),
            kind("", 10, 0, 10),
            kind("", 11, 0, 2),
            kind("", 13, 1, 1, name("argument"), 9),
            kind("function", 12, 1, 13),
            kind("variable", 14, 0, 9, 1),
            kind(".data", 15, 1, 8, 15, 0, 8),
            kind("double", 16, 0, 8),
            kind("tag", 17, 0, 4, 0),
            kind("user", 18, 0, 1),
            kind("wide", 19, 1, 8, name("WIDE_ONE"), 7, 1),
            kind("bits", 4, 2, 4, name("low"), 1, 5 << 24, name("high"), 7, 3 << 24 | 5, flag=1),
        )
    )
    head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(names))
    return (head + types + bytes(names),)


SYMBOLS = {
    "SYMBOL(kallsyms_names)": 0x10000,
    "SYMBOL(kallsyms_num_syms)": 0x11000,
    "SYMBOL(kallsyms_token_table)": 0x11010,
    "SYMBOL(kallsyms_token_index)": 0x12000,
    "SYMBOL(kallsyms_offsets)": 0x13000,
    "SYMBOL(kallsyms_relative_base)": 0x13FF8,
}


@cache
def kallsyms() -> tuple[bytes, ...]:
    """Four pages: names, their number and the tokens, where tokens begin, offsets and their base."""
    tokens = [bytes((code,)) if 33 <= code < 127 else b"" for code in range(256)]
    tokens[0] = b"__start_"
    table = b"".join(token + b"\0" for token in tokens)
    places, at = [], 0
    for token in tokens:
        places.append(at)
        at += len(token) + 1
    coded = [b"T_stext", b"D_end", b"d\0BTF", b"Dmem_section", b"Tonline_pages"]
    names = b"".join(bytes((len(one),)) + one for one in coded)
    offsets = struct.pack(f"<{len(coded)}I", *(number * 16 for number in range(len(coded))))
    pages = names.ljust(4096, b"\0")
    pages += (struct.pack("<IIQ", len(coded), 0, 0) + table).ljust(4096, b"\0")
    pages += struct.pack("<256H", *places).ljust(4096, b"\0")
    return (pages + offsets.ljust(4088, b"\0") + struct.pack("<Q", IMAGE),)


RING = {
    "SYMBOL(prb)": f"{IMAGE + 0x10000:x}",
    "SIZE(printk_ringbuffer)": 80,
    "OFFSET(printk_ringbuffer.desc_ring)": 0,
    "OFFSET(printk_ringbuffer.text_data_ring)": 40,
    "SIZE(prb_desc_ring)": 40,
    "OFFSET(prb_desc_ring.count_bits)": 0,
    "OFFSET(prb_desc_ring.descs)": 8,
    "OFFSET(prb_desc_ring.infos)": 16,
    "OFFSET(prb_desc_ring.head_id)": 24,
    "OFFSET(prb_desc_ring.tail_id)": 32,
    "SIZE(prb_desc)": 24,
    "OFFSET(prb_desc.state_var)": 0,
    "OFFSET(prb_desc.text_blk_lpos)": 8,
    "OFFSET(prb_data_blk_lpos.begin)": 0,
    "OFFSET(prb_data_blk_lpos.next)": 8,
    "SIZE(printk_info)": 88,
    "OFFSET(printk_info.ts_nsec)": 8,
    "OFFSET(printk_info.text_len)": 16,
    "SIZE(prb_data_ring)": 32,
    "OFFSET(prb_data_ring.size_bits)": 0,
    "OFFSET(prb_data_ring.data)": 8,
}
RECORDS = {
    "SYMBOL(log_buf)": f"{IMAGE + 0x10000:x}",
    "SYMBOL(log_buf_len)": f"{IMAGE + 0x10008:x}",
    "SYMBOL(log_first_idx)": f"{IMAGE + 0x1000C:x}",
    "SYMBOL(log_next_idx)": f"{IMAGE + 0x10010:x}",
    "SIZE(printk_log)": 16,
    "OFFSET(printk_log.ts_nsec)": 0,
    "OFFSET(printk_log.len)": 8,
    "OFFSET(printk_log.text_len)": 10,
    "OFFSET(printk_log.dict_len)": 12,
}


@cache
def ring_of_descriptors() -> tuple[bytes, ...]:
    """prb, eight descriptors, eight infos, and text, on one page after another."""
    texts = [b"Booting Linux", b"Memory: 1K", b"crashed"]
    blocks = [struct.pack("<Q", number) + text.ljust(24, b"\0") for number, text in enumerate(texts)]
    descriptors = b"".join(struct.pack("<QQQ", 2 << 62 | n, 32 * n, 32 * (n + 1)) for n in range(3)).ljust(192, b"\0")
    infos = b"".join(struct.pack("<QQH", n, 10**9 * n, len(text)).ljust(88, b"\0") for n, text in enumerate(texts))
    base = IMAGE + 0x10000
    head = struct.pack("<IIQQQQ", 3, 0, base + 0x100, base + 0x200, 2, 0) + struct.pack(
        "<IIQQQ", 8, 0, base + 0x800, 96, 0
    )
    page = head.ljust(0x100, b"\0") + descriptors.ljust(0x100, b"\0") + infos.ljust(0x600, b"\0") + b"".join(blocks)
    return (page.ljust(4096, b"\0"),)


@cache
def ring_of_records() -> tuple[bytes, ...]:
    """The variables of the buffer, and the buffer itself 256 bytes on."""
    records = b"".join(
        struct.pack("<QHHHBB", time, 16 + len(text), len(text), 0, 0, 0) + text
        for time, text in ((1_000_000_000, b"Booting Linux"), (2_000_000_000, b"Memory: 1K"))
    )
    head = struct.pack("<QIII", IMAGE + 0x10100, 2048, 0, len(records))
    return ((head.ljust(256, b"\0") + records).ljust(4096, b"\0"),)


@cache
def traces() -> tuple[bytes, ...]:
    """trace.dat of both versions, byte orders and compressions."""
    out = []
    for more in (
        {},
        {"version": 6},
        {"order": ">"},
        {"compression": "zlib"},
        {"compression": "zstd"},
        {"long_size": 4},
    ):
        writer = Writer(**more, cpu_stats=["CPU: 0\nentries: 3\noverrun: 1\ncommit overrun: 0\ndropped events: 2\n"])
        events = [writer.online(1000 + 200 * number, 58, 0x80000 + number) for number in range(4)]
        writer.instances = {"": [events, [writer.noise(900), writer.noise(1 << 30)]], "more": [events[:1], []]}
        out.append(writer.build())
    return tuple(out)

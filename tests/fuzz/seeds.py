"""Seeds that are made: small crash dumps, page tables, BTF, kallsyms, rings of the kernel log, traces."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import zstandard

from parsers.vmcore.distilled import write_core
from tests.parsers.ftrace.writer import Writer
from tests.parsers.vmcore.cores import CODECS, Tables, flattened, kdump, vmcoreinfo

__all__ = ["IMAGE", "PACKERS", "archives", "btf", "cores", "kallsyms", "kdumps", "logs", "packed"]
__all__ += ["ring_of_descriptors", "ring_of_records", "trace_texts", "traces", "vmlinuxes"]

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
    return made.image()


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
def descriptions() -> tuple[bytes, ...]:
    """VMCOREINFO of the first of `cores`, as it is and with everything that the layout can be made of."""
    root = tables().root_pa
    more = {"NUMBER(VA_BITS)": 48, "NUMBER(TCR_EL1_T1SZ)": "0x10", "NUMBER(PHYS_OFFSET)": "0x40000000"}
    more |= {"NUMBER(VMEMMAP_START)": "0xfffffdffc0000000", "NUMBER(VMEMMAP_END)": "0xfffffdffffe00000"}
    more |= {"NUMBER(SECTION_SIZE_BITS)": 27, "NUMBER(MAX_PHYSMEM_BITS)": 48, "SIZE(page)": 64, "KERNELOFFSET": "0"}
    return vmcoreinfo(root_pa=root), vmcoreinfo(root_pa=root, **more)


@cache
def kdumps() -> tuple[bytes, ...]:
    """kdumps as makedumpfile and as hypervisors write them, flattened, split, of several compressions."""
    made = tables()
    memory, info = made.memory, vmcoreinfo()
    made_of = (
        kdump(memory, memory.units[:2], info, block_size=4096, machine="aarch64"),
        kdump(memory, memory.units, info, block_size=4096),
        kdump(memory, memory.units, info, block_size=4096, codec="none", split=(0x40000, 0x41002)),
        *(kdump(memory, memory.units, info, block_size=4096, machine="aarch64", codec=codec) for codec in CODECS),
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


PACKERS: tuple[Callable[[bytes], bytes], ...] = (
    bytes,
    lambda data: gzip.compress(data, 1, mtime=0),
    lambda data: lzma.compress(data, preset=0),
    lambda data: zstandard.ZstdCompressor().compress(data),
    bz2.compress,
)
"""By the first byte of an archive of the fuzzer."""


def packed(data: bytes) -> bytes:
    """The archive that an input stands for: the first byte says how it is compressed; headers of tar have right sums."""
    if not data:
        return b""
    made = bytearray(data[1:])
    for at in range(0, len(made) - 511, 512):
        if made[at + 257 : at + 262] == b"ustar":
            made[at + 148 : at + 156] = b" " * 8
            made[at + 148 : at + 156] = b"%06o\0 " % sum(made[at : at + 512])
    return PACKERS[data[0] % len(PACKERS)](bytes(made))


_FILES: dict[str, bytes] = {
    "case/iomem": b"40000000-bfffffff : System RAM\n  40210000-41dfffff : Kernel code\n",
    "case/uname": b"Linux h 6.12.117 #1 SMP aarch64 GNU/Linux\n",
    "case/sys/devices/system/memory/block_size_bytes": b"8000000\n",
    "case/sys/devices/system/memory/memory8/state": b"online\n",
    "case/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": b"4\n",
    "sos_commands/kernel/dmesg": b"[    0.000000] Linux version 6.12.117 (a@b)\n",
    "data/insights_commands/uname_-a": b"Linux h 6.12.117 #1 SMP aarch64 GNU/Linux\n",
    "letter.txt": b"please help\n",
}


def _tar(files: dict[str, bytes], *special: tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as made:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
        for info in special:
            made.addfile(info, io.BytesIO(bytes(info.size)))
    end = -(-len(out.getvalue().rstrip(b"\0")) // 512) * 512 + 1024
    return out.getvalue()[:end]


def _special(name: str, kind: bytes, target: str = "", **more: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.pax_headers = kind, target, more
    return info


def _sparse() -> tarfile.TarInfo:
    """As GNU tar writes it since 1.0, the map of holes in the data."""
    names = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "iomem"}
    info = _special("GNUSparseFile.0/iomem", tarfile.REGTYPE, **names, **{"GNU.sparse.realsize": "1099511627776"})
    info.size = 512
    return info


def _zip(files: dict[str, bytes], method: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as made:
        for name, data in files.items():
            made.writestr(zipfile.ZipInfo(name), data, method)
    return out.getvalue()


@cache
def archives() -> tuple[bytes, ...]:
    """Archives of every kind, in each other, with links, devices, holes and names that lead out."""
    plain = _tar(_FILES, form=tarfile.USTAR_FORMAT)
    hostile = _tar(
        {
            "../../etc/iomem": b"x",
            "/iomem": b"x",
            "a\\..\\iomem": b"x",
            "c:iomem": b"x",
            "\udcff\n/uname": _FILES["case/uname"],
        },
        _special("uname", tarfile.SYMTYPE, "/etc/passwd"),
        _special("iomem", tarfile.LNKTYPE, "uname"),
        _special("zoneinfo", tarfile.CHRTYPE),
        _special("trace", tarfile.FIFOTYPE),
        _special("meminfo", tarfile.AREGTYPE, comment="x" * 600),
        _sparse(),
    )
    long_names = {"/".join(("long" * 20, *"abcdef", name)): data for name, data in _FILES.items()}
    inside = _zip({"customer.bin": gzip.compress(plain, mtime=0)}, zipfile.ZIP_STORED)
    compressed = {f"case/{n}": pack(_FILES["case/iomem"]) for n, pack in zip(_SUFFIXES, PACKERS[1:], strict=True)}
    return (
        b"\0" + plain,
        *(bytes((number,)) + plain for number in range(1, len(PACKERS))),
        b"\1" + hostile,
        b"\0" + _tar(long_names, form=tarfile.GNU_FORMAT),
        b"\0" + _tar(long_names),
        b"\2" + _tar({"mail.zip": inside, **compressed}),
        b"\0" + _zip(_FILES, zipfile.ZIP_DEFLATED),
        b"\0" + _zip(_FILES, zipfile.ZIP_STORED),
        b"\0" + _zip({"iomem": bytes(40000), "uname": _FILES["case/uname"]}, zipfile.ZIP_BZIP2),
        b"\0" + _zip({"trace.gz": gzip.compress(b"# tracer: nop\n")}, zipfile.ZIP_LZMA),
        b"\1" + _FILES["case/iomem"],
        b"\3" + _tar({"core.zst": PACKERS[3](cores()[0][:4096])}),
    )


_SUFFIXES = ("iomem.gz", "uname.xz", "cmdline.zst", "dmesg.bz2")


@cache
def vmlinuxes() -> tuple[bytes, ...]:
    """An ELF kernel of a symbol table alone."""
    names = b"\0.symtab\0.strtab\0"
    strings = b"\0_text\0vmemmap_populate\0"
    symbols = bytes(24) + b"".join(struct.pack("<IBBHQQ", at, 0x12, 0, 1, IMAGE + 16 * at, 16) for at in (1, 7))
    body = names + strings + symbols
    at = 64
    sections = bytes(64)
    sections += struct.pack("<IIQQQQIIQQ", 1, 2, 0, 0, at + len(names + strings), len(symbols), 2, 1, 8, 24)
    sections += struct.pack("<IIQQQQIIQQ", 9, 3, 0, 0, at + len(names), len(strings), 0, 0, 1, 0)
    sections += struct.pack("<IIQQQQIIQQ", 9, 3, 0, 0, at, len(names), 0, 0, 1, 0)
    ident = b"\x7fELF\2\1\1" + bytes(9)
    head = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, 183, 1, IMAGE, 0, at + len(body), 0, 64, 56, 0, 64, 4, 3)
    return (head + body + sections,)


_ONLINE = "online_pages: (online_pages+0x0/0x3d8) start_pfn=0x80000 nr_pages=32768"
_STEPS = (
    "              sh-58      [001] d....     2.020209: {}",
    "              sh-58      [001]     2.020209: {}",
    "              sh-58    [001] (   58) d..1     2.020209: {}",
    "      sh-58        1d.... 2020209us!: {}",
    "              sh      58   1 128 00000000 00000003 [001ed371] 2020.209ms (+1.234ms): {}",
    "   sh-58      1d....     2.020209: {}",
    "              sh      58 [001]     2.020209: {}",
    "              sh    58/58 [001]     2.020209: {}",
)
_PERF = """\
ndctl     81 [001]     2.556945: probe:vmemmap_free: (ffff800080029800) start=0x1000 end=0x2000
\tffff800080029800 vmemmap_free+0x0 ([kernel.kallsyms])
\tffff8000802a5824 section_deactivate+0x1d4 ([kernel.kallsyms])

"""
_GRAPH = """\
# tracer: function_graph
#
  10.000001 |   0)     sh-58     |         |  online_pages(pfn=0x80000, nr_pages=32768) { /* <-device_online+0x1/0x2 */
  10.000002 |   1)   bash-99     |               |  offline_pages() {
  10.000003 |   1)   bash-99     |   9.000 us    |  } /* offline_pages = -16 */
  10.000006 |   0)     sh-58     | ! 200.0 us    |  } /* online_pages ret=0x0 */
  10.000007 |   0)     sh-58     |   0.300 us    |  arch_add_memory(); /* ret=-12 */
CPU:1 [LOST 12 EVENTS]
"""


@cache
def trace_texts() -> tuple[bytes, ...]:
    """A few lines of every layout that a trace is printed in."""
    return (_GRAPH.encode(), _PERF.encode(), *(f"{step.format(_ONLINE)}\n".encode() * 2 for step in _STEPS))


@cache
def logs() -> tuple[bytes, ...]:
    """A kernel log as journald and dmesg write it, as JSON too, and with a ring buffer in it."""
    said = ("Linux version 6.12.117 (a@b)", "Mem abort info:", 'a "quoted" \\ thing', "Kernel panic - not syncing: x")
    rule = "[    2.400000] ---------------------------------\n"
    steps = "".join(f"[    2.500000]       sh-58        1d.... {n}us : {_ONLINE}\n" for n in range(1, 4))
    stack = "[    2.500000]       sh-58        1d.... 6us : <stack trace>\n[    2.500000]  => online_pages\n"
    texts = (
        f"[    2.300000] Dumping ftrace buffer:\n{rule}{steps}{stack}{rule}[    2.600000] Kernel panic\n",
        "".join(f"Nov 21 08:00:00 host-1.example kernel: {text}\n" for text in said),
        "".join(f"2026-11-21T08:00:00+0000 host kernel: {text}\n" for text in said),
        "".join(f"[    1.000000] host kernel: {text}\n" for text in said),
        "".join(_journal(text) for text in said) + '{"MESSAGE":[27,91,51,49,109,79,111,112,115]}\n',
        json.dumps({"dmesg": [{"pri": 6, "time": 1.25, "msg": text} for text in said]}, indent=3).replace(
            "1.25", "1.250000"
        ),
    )
    return tuple(text.encode() for text in texts)


def _journal(text: str) -> str:
    return json.dumps({"_SOURCE_MONOTONIC_TIMESTAMP": "8548711", "MESSAGE": text, "PRIORITY": "1"}) + "\n"

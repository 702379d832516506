#!/usr/bin/env python3
"""Collects what ptaudit audits from an arm64 Linux host, the small core of its memory included.

One file for Python 3.6 to 3.14 without packages. It only reads, and writes nothing but its own archive or directory.
The text sources are those of a POSIX shell script that is part of it. host.core is an ELF core that holds pages of
/proc/kcore: page tables, section table, the struct pages of hot-added memory that an audit looks at, memory blocks,
zones, resources, huge pages, the crash kernel's list of memory, symbols (kallsyms) and types (BTF). No memory of a
process and no page cache is in it, and no kernel log. What could not be read is named in the manifest. See -h.
"""

import errno
import os
import re
import struct
import time
from array import array
from bisect import bisect_right
from typing import Callable, ClassVar, Dict, List, Optional, Set, Tuple

from parsers.image.code import CALLED, FUNCTIONS

MASK = (1 << 64) - 1
UNIT = 4096
WORDS = UNIT // 8
MAX_KEPT = 384 << 20  # bytes of pages, which are held until they are written
MAX_SECONDS = 600
CLONE = re.compile(rb"(?:\.(?:isra|constprop|part|cold|llvm)[.\d]*)*$")
SYMBOLS = (
    "_text _end __start_BTF __stop_BTF memory_blocks sections_per_block node_data contig_page_data max_pfn "
    "iomem_resource hstates hugetlb_max_hstate vmemmap_optimize_enabled kernel_ptdump_info saved_command_line "
    "linux_banner kernel_config_data kernel_config_data_end __asan_load8_noabort __hwasan_load8_noabort "
    "kexec_crash_image"
).split()


class CannotReadError(Exception):
    """Something is missing, unreadable, or contradicts its description."""


def why_closed(error: OSError) -> str:
    """What it means that /proc/kcore cannot be opened."""
    if error.errno == errno.ENOENT:
        return "does not exist (CONFIG_PROC_KCORE=n, or the /proc of a container)"
    try:
        with open("/sys/kernel/security/lockdown") as stream:
            if "[confidentiality]" in stream.read():
                return "is closed by kernel lockdown (confidentiality)"
    except OSError:
        pass  # without securityfs nobody says it
    return f"needs root with CAP_SYS_RAWIO, which containers lack ({error.strerror})"


class Kcore:
    """Physical memory by /proc/kcore: pread only, and never by the size that the file claims."""

    def __init__(self, path: str) -> None:
        try:
            self.fd = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise CannotReadError(f"{path} {why_closed(error)}") from error
        self.began = time.time()
        head = self.pread(64, 0)
        if head[:6] != b"\x7fELF\2\1" or struct.unpack_from("<HH", head, 16) != (4, 183):
            raise CannotReadError(f"{path} is not the memory of an arm64 kernel, or is masked as in a container")
        (at,), (size, count) = struct.unpack_from("<Q", head, 32), struct.unpack_from("<HH", head, 54)
        if size != 56 or not 0 < count < 0xFFFF:
            raise CannotReadError("%s has %d program headers of %d bytes" % (path, count, size))
        headers = list(struct.iter_unpack("<IIQQQQQQ", self.pread(size * count, at)))
        loads = [(pa, offset, length) for kind, _, offset, _, pa, length, _, _ in headers if kind == 1 and length]
        mapped = [(va, pa, offset, length) for kind, _, offset, va, pa, length, _, _ in headers if kind == 1 and length]
        if not any(pa for pa, _, _ in loads):
            raise CannotReadError(f"{path} gives no physical addresses: the kernel is older than 4.19")
        self.first: List[int] = []
        self.count: List[int] = []
        self.offset: List[int] = []
        covered = 0
        for pa, offset, length in sorted(loads, key=lambda load: (load[0], -load[2])):
            start, end = max(-(-pa // UNIT) * UNIT, covered), (pa + length) // UNIT * UNIT
            if pa < 1 << 52 and end > start:  # vmalloc, modules and vmemmap have -1
                self.first.append(start // UNIT)
                self.count.append((end - start) // UNIT)
                self.offset.append(offset + start - pa)
                covered = end
        self.info = b""
        for kind, _, offset, _, _, length, _, _ in headers:
            if kind == 4 and not self.info:
                self.info = self.note(self.pread(min(length, 1 << 20), offset))
        if not self.info:
            raise CannotReadError(f"{path} has no VMCOREINFO: the kernel is older than 4.19")
        voffset = re.search(rb"^NUMBER\(kimage_voffset\)=(0x[0-9a-f]+)", self.info, re.MULTILINE)
        self.image = (0, 0, 0)
        for va, pa, offset, length in mapped:
            if voffset is not None and pa < 1 << 52 and (va - pa) & MASK == int(voffset.group(1), 16):
                start = -(-pa // UNIT)
                self.image = (start, (pa + length) // UNIT, offset + start * UNIT - pa)

    def pread(self, size: int, offset: int) -> bytes:
        if time.time() - self.began > MAX_SECONDS:
            raise CannotReadError("no end after %d s" % MAX_SECONDS)
        data = b""
        while len(data) < size:
            try:
                more = os.pread(self.fd, size - len(data), offset + len(data))
            except OSError:
                break
            if not more:
                break
            data += more
        return data

    @staticmethod
    def note(notes: bytes) -> bytes:
        at = 0
        while at + 12 <= len(notes):
            name, size, _ = struct.unpack_from("<III", notes, at)
            body = at + 12 + -(-name // 4) * 4
            if notes[at + 12 : at + 12 + name] == b"VMCOREINFO\0":
                return notes[body : body + size].rstrip(b"\0")
            at = body + -(-size // 4) * 4
        return b""

    def units(self, first: int, number: int) -> Optional[bytes]:
        """Pages of 4096 bytes that follow each other; None where any of them is not RAM or cannot be read."""
        row = bisect_right(self.first, first) - 1
        if row < 0 or first + number > self.first[row] + self.count[row]:
            return None
        data = self.pread(number * UNIT, self.offset[row] + (first - self.first[row]) * UNIT)
        if len(data) != number * UNIT:
            return None
        if first < self.image[1] and first + number > self.image[0]:
            return b"".join(self.of_image(first + row, data[row * UNIT : (row + 1) * UNIT]) for row in range(number))
        return data

    def of_image(self, number: int, data: bytes) -> bytes:
        """A page of the kernel image where it is mapped, if it reads as zeros in the linear map.

        That lacks the data and bss of the kernel since 7.2 (arch/arm64/mm/mmu.c).
        """
        start, end, offset = self.image
        if not start <= number < end or any(data[:8]) or any(data):
            return data
        there = self.pread(UNIT, offset + (number - start) * UNIT)
        return there if len(there) == UNIT else data


class Types:
    """Structures and enumerators of BTF (include/uapi/linux/btf.h)."""

    EXTRA: ClassVar[Dict[int, Tuple[int, int]]] = {
        **dict.fromkeys((1, 14, 17), (4, 0)),
        3: (12, 0),
        **dict.fromkeys((6, 13), (0, 8)),
        **dict.fromkeys((4, 5, 15, 19), (0, 12)),
    }
    """By kind of type, the bytes that follow it, and those that follow for each member."""

    def __init__(self, data: bytes) -> None:
        header, types, size, strings, length = struct.unpack_from("<IIIII", data, 4)
        self.strings = data[header + strings : header + strings + length]
        self.data = data
        self.at = [0]
        self.named: Dict[str, int] = {}
        self.enumerators: Dict[str, int] = {}
        at, end = header + types, min(header + types + size, len(data) - 11)
        while at < end:
            name, info, _ = struct.unpack_from("<III", data, at)
            kind, many = info >> 24 & 31, info & 0xFFFF
            fixed, each = self.EXTRA.get(kind, (0, 0))
            if kind in (4, 5):
                self.named.setdefault(self.text(name), len(self.at))
            elif kind == 6:
                for number in range(many):
                    label, value = struct.unpack_from("<Ii", data, at + 12 + 8 * number)
                    if self.strings[label : label + 8] == b"SECTION_":
                        self.enumerators[self.text(label)] = value
            self.at.append(at)
            at += 12 + fixed + each * many

    def text(self, at: int) -> str:
        return self.strings[at : self.strings.find(b"\0", at)].decode("ascii", "replace")

    def plain(self, number: int) -> Tuple[int, int, int]:
        """Position, kind and size or type of a type, without typedefs and qualifiers."""
        for _ in range(64):
            if not 0 < number < len(self.at):
                break
            at = self.at[number]
            _, info, target = struct.unpack_from("<III", self.data, at)
            if info >> 24 & 31 not in (8, 9, 10, 11, 18):
                return at, info >> 24 & 31, target
            number = target
        raise CannotReadError("BTF is damaged")

    def size(self, number: int) -> int:
        at, kind, target = self.plain(number)
        if kind == 3:
            element, _, count = struct.unpack_from("<III", self.data, at + 12)
            return int(self.size(element) * count)
        return 8 if kind == 2 else int(target)

    def member(self, name: str, path: str) -> Optional[Tuple[int, int, int]]:
        """Offset, bytes and number of elements of a member; None if there is none."""
        return self.inside(self.named[name], path, 0) if name in self.named else None

    def inside(self, number: int, wanted: str, depth: int) -> Optional[Tuple[int, int, int]]:
        at, kind, _ = self.plain(number)
        if kind not in (4, 5) or depth > 16:
            return None
        info = struct.unpack_from("<I", self.data, at + 4)[0]
        for row in range(info & 0xFFFF):
            name, target, bits = struct.unpack_from("<III", self.data, at + 12 + 12 * row)
            offset = (bits & 0xFFFFFF if info >> 31 else bits) // 8
            if not name:
                found = self.inside(target, wanted, depth + 1)
                if found is not None:
                    return offset + found[0], found[1], found[2]
            elif self.text(name) == wanted:
                where, what, _ = self.plain(target)
                count = struct.unpack_from("<III", self.data, where + 12)[2] if what == 3 else 0
                return offset, self.size(target), count
        return None


class Kernel:
    """What is kept of one kernel's memory, and how its addresses are translated (arch/arm64/include/asm/memory.h)."""

    def __init__(self, memory: Kcore) -> None:
        self.memory = memory
        self.values: Dict[str, int] = {}
        for key, value in re.findall(r"^([\w.()]+)=(-?\w+)\r?$", memory.info.decode("ascii", "replace"), re.MULTILINE):
            try:
                base = 16 if key.startswith("SYMBOL") else 0 if key.startswith("NUMBER") else 10
                self.values[key] = int(value, base)
            except ValueError:
                continue
        self.kept: Dict[int, bytes] = {}
        self.blank: Set[int] = set()
        self.regular = (array("Q"), array("Q"))  # page frames of 4096 bytes, and the first word of each
        self.losses: List[Tuple[str, str]] = []
        self.types: Optional[Types] = None
        self.symbols: Dict[str, int] = {}
        self.functions: List[Tuple[int, bool]] = []  # places in kallsyms, and whether their code is kept
        self.sections: Dict[int, int] = {}
        self.hosts: Dict[
            int, int
        ] = {}  # first section of a memory block, and how many of its pages hold its struct pages
        self.watched: List[Tuple[int, int]] = []
        self.map()

    def value(self, key: str) -> int:
        if key not in self.values:
            raise CannotReadError(f"VMCOREINFO lacks {key}")
        return self.values[key]

    def map(self) -> None:
        page, bits = self.value("PAGESIZE"), self.value("NUMBER(VA_BITS)")
        if page not in (4096, 16384, 65536) or not 36 <= bits <= 52:
            raise CannotReadError("VMCOREINFO states pages of %d bytes and %d address bits" % (page, bits))
        self.page, self.shift = page, page.bit_length() - 1
        t1sz = self.values.get("NUMBER(TCR_EL1_T1SZ)", 0)
        actual = 64 - t1sz if 12 <= t1sz <= 28 else bits
        self.bits = bits if page == 65536 else actual
        self.lpa2 = page < 65536 and actual == 52
        swapper, self.voffset = self.value("SYMBOL(swapper_pg_dir)"), self.value("NUMBER(kimage_voffset)") & MASK
        phys = self.value("NUMBER(PHYS_OFFSET)") & MASK
        self.linear, self.linear_end = -(1 << (bits - 1)) & MASK, 1 << 64
        if swapper >> (bits - 1) & 1:  # since 5.4
            self.linear = -(1 << (actual if actual < bits and phys < 1 << 52 else bits)) & MASK
            least = bits if bits < 52 else 47 if page == 16384 else 48
            self.linear_end = -(1 << (least - 1)) & MASK
        self.actual, self.phys, self.swapper = actual, phys, swapper
        self.root = (swapper - self.voffset) & MASK
        text = self.values.get("SYMBOL(_stext)", swapper)
        self.image = (min(text, swapper) & ~0x1FFFFF, max(text, swapper) + (512 << 20))
        self.certain = ((self.image[0] - self.voffset) & MASK, self.root + page)

    # Reading and keeping

    def unit(self, number: int, keep: bool = True) -> bytes:
        """A page of 4096 bytes, kept for the core; pages of zeros are decided about at the end."""
        if number in self.kept:
            return self.kept[number]
        data = self.memory.units(number, 1)
        if data is None:
            raise CannotReadError("page %#x is not among the RAM that /proc/kcore lists" % (number * UNIT))
        if keep:
            self.keep(number, data)
        return data

    def keep(self, number: int, data: bytes) -> None:
        if len(self.kept) * UNIT >= MAX_KEPT:
            raise MemoryError("more than %d MiB of page tables and metadata" % (MAX_KEPT >> 20))
        self.kept[number] = data
        if not any(data[:8]) and not any(data):
            self.blank.add(number)

    def physical(self, va: int) -> int:
        if va >> 55 & 1:
            va |= 0xFF << 56  # KASAN's tag
        if self.linear <= va < self.linear_end:
            return (va + self.phys - self.linear) & MASK
        if self.image[0] <= va < self.image[1]:
            return (va - self.voffset) & MASK
        return self.walked(va)

    def walked(self, va: int) -> int:
        """Physical address by the page tables."""
        table, level, bits = self.root, self.first_level(), self.bits
        while True:
            shift = self.shift + (3 - level) * (self.shift - 3)
            at = table + 8 * ((va & ((1 << bits) - 1)) >> shift)
            word = struct.unpack_from("<Q", self.unit(at // UNIT, keep=False), at % UNIT)[0]
            if word & 3 == 3 and level < 3:
                table, level, bits = self.output(word), level + 1, shift
            elif word & 1:
                return (self.output(word) >> shift << shift) + (va & ((1 << shift) - 1))
            else:
                raise CannotReadError(f"{va:#x} is not mapped")

    def first_level(self) -> int:
        return 4 - -(-(self.bits - self.shift) // (self.shift - 3))

    def output(self, word: int) -> int:
        pa = word & ((1 << (50 if self.lpa2 else 48)) - self.page)
        if self.lpa2:
            return pa | (word & 0x300) << 42
        return pa | (word & 0xF000) << 36 if self.page == 65536 else pa

    def read(self, va: int, size: int, keep: bool = True) -> bytes:
        """Bytes at a virtual address; whole pages of the kernel are kept."""
        if not 0 <= size <= 256 << 20 or va + size > 1 << 64:
            raise CannotReadError("%d bytes at %#x" % (size, va))
        parts = []
        first = va & -self.page
        for at in range(first, va + size, self.page):
            number = self.physical(at) // UNIT
            for place in range(at, at + self.page, UNIT):
                try:
                    parts.append(self.unit(number + (place - at) // UNIT, keep))
                except CannotReadError:
                    if va - UNIT < place < va + size:
                        raise
                    parts.append(bytes(UNIT))  # of a page of which only another part is there
        return b"".join(parts)[va - first : va - first + size]

    def peek(self, va: int, size: int) -> bytes:
        """As many of ``size`` bytes as follow each other, not kept."""
        data = b""
        while len(data) < size:
            at = va + len(data)
            try:
                data += self.read(at, self.page - at % self.page, keep=False)
            except CannotReadError:
                break
        return data

    def number(self, va: int, size: int = 8) -> int:
        return int.from_bytes(self.read(va, size), "little")

    def string(self, va: int, limit: int = 256) -> bytes:
        text = b""
        while len(text) < limit and b"\0" not in text:
            text += self.read(va + len(text), self.page - (va + len(text)) % self.page)
        return text[:limit].split(b"\0", 1)[0]

    def attempt(self, what: str, function: Callable[[], object]) -> None:
        try:
            function()
        except CannotReadError as error:
            self.losses.append((what, str(error)))
        except (struct.error, LookupError, ValueError, OverflowError, RecursionError) as error:
            self.losses.append((what, f"not as expected ({error})"))

    # Symbols and types

    def member(self, name: str, path: str) -> Tuple[int, int, int]:
        found = self.types.member(name, path) if self.types is not None else None
        if found is not None:
            return found
        if f"OFFSET({name}.{path})" in self.values:
            return self.values[f"OFFSET({name}.{path})"], 8, 0
        raise CannotReadError(f"struct {name} has no known member {path}")

    def sizeof(self, name: str) -> int:
        if self.types is not None and name in self.types.named:
            return self.types.size(self.types.named[name])
        return self.value(f"SIZE({name})")

    def field(self, va: int, name: str, path: str) -> int:
        offset, size, _ = self.member(name, path)
        return self.number(va + offset, size)

    def symbol(self, name: str) -> int:
        if f"SYMBOL({name})" in self.values:
            return self.values[f"SYMBOL({name})"]
        if name not in self.symbols:
            raise CannotReadError(f"no symbol {name}")
        return self.symbols[name]

    def read_symbols(self) -> None:
        """Look symbols up in kallsyms, whose addresses VMCOREINFO has since 6.0 (kernel/kallsyms.c)."""
        count = self.number(self.value("SYMBOL(kallsyms_num_syms)"), 4)
        if not 0 < count < 1 << 24:
            raise CannotReadError("kallsyms claims %d symbols" % count)
        index = struct.unpack("<256H", self.read(self.value("SYMBOL(kallsyms_token_index)"), 512))
        table = self.read(self.value("SYMBOL(kallsyms_token_table)"), index[255] + 64)
        tokens = [table[at : table.find(b"\0", at)] for at in index]
        self.read(self.value("SYMBOL(kallsyms_token_table)"), index[255] + len(tokens[255]) + 1)
        start, wanted = self.value("SYMBOL(kallsyms_names)"), {name.encode(): name for name in SYMBOLS}
        code = {name.encode(): name in FUNCTIONS for name in FUNCTIONS + CALLED}
        found: Dict[str, int] = {}
        at, data = 0, b""
        for number in range(count):
            if at + 1024 > len(data):
                data += self.peek(start + len(data), 1 << 20)
            length, at = data[at], at + 1
            if length & 0x80:
                length, at = length & 0x7F | data[at] << 7, at + 1
            label = b"".join([tokens[byte] for byte in data[at : at + length]])[1:]
            at += length
            stem = label.partition(b".")[0]
            if stem in code and CLONE.match(label, len(stem)):
                self.functions.append((number, code[stem]))
            if label in wanted:
                found.setdefault(wanted[label], number)
        self.read(start, at)
        for symbol, number in found.items():
            try:
                self.symbols[symbol] = self.address(number)
            except CannotReadError:
                continue
        if self.symbols.get("_text", MASK) < self.symbols.get("_end", 0):
            self.image = (self.symbols["_text"], self.symbols["_end"])
        release = re.search(rb"^OSRELEASE=(\d+)\.(\d+)", self.memory.info, re.MULTILINE)
        if release and (int(release.group(1)), int(release.group(2))) >= (5, 11):
            for name, scale in (("__asan_load8_noabort", 3), ("__hwasan_load8_noabort", 4)):
                if name in self.symbols:  # the shadow lies where the linear map would end
                    self.linear_end -= 1 << (self.actual - scale)
                    break

    def address(self, number: int) -> int:
        """The address of a symbol by its place in kallsyms."""
        if "SYMBOL(kallsyms_addresses)" in self.values:
            return self.number(self.values["SYMBOL(kallsyms_addresses)"] + 8 * number)
        place = self.value("SYMBOL(kallsyms_offsets)") + 4 * number
        base = self.values.get("SYMBOL(kallsyms_relative_base)")
        offset = self.number(place, 4)
        if base:
            return self.number(base) + offset & MASK
        return place + offset - (offset >> 31 << 32) & MASK  # offsets count from themselves

    def read_code(self) -> None:
        """The functions whose code shows which fixes the kernel has; each ends where the next symbol begins."""
        for number, is_read in self.functions:
            try:
                start = end = self.address(number)
                for later in range(number + 1, number + 64):
                    end = self.address(later)
                    if end > start:
                        break
                if is_read and start < end <= start + (1 << 16):
                    self.read(start, end - start)
            except CannotReadError as error:
                self.losses.append(("kernel code", str(error)))

    def read_types(self) -> None:
        start, stop = self.symbols.get("__start_BTF"), self.symbols.get("__stop_BTF")
        if start is None or stop is None:
            start, stop = self.find_types()
        self.types = Types(self.read(start, stop - start))

    def find_types(self) -> Tuple[int, int]:
        """BTF by its magic number, between the text and swapper_pg_dir."""
        for at in range(self.image[0] & -self.page, self.swapper, 1 << 20):
            data = self.searched(at, min(1 << 20, self.swapper - at))
            place = data.find(b"\x9f\xeb\x01\x00")
            while place >= 0:
                if place % 4 == 0:
                    head, _, types, strings, length = struct.unpack("<IIIII", self.read(at + place + 4, 20, False))
                    if head == 24 and strings == types and 64 << 10 < strings + length < 256 << 20:
                        return at + place, at + place + head + strings + length
                place = data.find(b"\x9f\xeb\x01\x00", place + 1)
        raise CannotReadError("the kernel has no BTF")

    def searched(self, va: int, size: int) -> bytes:
        """Pages of the image that are searched and not kept; zeros for what is not RAM."""
        first, count = self.physical(va) // UNIT, -(-size // UNIT)
        data = self.memory.units(first, count)
        if data is None:
            data = b"".join([self.memory.units(number, 1) or bytes(UNIT) for number in range(first, first + count)])
        return data

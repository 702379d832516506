"""The small core of the running kernel, written by the standard library alone."""

import os
import struct
from array import array
from contextlib import suppress
from typing import Callable, Dict, Iterator, List, Tuple

from analyzer.collect.without_packages.crash_image import CrashImage
from analyzer.collect.without_packages.kernel import MASK, UNIT, WORDS, CannotReadError, Kcore

ONES = sum(1 << (64 * number) for number in range(WORDS))
RAMP = sum(number << (64 * number) for number in range(WORDS))
PRESENT, HAS_MEM_MAP, IS_ONLINE, IS_EARLY = 1, 2, 4, 8  # include/linux/mmzone.h
MAX_TABLES = 1 << 24
MAX_NOTE = 15 << 20
MAX_HEADERS = 1 << 18
MAX_SUBSECTIONS = 1 << 15
MAX_SELF_HOSTED = 1 << 15
MAX_HELD = 1 << 20
MANY_REGULAR = 1 << 10
ATTEMPTS = 3
AT_A_TIME = 64


class SmallCore(CrashImage):
    """The pages that an audit reads."""

    def take(self) -> None:
        """Read everything; what is missing is in ``losses``."""
        for what, function in self.parts():
            self.attempt(what, function)
        self.decide_about_zeros()

    def parts(self) -> List[Tuple[str, Callable[[], None]]]:
        """What is read, in the order in which one needs the other."""
        return [
            ("symbols", self.read_symbols),
            ("kernel code", self.read_code),
            ("types", self.read_types),
            ("exported variables", self.read_exports),
            ("counters of zones", self.read_counters),
            ("page tables", self.read_tables),
            ("section table", self.read_sections),
            ("memory blocks", self.read_blocks),
            ("self-hosted pages", self.read_self_hosted),
            ("zones", self.read_zones),
            ("resources", self.read_resources),
            ("huge pages", self.read_huge_pages),
            ("crash kernel", self.read_crash_image),
            ("marker table", self.read_markers),
            ("command line", self.read_command_line),
            ("kernel configuration", self.read_config),
        ]

    def nodes(self) -> List[int]:
        """Addresses of the pglist_data of all online nodes."""
        online, size = self.values.get("SYMBOL(node_online_map)"), self.values.get("SIZE(nodemask_t)", 0)
        if online is None or not size or "node_data" not in self.symbols:
            return [self.symbol("contig_page_data")]
        mask, data = self.number(online, min(size, 128)), self.symbols["node_data"]
        return [self.number(data + 8 * node) for node in range(mask.bit_length()) if mask >> node & 1]

    def read_counters(self) -> None:
        """span_seqlock of every zone, which all onlining, offlining and mapping of device memory counts up."""
        inside, _, count = self.member("pglist_data", "node_zones")
        lock = self.member("zone", "span_seqlock")[0]
        for node in self.nodes():
            for number in range(count):
                at = node + inside + number * self.sizeof("zone") + lock
                self.number(at, 4)
                self.watched.append((self.physical(at), 4))

    # Page tables

    def read_tables(self) -> None:
        """All of swapper_pg_dir, level by level; of the last level, runs of pages are kept as numbers."""
        level = self.first_level()
        shift = self.shift + (3 - level) * (self.shift - 3)
        size = 8 << (self.bits - shift)
        first, last = self.root // UNIT, (self.root + size - 1) // UNIT
        data = b"".join([self.unit(number) for number in range(first, last + 1)])
        found = self.children(data[self.root % UNIT :][:size], -(1 << self.bits) & MASK, shift)
        lost = 0
        while found and level < 3:
            level, shift = level + 1, shift - self.shift + 3
            tables = dict(found)
            found = []
            if len(tables) > MAX_TABLES:
                raise CannotReadError("more than %d page tables" % MAX_TABLES)
            for pa, data in self.pages(sorted(tables)):
                if not data:
                    lost += 1
                elif level == 3:
                    self.keep_leaves(pa // UNIT, data)
                else:
                    for number in range(self.page // UNIT):
                        self.keep(pa // UNIT + number, data[number * UNIT :][:UNIT])
                    found += self.children(data, tables[pa], shift)
                    if self.linear <= tables[pa] < self.linear_end or self.in_vmemmap(tables[pa]):
                        self.watched.append((pa, self.page))
        if lost:
            self.losses.append(("page tables", "%d tables are not among the RAM that /proc/kcore lists" % lost))

    def in_vmemmap(self, va: int) -> bool:
        start, end = (self.values.get(f"NUMBER(VMEMMAP_{name})", 0) & MASK for name in ("START", "END"))
        return start <= va < end

    def children(self, data: bytes, va: int, shift: int) -> List[Tuple[int, int]]:
        """The tables that a table refers to: physical address, and the first virtual address that each translates."""
        words = struct.unpack("<%dQ" % (len(data) // 8), data)
        return [
            (self.output(word), va + (number << shift) & MASK) for number, word in enumerate(words) if word & 3 == 3
        ]

    def pages(self, addresses: List[int]) -> Iterator[Tuple[int, bytes]]:
        """Pages at ascending addresses; those that follow each other are one read. Empty where one is not RAM."""
        units, at = self.page // UNIT, 0
        while at < len(addresses):
            end = at + 1
            while end < len(addresses) and end - at < AT_A_TIME and addresses[end] == addresses[end - 1] + self.page:
                end += 1
            data = self.memory.units(addresses[at] // UNIT, (end - at) * units)
            for number in range(at, end):
                if data is not None:
                    yield addresses[number], data[(number - at) * self.page :][: self.page]
                else:
                    yield addresses[number], self.memory.units(addresses[number] // UNIT, units) or b""
            at = end

    def keep_leaves(self, first: int, data: bytes) -> None:
        """A table of the last level: each 4096 bytes of it as a number if every entry is the one before and a page."""
        for number in range(len(data) // UNIT):
            some = data[number * UNIT :][:UNIT]
            word = struct.unpack_from("<Q", some)[0]
            if word & 3 == 3 and word < 1 << 63 and int.from_bytes(some, "little") == word * ONES + self.page * RAMP:
                self.regular[0].append(first + number)
                self.regular[1].append(word)
            else:
                self.keep(first + number, some)

    # Sections

    def read_sections(self) -> None:
        """mem_section, subsection maps, and one struct page of each subsection that was not there at boot."""
        roots_at, count = self.value("SYMBOL(mem_section)"), self.value("LENGTH(mem_section)")
        size, word_at = self.sizeof("mem_section"), self.offset("mem_section", "section_mem_map", 0)
        usage_at = self.offset("mem_section", "usage", 8)
        if count > 1 << 19 or size % 8 or not 16 <= size <= self.page:
            raise CannotReadError("impossible section table: %d roots of entries of %d bytes" % (count, size))
        bits = self.values.get("NUMBER(SECTION_SIZE_BITS)", 30)
        if not 21 < bits <= 40:
            raise CannotReadError("impossible SECTION_SIZE_BITS %d" % bits)
        self.section_bits, per_root = bits, self.page // size
        usages: Dict[int, int] = {}
        for number, root in enumerate(struct.unpack("<%dQ" % count, self.read(roots_at, 8 * count))):
            if not root:
                continue
            try:
                data = self.read(root, per_root * size)
                self.watched.append((self.physical(root), per_root * size))
            except CannotReadError as error:
                self.losses.append(("section table", str(error)))
                continue
            for row in range(per_root):
                word = struct.unpack_from("<Q", data, row * size + word_at)[0]
                usage = struct.unpack_from("<Q", data, row * size + usage_at)[0]
                if word:
                    self.sections[number * per_root + row] = word
                if usage:
                    usages[number * per_root + row] = usage
        self.watched.append((self.physical(roots_at), 8 * count))
        self.read_struct_pages(self.read_maps(usages))

    def offset(self, name: str, member: str, otherwise: int) -> int:
        """Offset of a member, or the usual one where no types are known."""
        try:
            return self.member(name, member)[0]
        except CannotReadError:
            return otherwise

    def read_maps(self, usages: Dict[int, int]) -> Dict[int, int]:
        """Subsection maps by section; since 6.8 an rcu_head of zeros may come first."""
        size = -(-(1 << (self.section_bits - 21)) // 64) * 8
        at = self.offset("mem_section_usage", "subsection_map", -1)
        if at < 0 and self.types is not None:
            return {}  # before 5.3
        found: Dict[int, bytes] = {}
        lost = 0
        for section, usage in usages.items():
            try:
                found[section] = self.read(usage + max(at, 0), size + (16 if at < 0 else 0))
                self.watched.append((self.physical(usage + max(at, 0)), size))
            except CannotReadError:
                lost += 1
        if lost:
            self.losses.append(("section table", "%d subsection maps cannot be read" % lost))
        skip = 0
        if at < 0 and not any(any(data[:8]) for number, data in found.items() if self.sections.get(number, 0) & 1):
            skip = 16
        return {number: int.from_bytes(data[skip:][:size], "little") for number, data in found.items()}

    def read_struct_pages(self, maps: Dict[int, int]) -> None:
        """The last struct page of each valid subsection that was not there at boot."""
        size, per_subsection = self.sizeof("page"), (1 << 21) // self.page
        if not 0 < size <= 1024 or size % 8:
            raise CannotReadError("a struct page of %d bytes" % size)
        wanted = PRESENT | HAS_MEM_MAP
        hot = [
            number
            for number, word in sorted(self.sections.items())
            if word & (wanted | IS_EARLY) == wanted and number in maps
        ]
        count = 1 << (self.section_bits - 21)
        thin = sum(bin(maps[number]).count("1") for number in hot) > MAX_SUBSECTIONS
        for number in hot:
            whole = maps[number] == (1 << count) - 1
            for subsection in range(count):
                if not maps[number] >> subsection & 1 or (thin and whole and 0 < subsection < count - 1):
                    continue
                pfn = (number * count + subsection + 1) * per_subsection - 1
                va = (self.sections[number] & ~63) + pfn * size & MASK
                self.keep_mapped(va, size)

    def keep_mapped(self, va: int, size: int) -> None:
        """Keep the pages of a range of addresses, as far as they are mapped and RAM: the page tables say which."""
        for at in [va] + list(range((va // UNIT + 1) * UNIT, va + size, UNIT)):
            with suppress(CannotReadError):
                self.unit(self.walked(at & MASK) // UNIT)

    # Zeros

    def decide_about_zeros(self) -> None:
        """Leave out pages of zeros unless the kernel's own account says that it could read them.

        /proc/kcore gives zeros for pages that are offline, PageOffline or poisoned (fs/proc/kcore.c).
        """
        online = any(word & IS_ONLINE for word in self.sections.values())
        out = 0
        for number in sorted(self.blank):
            in_image = self.certain[0] <= number * UNIT < self.certain[1]
            data = self.memory.units(number, 1)  # still zeros, or it was being filled
            if data is not None and (in_image or any(data) or self.is_readable(number * UNIT, online)):
                self.kept[number] = data
            else:
                del self.kept[number]
                out += 1
        self.blank = set()
        if out:
            self.losses.append(("zeros", "%d pages of zeros that the kernel may not have read are left out" % out))

    def is_readable(self, pa: int, online: bool) -> bool:
        """Whether section table and struct page say that the kernel reads this page."""
        wanted = PRESENT | HAS_MEM_MAP | (IS_ONLINE if online else 0)
        word = self.sections.get(pa >> self.section_bits, 0)
        if word & wanted != wanted:
            return False
        try:
            size, flags_at = self.sizeof("page"), self.member("page", "flags")[0]
            count_at = self.member("page", "_mapcount")[0]
            va = (word & ~63) + pa // self.page * size & MASK
            at = self.walked(va)
            flags, around = self.word(at + flags_at, 8), self.word(at + count_at & ~7, 8)
            kind = self.word(at + count_at, 4)
        except CannotReadError:
            return False
        poison, offline = (
            self.values.get(f"NUMBER({name})") for name in ("PG_hwpoison", "PAGE_OFFLINE_MAPCOUNT_VALUE")
        )
        if not flags | around or (poison is not None and flags >> poison & 1):
            return False
        if offline is None:
            return True
        shift = 0 if offline & 0xFFFFFF else 24  # since 6.11 the type is the highest byte
        return kind >> shift != (offline & 0xFFFFFFFF) >> shift

    def word(self, pa: int, size: int) -> int:
        """A number in physical memory, not kept."""
        return int.from_bytes(self.unit(pa // UNIT, keep=False)[pa % UNIT :][:size], "little")

    # Metadata

    def read_blocks(self) -> None:
        """Memory blocks: the XArray memory_blocks, since 5.8, or their directories in sysfs; altmaps and zone names."""
        if "memory_blocks" not in self.symbols and "kernel_kobj" in self.symbols:
            within = self.member("memory_block", "dev")[0] + self.member("device", "kobj")[0]
            for block in self.kobjects_in(b"devices", b"system", b"memory"):
                self.read_block(block - within)
            return
        self.attempt("memory blocks", lambda: self.number(self.symbol("sections_per_block")))
        slots_at, size, _ = self.member("xa_node", "slots")
        entries = [self.field(self.symbol("memory_blocks"), "xarray", "xa_head")]
        seen = 0
        while entries:
            entry = entries.pop()
            seen += 1
            if seen > 1 << 21:
                raise CannotReadError("the list of memory blocks does not end")
            try:
                if entry & 3 == 2 and entry > 4096:
                    self.read(entry - 2, 8)
                    slots = self.read(entry - 2 + slots_at, size)
                    entries += [one for one in struct.unpack("<%dQ" % (size // 8), slots) if one]
                elif entry and entry & 3 == 0:
                    self.read_block(entry)
            except CannotReadError as error:
                self.losses.append(("memory blocks", str(error)))

    def read_self_hosted(self) -> None:
        """Struct pages of the pages that hold those of their own block, and of the page after them."""
        size, per_section = self.sizeof("page"), (1 << self.section_bits) // self.page
        thin = sum(self.hosts.values()) > MAX_SELF_HOSTED
        for number, count in sorted(self.hosts.items()):
            va = (self.sections.get(number, 0) & ~63) + number * per_section * size
            if not thin:
                self.keep_mapped(va, (count + 1) * size)
                continue
            for page in (0, count - 1, count):
                self.keep_mapped(va + page * size, size)

    def read_block(self, block: int) -> None:
        """One memory block, and what it points to."""
        held = 0
        for name in ("start_section_nr", "state", "nid", "group", "nr_vmemmap_pages", "zone", "altmap"):
            if self.types is None or self.types.member("memory_block", name) is None:
                continue
            value = self.field(block, "memory_block", name)
            if name == "state":
                self.watched.append((self.physical(block + self.member("memory_block", name)[0]), 4))
            if name == "nr_vmemmap_pages":
                held += value
            if value and name == "altmap":
                held += self.field(value, "vmem_altmap", "free")
                self.field(value, "vmem_altmap", "base_pfn")
            elif value and name == "zone":
                self.string(self.field(value, "zone", "name"))
        if 0 < held <= MAX_HELD:
            self.hosts[self.field(block, "memory_block", "start_section_nr")] = held

    def read_zones(self) -> None:
        """Nodes and zones."""
        self.attempt("zones", lambda: self.number(self.symbol("max_pfn")))
        inside, _, count = self.member("pglist_data", "node_zones")
        for node in self.nodes():
            for name in ("node_id", "node_start_pfn", "node_spanned_pages", "node_present_pages"):
                self.field(node, "pglist_data", name)
            for number in range(min(self.field(node, "pglist_data", "nr_zones"), count or 16)):
                zone = node + inside + number * self.sizeof("zone")
                for name in ("zone_start_pfn", "spanned_pages", "present_pages", "managed_pages"):
                    self.field(zone, "zone", name)
                self.string(self.field(zone, "zone", "name"))

    def read_resources(self) -> None:
        """iomem_resource and all below it."""
        size, offsets = self.sizeof("resource"), [self.member("resource", n)[0] for n in ("name", "sibling", "child")]
        seen = set()
        root = self.symbol("iomem_resource")
        pending = [root]
        while pending:
            at = pending.pop()
            if not at or at in seen:
                continue
            seen.add(at)
            if len(seen) > 1 << 20:
                raise CannotReadError("the resource tree does not end")
            try:
                record = self.read(at, size)
                name, sibling, child = (struct.unpack_from("<Q", record, offset)[0] for offset in offsets)
                pending += [sibling, child]
                if name and at != root:
                    self.string(name)
            except CannotReadError as error:
                self.losses.append(("resources", str(error)))

    def read_huge_pages(self) -> None:
        """Pools of huge pages."""
        if "vmemmap_optimize_enabled" in self.symbols:
            self.number(self.symbols["vmemmap_optimize_enabled"], 1)
        first, count = self.symbol("hstates"), self.number(self.symbol("hugetlb_max_hstate"), 4)
        for number in range(min(count, 16)):
            state = first + number * self.sizeof("hstate")
            for name in ("order", "nr_huge_pages", "free_huge_pages", "surplus_huge_pages"):
                self.field(state, "hstate", name)
            self.string(state + self.member("hstate", "name")[0], 32)

    def read_markers(self) -> None:
        """The markers of the kernel's own page-table dump, where it has one."""
        if "kernel_ptdump_info" not in self.symbols:
            return
        table = self.field(self.symbols["kernel_ptdump_info"], "ptdump_info", "markers")
        for number in range(64):
            name = struct.unpack("<QQ", self.read(table + 16 * number, 16))[1]
            if not name:
                break
            self.string(name)

    def read_command_line(self) -> None:
        """The kernel's command line and its banner, which names the build."""
        if "linux_banner" in self.symbols:
            self.string(self.symbols["linux_banner"], 1024)
        else:
            self.find_banner()
        self.string(self.number(self.symbol("saved_command_line")), 16384)

    def read_config(self) -> None:
        """The kernel's configuration, where it is built in."""
        if "kernel_config_data" in self.symbols:
            start, end = self.symbols["kernel_config_data"], self.symbols.get("kernel_config_data_end", 0)
            self.read(start, min(end - start, 16 << 20) if end > start else 1 << 20)

    # One moment

    def is_of_one_moment(self) -> bool:
        """Whether the section table and the tables that hotplug changes are what they were when they were read."""
        for pa, size in self.watched:
            for number in range(pa // UNIT, (pa + size - 1) // UNIT + 1):
                start, end = max(pa - number * UNIT, 0), min(pa + size - number * UNIT, UNIT)
                data = self.memory.units(number, 1)
                if data is None or data[start:end] != self.kept.get(number, bytes(UNIT))[start:end]:
                    return False
        return True

    # Writing

    def write(self, path: str) -> int:
        """Write the ELF core to a new file that only its owner reads; returns its bytes."""
        note = self.regular_note()
        units = sorted(self.kept)
        runs: List[List[int]] = []
        for number in units:
            if runs and sum(runs[-1]) == number:
                runs[-1][1] += 1
            else:
                runs.append([number, 1])
        headers = len(runs) + 1
        if headers >= MAX_HEADERS:
            raise CannotReadError("%d runs of pages are more than a core can have" % len(runs))
        many = headers >= 0xFFFF  # then the true number is in the first section header
        notes = _note(b"VMCOREINFO\0", self.memory.info) + (_note(b"PTAUDIT\0", note) if note else b"")
        notes_at = 64 + 56 * headers
        sections_at = notes_at + len(notes)
        at = pages_at = -(-(sections_at + 64) // UNIT) * UNIT
        fixed = (4, 183, 1, 0, 64, sections_at if many else 0, 0, 64, 56, min(headers, 0xFFFF), 64, int(many), 0)
        parts = [struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1" + bytes(9), *fixed)]
        parts.append(struct.pack("<IIQQQQQQ", 4, 0, notes_at, 0, 0, len(notes), len(notes), 4))
        for first, count in runs:
            size = count * UNIT
            parts.append(struct.pack("<IIQQQQQQ", 1, 4, at, 0, first * UNIT, size, size, UNIT))
            at += size
        parts += [notes, struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, headers if many else 0, 0, 0)]
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(b"".join(parts).ljust(pages_at, b"\0"))
            for number in units:
                stream.write(self.kept[number])
        return at

    def regular_note(self) -> bytes:
        """Runs of regular tables, as ptaudit reads them; few of them are written as pages that any tool reads."""
        step = WORDS * self.page
        if len(self.regular[0]) < MANY_REGULAR:
            for number, word in zip(*self.regular):
                self.kept[number] = struct.pack("<%dQ" % WORDS, *range(word, word + step, self.page))
            return b""
        runs = array("Q")
        follows = (0, 0)
        for number, word in zip(*self.regular):
            if (number, word) == follows:
                runs[-1] += 1
            elif len(runs) * 8 >= MAX_NOTE:
                self.losses.append(("page tables", "more than the core can hold: some are left out"))
                break
            else:
                runs.extend((number, word, 1))
            follows = (number + 1, word + step)
            self.kept.pop(number, None)
        return struct.pack("<QQ", self.page, len(runs) // 3) + struct.pack("<%dQ" % len(runs), *runs)


def _note(name: bytes, content: bytes) -> bytes:
    head = struct.pack("<III", len(name), len(content), 0)
    return head + name + bytes(-len(name) % 4) + content + bytes(-len(content) % 4)


def take_core(kcore: str, path: str, generation: Callable[[], bytes]) -> Tuple[int, List[Tuple[str, str]]]:
    """Write the small core of ``kcore`` to ``path``: its bytes, and what could not be read and why.

    Memory may come and go meanwhile: it is then read again, and after three times there is no core.
    """
    for _ in range(ATTEMPTS):
        before = generation()
        core = SmallCore(Kcore(kcore))  # the kernel lists its RAM again
        core.take()
        if not core.sections:
            why = dict(core.losses).get("section table", "it is empty")
            raise CannotReadError(f"the section table cannot be read: {why}")
        if core.is_of_one_moment() and generation() == before:
            return core.write(path), core.losses
    raise CannotReadError("memory came and went while it was read: collect again")

"""Variables without a symbol: those that modules may use, and memory blocks by their directories in sysfs."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest

from parsers.errors import FormatError
from parsers.vmcore.blocks import read_blocks
from parsers.vmcore.dump import Dump
from parsers.vmcore.exports import find_exports
from parsers.vmcore.memory import MissingMemoryError, RecordingMemory
from tests.parsers.vmcore.cores import MASK, PageMemory, PatchedMemory, address_map, word
from tests.parsers.vmcore.test_distilled import comparable

START = 0xFFFF_8000_8000_0000
PAGE_TABLES = START + (9 << 20)
IMAGE_PA = 0x4000_0000
VARIABLE = PAGE_TABLES - START + 0x2340
PIECE = 4 << 20


class Image:
    """A kernel image in memory, as find_exports() reads one."""

    def __init__(self, *items, missing=()):
        data = bytearray(9 << 20)
        for offset, content in items:
            data[offset : offset + len(content)] = content
        pages = {(IMAGE_PA >> 12) + at: bytes(data[at << 12 :][:4096]) for at in range(len(data) >> 12)}
        for offset in missing:
            del pages[(IMAGE_PA + offset) >> 12]
        self.memory = RecordingMemory(PageMemory(pages))
        self.addresses = address_map(
            root_va=PAGE_TABLES, root_pa=IMAGE_PA + (9 << 20), **{"SYMBOL(_stext)": f"{START:x}"}
        )

    def read(self, va, size):
        return self.memory.read(int(self.addresses.physical(np.array([va], np.uint64))[0][0]), size)


def entry(at, variable, name):
    """An entry of __ksymtab: the variable, its name, no namespace."""
    return at, struct.pack("<iii", variable - at, name - at - 4, name - 1 - at - 8)


def text(at, name):
    return at - 1, b"\0" + name.encode() + b"\0"


@pytest.mark.parametrize("table", [0x80_0000, PIECE - 8, PIECE - 4, PIECE - 4096 - 4, PIECE])
@pytest.mark.parametrize("names", [0x81_0004, PIECE + 4096 - 3, 2 * PIECE - 4096 - 5])
def test_a_variable_is_found_by_its_name_wherever_the_table_lies(table, names):
    image = Image(entry(table, VARIABLE, names), text(names, "iomem_resource"))
    assert find_exports(image) == {"iomem_resource": START + VARIABLE}


def test_what_the_search_used_is_all_that_a_small_core_needs():
    image = Image(entry(0x80_0FFC, VARIABLE, 0x85_0FFC), text(0x85_0FFC, "node_data"))
    found = find_exports(image)
    kept = image.memory.units
    assert kept.size == 4  # two entries' worth of words and a name, each across two pages
    pages = {int(unit): image.memory.read_units(np.array([unit]))[0].tobytes() for unit in kept}
    image.memory = RecordingMemory(PageMemory(pages))
    assert find_exports(image) == found == {"node_data": START + VARIABLE}


@pytest.mark.parametrize(
    "items",
    [
        [],
        [text(0x85_0004, "iomem_resource")],
        [entry(0x80_0000, VARIABLE, 0x85_0004)],
        [entry(0x80_0000, VARIABLE, 0x85_0004), (0x85_0004, b"iomem_resource_of\0")],
        [entry(0x80_0000, VARIABLE, 0x85_0004), (0x85_0003, b"xiomem_resource\0")],
        [entry(0x80_0000, 0x1000, 0x85_0004), text(0x85_0004, "iomem_resource")],
        [entry(0x80_0000, VARIABLE + 2, 0x85_0004), text(0x85_0004, "iomem_resource")],
        [
            entry(0x80_0000, VARIABLE, 0x85_0004),
            entry(0x80_0100, VARIABLE + 64, 0x85_0004),
            text(0x85_0004, "iomem_resource"),
        ],
    ],
    ids=["empty", "no entry", "no name", "longer", "the end of a name", "in the text", "not aligned", "ambiguous"],
)
def test_nothing_is_found_where_the_table_does_not_say_it_clearly(items):
    assert find_exports(Image(*items)) == {}


def test_pages_of_the_image_may_be_missing():
    items = [entry(0x80_0000, VARIABLE, 0x85_0004), text(0x85_0004, "iomem_resource")]
    assert find_exports(Image(*items, missing=[0x10_0000, 0x84_0000])) == {"iomem_resource": START + VARIABLE}
    assert find_exports(Image(*items, missing=[0x80_0000])) == {}
    assert find_exports(Image(*items, missing=[0x85_0000])) == {}


# Memory blocks by the directories of sysfs ----------------------------------------------------------------------------


class Sysfs:
    """Directories in pages of their own, for the types of a dump; kernel_kobj is the first word."""

    def __init__(self, dump, va):
        self.dump, self.va, self.at, self.words = dump, va, va + 64, {}
        root = self.node(b"", 1)
        devices, system, memory = (self.node(name, 1) for name in (b"devices", b"system", b"memory"))
        kernel = self.new(64)
        self.words[va] = kernel
        self.set(kernel, "kobject", "sd", self.node(b"kernel", 1, parent=root))
        self.fill(root, [devices])
        self.fill(devices, [system])
        self.fill(system, [self.node(b"cpu", 1), memory, self.node(b"node", 1)])
        self.memory, own = memory, self.new(64)
        self.set(memory, "kernfs_node", "priv", own)
        within = dump.member("memory_block", "dev.kobj").offset
        blocks = [
            self.node(b"memory%d" % n, 1, priv=int(at) + within) for n, at in enumerate(read_blocks(dump).address)
        ]
        others = [self.node(b"power", 1, priv=own), self.node(b"probe", 2, priv=own)]
        self.fill(memory, [*blocks[:3], *others, *blocks[3:]])

    def new(self, size):
        self.at += size
        return self.at - size

    def set(self, at, kind, member, value):
        place = at + self.dump.member(kind, member).offset
        shift = place % 8 * 8
        keep = self.words.get(place & -8, 0)
        self.words[place & -8] = keep | value << shift

    def node(self, name, flags, parent=None, priv=None):
        at, label = self.new(256), self.new(-(-(len(name) + 1) // 8) * 8)
        for number in range(0, len(name) + 1, 8):
            self.words[label + number] = int.from_bytes(name[number : number + 8], "little")
        self.set(at, "kernfs_node", "name", label)
        self.set(at, "kernfs_node", "flags", flags | 0x30)
        for member, value in (("parent", parent), ("priv", priv)):
            if value is not None:
                self.set(at, "kernfs_node", member, value)
        return at

    def fill(self, directory, nodes):
        """Children as a balanced tree."""
        self.set(directory, "kernfs_node", "dir.children.rb_node", self.subtree(nodes))

    def subtree(self, nodes):
        if not nodes:
            return 0
        middle = len(nodes) // 2
        at = self.rb(nodes[middle])
        self.set(at, "rb_node", "rb_left", self.subtree(nodes[:middle]))
        self.set(at, "rb_node", "rb_right", self.subtree(nodes[middle + 1 :]))
        return at

    def rb(self, node):
        return node + self.dump.member("kernfs_node", "rb").offset


@pytest.fixture
def hidden(raw_after):
    """A dump of a kernel without symbols of its own variables, but with sysfs and an exported kernel_kobj."""
    dump = Dump(raw_after)
    start, _ = raw_after.memory.extents
    pa = (int(start.min()) >> 12) - 64 << 12
    va = pa - dump.addresses.phys_offset + dump.addresses.page_offset & MASK
    sysfs = Sysfs(dump, va)
    pages = {}
    for at, value in sysfs.words.items():
        page = pages.setdefault(pa + (at - va) >> 12, bytearray(4096))
        page[at % 4096 : at % 4096 + 8] = word(value)
    made = Dump(replace(raw_after, memory=Both(raw_after.memory, PageMemory(pages))))
    symbol = made.symbol
    gone = {"memory_blocks", "memory_subsys"}
    made.symbol = lambda name: va if name == "kernel_kobj" else None if name in gone else symbol(name)
    return made, sysfs, pa - va


class Both(PageMemory):
    def __init__(self, first, second):
        self.first, self.second = first, second

    def read_units(self, units):
        data, present = self.first.read_units(units)
        more, found = self.second.read_units(units)
        data[found] = more[found]
        return data, present | found


def test_memory_blocks_are_found_by_their_directories(raw_after, hidden):
    dump, _, _ = hidden
    assert comparable(read_blocks(dump)) == comparable(read_blocks(Dump(raw_after)))


def test_a_tree_that_leads_back_is_refused(hidden):
    dump, sysfs, slide = hidden
    rows = sysfs.rb(sysfs.memory)
    root = sysfs.words[sysfs.memory + dump.member("kernfs_node", "dir.children.rb_node").offset & -8]
    left = root + dump.member("rb_node", "rb_left").offset
    assert rows != root
    dump.memory = PatchedMemory(dump.memory, {left + slide: word(root)})
    with pytest.raises(FormatError, match="sysfs are damaged"):
        read_blocks(dump)


def test_an_entry_that_is_missing_is_not_taken_for_absent(hidden):
    dump, sysfs, slide = hidden
    root = sysfs.words[sysfs.memory + dump.member("kernfs_node", "dir.children.rb_node").offset & -8]
    left = root + dump.member("rb_node", "rb_left").offset
    dump.memory = PatchedMemory(dump.memory, {left + slide: word(sysfs.va + (1 << 40))})
    with pytest.raises(MissingMemoryError, match="sysfs"):
        read_blocks(dump)


def test_without_sysfs_the_symbol_is_named(raw_after):
    dump = Dump(raw_after)
    symbol = dump.symbol
    dump.symbol = lambda name: None if name.startswith(("memory_", "kernel_kobj")) else symbol(name)
    with pytest.raises(LookupError, match="kernel_kobj"):
        read_blocks(dump)

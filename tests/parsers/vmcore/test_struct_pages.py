"""Which struct pages are read of a dump, and where they are."""

from types import SimpleNamespace

import numpy as np

from parsers.arm64 import Attr
from parsers.vmcore import struct_pages
from parsers.vmcore.struct_pages import read_struct_pages

BASE, NR_SECTIONS = 0xFFFFFDFFC0000000, 4
PAGES_PER_SECTION, PAGES_PER_SUBSECTION = 1 << 15, 512


class Mapping(SimpleNamespace):
    def __len__(self):
        return self.start.size

    def has(self, attr):
        return (self.attrs & np.uint16(attr)) == np.uint16(attr)


def u64(*values):
    return np.array(values, dtype=np.uint64)


def walk(rows):
    """Rows of (first address, size, output address, repeated, valid)."""
    start, size, pa, repeated, valid = zip(*rows, strict=True)
    attrs = np.array([Attr.VALID | Attr.PRESENT if one else 0 for one in valid], dtype=np.uint16)
    mapping = Mapping(start=u64(*start), size=u64(*size), pa=u64(*pa), attrs=attrs)
    return SimpleNamespace(mapping=mapping, repeated=np.array(repeated, dtype=np.bool_))


def sections(early=(), maps=None):
    maps = np.full((NR_SECTIONS, 1), 2**64 - 1, dtype=np.uint64) if maps is None else maps
    yes = np.ones(NR_SECTIONS, dtype=np.bool_)
    return SimpleNamespace(
        section_nr=np.arange(NR_SECTIONS, dtype=np.uint64),
        section_mem_map=np.full(NR_SECTIONS, BASE | 0x17, dtype=np.uint64),
        present=yes,
        has_memmap=yes,
        early=np.isin(np.arange(NR_SECTIONS), early),
        subsections=maps,
        subsections_known=yes,
        section_size_bits=27,
    )


class Memory:
    """Every word is its own address, but for those in ``zero``; what is not in ``there`` is missing."""

    def __init__(self, zero=(), there=None):
        self.zero, self.there, self.asked = zero, there, []
        self.has_false_zeros = False

    def read_words(self, pas):
        self.asked.append(pas)
        present = np.ones(pas.size, dtype=np.bool_) if self.there is None else np.isin(pas, self.there)
        return np.where(np.isin(pas, self.zero) | ~present, 0, pas).astype(np.uint64), present


def read(memory, table, tables):
    addresses = SimpleNamespace(granule=SimpleNamespace(page_size=4096))
    return read_struct_pages(SimpleNamespace(size=lambda _: 64, addresses=addresses, memory=memory), table, tables)


WHOLE = walk([(BASE, 64 * PAGES_PER_SECTION * NR_SECTIONS, 0x40000000, False, True)])


def test_the_last_struct_page_of_every_subsection_is_read():
    memory = Memory(zero=[0x40000000 + 64 * 511 + at for at in range(0, 64, 8)])
    rows = read(memory, sections(), WHOLE)
    assert rows.pfn.tolist() == list(range(511, NR_SECTIONS * PAGES_PER_SECTION, PAGES_PER_SUBSECTION))
    assert rows.va.tolist() == [BASE + 64 * pfn for pfn in rows.pfn.tolist()]
    assert np.flatnonzero(rows.blank).tolist() == [0]


def test_boot_sections_and_subsections_that_are_not_valid_are_left_out():
    maps = np.array([[1], [1 << 63], [0], [2]], dtype=np.uint64)
    rows = read(Memory(), sections(early=[0], maps=maps), WHOLE)
    assert rows.pfn.tolist() == [2 * PAGES_PER_SECTION - 1, 3 * PAGES_PER_SECTION + 1023]


def test_of_very_many_the_ends_of_whole_sections_are_read(monkeypatch):
    monkeypatch.setattr(struct_pages, "_MAX_SUBSECTIONS", 64)
    maps = np.array([[2**64 - 1], [6], [0], [0]], dtype=np.uint64)
    rows = read(Memory(), sections(maps=maps), WHOLE)
    assert ((rows.pfn + 1) // PAGES_PER_SUBSECTION).tolist() == [1, 64, 66, 67]


def test_what_is_read_in_parts_is_the_same(monkeypatch):
    zero = [0x40000000 + 64 * pfn + at for pfn in (511, 40447, 131071) for at in range(0, 64, 8)]
    whole = read(Memory(zero), sections(), WHOLE)
    monkeypatch.setattr(struct_pages, "_AT_A_TIME", 7)
    memory = Memory(zero)
    parts = read(memory, sections(), WHOLE)
    assert parts.pfn[parts.blank].tolist() == whole.pfn[whole.blank].tolist() == [511, 40447, 131071]
    assert [pas.size for pas in memory.asked] == [56] * 36 + [32]


def test_entries_that_share_a_page_are_read_from_that_page():
    shared = walk([(BASE, 4096, 0x5000, False, True), (BASE + 4096, 28672, 0x9000, True, True)])
    memory = Memory()
    rows = read(memory, sections(maps=np.array([[1], [0], [0], [0]], dtype=np.uint64)), shared)
    assert rows.pfn.tolist() == [511]
    assert memory.asked[0].tolist() == list(range(0x9000 + 63 * 64, 0xA000, 8))


def test_what_does_not_translate_or_is_not_in_the_dump_is_unknown():
    maps = np.array([[7], [0], [0], [0]], dtype=np.uint64)
    size = 64 * PAGES_PER_SUBSECTION
    rows = [(BASE, size, 0x40000000, False, True), (BASE + size, size, 0, False, False)]
    tables = walk([*rows, (BASE + 2 * size, size, 0x50000000, False, True)])
    there = 0x50000000 + 511 * 64 + np.arange(0, 64, 8)
    assert read(Memory(there=there), sections(maps=maps), tables).pfn.tolist() == [3 * PAGES_PER_SUBSECTION - 1]
    assert read(Memory(there=there[1:]), sections(maps=maps), tables).pfn.tolist() == []


def test_without_a_section_table_there_is_nothing_to_read():
    assert read(Memory(), None, WHOLE) is None


def test_zeros_are_unknown_in_a_dump_that_has_zeros_for_what_it_left_out():
    """Nothing says whether the kernel never initialised the struct pages, or the dump lacks them."""
    memory = Memory(zero=[0x40000000 + 64 * 511 + at for at in range(0, 64, 8)])
    memory.has_false_zeros = True
    rows = read(memory, sections(), WHOLE)
    assert not rows.blank.any()
    assert rows.pfn[0] == 1023
    assert set(rows.absent.tolist()) == {(0x40000000 + 64 * 511) // 4096}

"""Table pages in any physical order, read by one thread or several, give the same walk."""

import os

import numpy as np
import pytest

from parsers.vmcore.pagetable import walk_page_tables
from parsers.vmcore.table_pages import TableReader
from tests.parsers.vmcore.cores import PageMemory, Tables

GEOMETRIES = [(4096, 48), (4096, 52), (16384, 47), (16384, 52), (65536, 48), (65536, 52)]
NORMAL = 0x0068_0000_0000_0400


def mapped(page_size, va_bits, order):
    """A linear map of regular tables, some of them broken, whose pages lie in memory in the given order."""
    tables = Tables(page_size, va_bits)
    entries = page_size // 8
    base = (1 << 64) - (1 << va_bits)
    span = tables.granule.span(2)
    pages = [0x5000_0000 + number * page_size for number in order]
    for number, page in enumerate(pages):
        tables.next_table = 0x7000_0000 + 8 * number * page_size
        tables.entry(base + number * span, 2)  # the tables above
        tables.next_table = page
        first = tables.entry(base + number * span, 3)
        for index in range(entries):
            tables.words[first + 8 * index] = tables.address(0x8000_0000 + (number * entries + index) * page_size) | (
                NORMAL | 3
            )
        if number % 7 == 3:  # not regular: a hole, another attribute, the wrong page, in turn
            place = first + 8 * (number * 37 % entries)
            tables.words[place] = (0, tables.words[place] ^ 1 << 54, tables.words[place] + page_size)[number // 7 % 3]
    return tables


def rows_of(walk):
    mapping = walk.mapping
    return [getattr(mapping, name).tolist() for name in ("start", "size", "level", "attrs", "memtype", "pa")]


class Shared(PageMemory):
    concurrent = True


@pytest.mark.parametrize(("page_size", "va_bits"), GEOMETRIES)
def test_the_order_of_table_pages_in_memory_changes_nothing(page_size, va_bits):
    count = 24
    walks = []
    for order in (range(count), range(count)[::-1], np.random.default_rng(1).permutation(count).tolist()):
        tables = mapped(page_size, va_bits, order)
        walks.append(walk_page_tables(tables.memory, tables.addresses, source="made"))
    assert rows_of(walks[1]) == rows_of(walks[0])
    assert rows_of(walks[2]) == rows_of(walks[0])
    assert len(walks[0].mapping) > 4
    used = walks[0].mapping.tables.used[walks[0].mapping.tables.level == 3].tolist()
    assert used == walks[1].mapping.tables.used[walks[1].mapping.tables.level == 3].tolist()
    assert sorted(set(used))[-2:] == [page_size // 8 - 1, page_size // 8]


def test_threads_change_nothing(monkeypatch):
    order = np.random.default_rng(2).permutation(600).tolist()  # several batches
    tables = mapped(4096, 48, order)
    one = walk_page_tables(tables.memory, tables.addresses, source="made")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4))
    several = walk_page_tables(Shared(tables.memory.pages), tables.addresses, source="made")
    assert rows_of(several) == rows_of(one)
    np.testing.assert_array_equal(several.mapping.tables.pa, one.mapping.tables.pa)


@pytest.mark.parametrize("page_size", [4096, 16384, 65536])
def test_regular_tables_are_those_in_which_every_entry_is_the_next_page(page_size):
    per_table = page_size // 8
    good = np.uint64(0x8000_0003) + np.arange(per_table, dtype=np.uint64) * np.uint64(page_size)
    tables = np.stack([good] * 8)
    tables[1, -1] = 0
    tables[2, 1] += np.uint64(1 << 54)
    tables[3, per_table // 2] ^= np.uint64(1)
    tables[4] -= np.uint64(1)  # blocks, which the last level has not
    tables[5] = good[0]
    tables[6] = 0
    pages = {
        number * page_size // 4096 + part: tables[number].tobytes()[part * 4096 : (part + 1) * 4096]
        for number in range(8)
        for part in range(page_size // 4096)
    }
    pa = np.array([7, 6, 5, 4, 3, 2, 1, 0], dtype=np.uint64) * np.uint64(page_size)
    single = np.ones(8, dtype=np.bool_)
    single[0] = False  # the table is referred to repeatedly
    decoded = []
    for read in TableReader(PageMemory(pages), page_size).read(
        pa, single, lambda rows, entries: list(zip(rows.tolist(), entries.copy(), strict=True))
    ):
        assert read.present.all()
        assert read.regular.tolist() == (read.rows == 7).tolist()
        assert read.first.tolist() == tables[::-1][read.rows, 0].tolist()
        decoded += [pair for piece in read.decoded for pair in piece]
    decoded.sort(key=lambda pair: pair[0])
    assert [row for row, _ in decoded] == [0, 1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(np.array([entries for _, entries in decoded]), tables[7:0:-1])

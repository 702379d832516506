"""Small cores of large hosts: tables that map one run of pages are a note, and read as what they were."""

import numpy as np
import pytest

from parsers.errors import FormatError
from parsers.vmcore.addresses import AddressMap
from parsers.vmcore.distilled import write_core
from parsers.vmcore.memory import UNIT
from parsers.vmcore.opening import open_dump
from parsers.vmcore.pagetable import walk_page_tables
from parsers.vmcore.regular import RegularMemory, find_regular, pack_regular
from tests.parsers.vmcore.cores import PageMemory, vmcoreinfo, word

ROOT = 0x40000000 // UNIT
TABLES = 3000


def linear_map():
    """Root, one PUD table, PMD tables and 3000 tables of pages; one has a hole, and three are not in order."""
    bits, pages = 0x0068000000000707, {}
    pud, pmd, pte = ROOT + 1, ROOT + 2, ROOT + 100
    pages[ROOT] = word((pud * UNIT) | 3) + bytes(UNIT - 8)
    pages[pud] = b"".join(word(((pmd + i) * UNIT) | 3) for i in range(6)).ljust(UNIT, b"\0")
    for i in range(6):
        leaves = range(512 * i, min(512 * (i + 1), TABLES))
        pages[pmd + i] = b"".join(word(((pte + j) * UNIT) | 3) for j in leaves).ljust(UNIT, b"\0")
    for j in range(TABLES):
        base = (0x8000000000 + (j ^ 1 if j in (10, 11) else j) * (2 << 20)) | bits
        table = (np.uint64(base) + np.arange(512, dtype=np.uint64) * np.uint64(UNIT)).astype("<u8")
        if j == 77:
            table[5] = 0
        pages[pte + j] = table.tobytes()
    return PageMemory(pages)


def test_a_core_with_many_regular_tables_is_small_and_reads_as_before(tmp_path):
    memory, path = linear_map(), tmp_path / "core"
    size = write_core(path, memory, memory.units, vmcoreinfo())
    assert size == path.stat().st_size < 64 << 10 < memory.units.size * UNIT // 100
    raw = open_dump(path)
    assert isinstance(raw.memory, RegularMemory)
    data, present = raw.memory.read_units(memory.units)
    assert present.all()
    np.testing.assert_array_equal(data, memory.read_units(memory.units)[0])
    _, present = raw.memory.read_units(np.array([ROOT - 1, ROOT + 100 + TABLES], np.uint64))
    assert not present.any()
    addresses = AddressMap.from_vmcoreinfo(raw.vmcoreinfo)
    walks = [walk_page_tables(one, addresses, source="made") for one in (memory, raw.memory)]
    for name in ("start", "size", "pa", "attrs"):
        np.testing.assert_array_equal(*(getattr(walk.mapping, name) for walk in walks))


def test_a_core_with_few_of_them_is_a_plain_core(tmp_path):
    memory, path = linear_map(), tmp_path / "core"
    units = memory.units[:1000]
    assert write_core(path, memory, units, vmcoreinfo()) > units.size * UNIT
    assert not isinstance(open_dump(path).memory, RegularMemory)


def test_only_descriptors_of_one_run_of_pages_are_regular():
    table = np.uint64(0x80000703) + np.arange(512, dtype=np.uint64) * np.uint64(UNIT)
    broken, invalid, zeros = table.copy(), table - np.uint64(2), np.zeros(512, np.uint64)
    broken[511] += np.uint64(8)
    data = np.stack((table, broken, invalid, zeros)).astype("<u8").view(np.uint8)
    assert find_regular(data, 4096).tolist() == [True, False, False, False]
    assert find_regular(data, 16384).tolist() == [False] * 4


@pytest.mark.parametrize("damage", [(0, 5), (8, 0), (8, 1 << 40), (16 + 16, 0), (16 + 16, 1 << 60), (16, 1 << 62)])
def test_a_damaged_note_is_an_error(damage):
    units = np.array([5, 6, 9], np.uint64)
    note = bytearray(pack_regular(units, units << np.uint64(21) | np.uint64(3), 4096))
    RegularMemory(PageMemory({}), bytes(note), "core")
    at, value = damage
    note[at : at + 8] = word(value)
    with pytest.raises(FormatError):
        RegularMemory(PageMemory({}), bytes(note), "core")
    with pytest.raises(FormatError):
        RegularMemory(PageMemory({}), b"short", "core")

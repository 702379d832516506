"""The walk on synthetic page tables: geometries, corrupt tables, missing pages."""

import random
import time

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from parsers.arm64 import Attr, MemType
from parsers.vmcore.explain import explain
from parsers.vmcore.pagetable import walk_page_tables
from tests.parsers.vmcore.cores import PatchedMemory, Tables, word

GEOMETRIES = [
    # page size, CONFIG_ARM64_VA_BITS, VA bits in use
    (4096, 39, 39),
    (4096, 48, 48),
    (4096, 52, 52),  # LPA2, five levels
    (4096, 52, 48),  # the same kernel on older hardware
    (16384, 36, 36),
    (16384, 47, 47),
    (16384, 48, 48),
    (16384, 52, 52),
    (16384, 52, 47),
    (65536, 42, 42),
    (65536, 48, 48),
    (65536, 52, 52),
    (65536, 52, 48),
]
TAGGED = 0x0068_0000_0000_0704
UXN_TABLE, ACCESS_FLAG = 1 << 60, 1 << 10
DEVICE = 0x0068_0000_0000_0710
VMEMMAP = 0xFFFFFDFFC0000000


def walk(tables, memory=None):
    return walk_page_tables(memory or tables.memory, tables.addresses, source="made")


def plain_rows(tables):
    """The rows by the book: entry by entry, in Python."""
    granule, bits = tables.granule, tables.addresses.va_bits
    rows = []

    def visit(table, level, va):
        span = granule.span(level)
        count = granule.entries if level != granule.first_level(bits) else 1 << bits - (span.bit_length() - 1)
        for index in range(count):
            value = tables.words.get(table + 8 * index, 0)
            at = va + index * span
            if value & 3 == 3 and level < 3:
                visit(tables.output(value), level + 1, at)
            elif at >= (1 << 64) - (1 << tables.addresses.va_actual):
                pa = tables.output(value) & -span if value else 0
                share = 0 if tables.addresses.lpa2 else 3 << 8
                key = value & (0x0074_0000_0000_0CDF | share)  # what ptdump prints
                if rows and rows[-1][2:4] == (level, key) and (not value) == (not rows[-1][5]):
                    start, size, _, _, first, old = rows[-1]
                    if not value or first + size == pa:
                        rows[-1] = (start, size + span, level, key, first, old)
                        continue
                rows.append((at, span, level, key, pa, value))

    visit(tables.root_pa, granule.first_level(bits), (1 << 64) - (1 << bits))
    return rows


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_every_geometry_walks_as_entry_by_entry(geometry):
    tables = Tables(*geometry)
    rng = random.Random(str(geometry))
    granule = tables.granule
    low = (1 << 64) - (1 << tables.addresses.va_actual)
    page, block = granule.page_size, granule.span(2)
    high = 0xF << 48 if tables.addresses.va_actual == 52 else 0
    for _ in range(40):
        va = low + rng.randrange(1 << tables.addresses.va_actual) // block * block
        pa = rng.randrange(1 << 44) // block * block | (rng.getrandbits(52) & high)
        if granule.first_level(tables.addresses.va_bits) < 2 and rng.random() < 0.4:
            entry = tables.entry(va, 2)
            if entry in tables.words:
                continue
            tables.leaf(va, 2, pa, rng.choice([TAGGED, DEVICE]))
        else:
            try:
                for number in range(rng.choice([1, 3, 40])):
                    jump = page * 7 if rng.random() < 0.1 else 0
                    bits = rng.choice([TAGGED, TAGGED, TAGGED | 1 << 7, DEVICE])
                    tables.leaf(va + number * page, 3, pa + number * page + jump, bits)
            except KeyError:
                continue
    mapping = walk(tables).mapping
    expected = plain_rows(tables)
    got = zip(*(getattr(mapping, name).tolist() for name in ("start", "size", "level", "pa")), strict=True)
    assert list(got) == [(start, size, level, pa) for start, size, level, _, pa, _ in expected]
    assert int(mapping.size.sum(dtype=np.uint64)) == (1 << tables.addresses.va_actual) & (1 << 64) - 1
    assert mapping.observed_start.tolist() == [low]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 1100),
            st.integers(1, 40),
            st.sampled_from([0, TAGGED, TAGGED | 1 << 7, DEVICE, 1 << 52 | TAGGED]),
            st.integers(0, 3),
        ),
        max_size=12,
    )
)
@settings(max_examples=60, deadline=None)
def test_any_pattern_of_pages_becomes_the_same_rows_as_entry_by_entry(runs):
    tables = Tables()
    pages = {}
    for first, count, bits, jump in runs:
        for number in range(first, first + count):
            pages[number] = 0x8000_0000 + (number + jump) * 4096 | bits | 3 if bits else 0
            tables.set(0xFFFF000000000000 + number * 4096, 3, pages[number])
    # Equal pages one after another are one repeated row, which entry by entry there is not.
    assume(not any(value and value == pages.get(number + 1) for number, value in pages.items()))
    used = {number // 512 for number, value in pages.items() if value}
    assume(used and used == {number // 512 for number in pages})  # a table of zeros is not believed
    mapping = walk(tables).mapping
    expected = plain_rows(tables)
    assert mapping.start.tolist() == [row[0] for row in expected]
    assert mapping.pa.tolist() == [row[4] for row in expected]


def test_explain_agrees_with_the_rows():
    tables = Tables().leaf(VMEMMAP, 2, 0x12345600000).leaf(0xFFFF000000000000, 3, 0x7000)
    mapping = walk(tables).mapping
    for va in (VMEMMAP + 0x1234, 0xFFFF000000000010, 0xFFFF000000001000):
        row = int(np.searchsorted(mapping.start, np.uint64(va), side="right")) - 1
        step = explain(tables.memory, tables.addresses, va)[-1]
        assert step.level == mapping.level[row]
        if mapping.attrs[row]:
            assert step.output == mapping.pa[row] + np.uint64(va) - mapping.start[row]
        else:
            assert (step.descriptor, step.output) == (0, None)


def test_lpa2_takes_the_top_address_bits_from_the_shareability_field():
    tables = Tables(4096, 52).leaf(0xFFF0000000000000, 3, 0xF_8000_0000_0000 + 0x5000, 0x0068_0000_0000_0400)
    mapping = walk(tables).mapping
    row = int(np.flatnonzero(mapping.present)[0])
    assert int(mapping.pa[row]) == 0xF_8000_0000_5000
    assert not mapping.attrs[row] & Attr.SHARED


def test_64k_pages_take_the_top_address_bits_from_bits_15_to_12():
    mapping = walk(Tables(65536, 52).leaf(0xFFF0000000000000, 3, 0xA_0000_0123_0000)).mapping
    assert int(mapping.pa[mapping.present][0]) == 0xA_0000_0123_0000


def test_an_entry_that_is_present_and_invalid_is_not_a_hole():
    value = 0x0068_0000_8000_5406
    mapping = walk(Tables().set(0xFFFF000000005000, 3, value)).mapping
    row = int(np.flatnonzero(mapping.present)[0])
    assert not mapping.attrs[row] & Attr.VALID
    assert mapping.attrs[row] & Attr.AF
    assert int(mapping.pa[row]) == 0x8000_5000


def test_a_value_that_follows_an_empty_entry_by_one_page_is_seen():
    mapping = walk(Tables().set(0xFFFF000000001000, 3, 0x1000)).mapping
    assert mapping.start[mapping.present].tolist() == [0xFFFF000000001000]


@pytest.mark.parametrize(
    ("image_index", "other_index", "expected"),
    [
        (4, 1, (MemType.NORMAL, MemType.DEVICE_nGnRE)),  # before 5.10
        (0, 5, (MemType.NORMAL, MemType.DEVICE_nGnRE)),  # 5.10 to 5.13
        (0, 4, (MemType.NORMAL, MemType.DEVICE_nGnRE)),  # 5.14 and later
        (0, 3, (MemType.NORMAL, MemType.DEVICE_nGnRnE)),
        (0, 1, (MemType.NORMAL, MemType.NORMAL_TAGGED)),
        (0, 7, (MemType.NORMAL, MemType.UNKNOWN)),
    ],
)
def test_memory_types_follow_the_numbering_that_the_tables_show(image_index, other_index, expected):
    bits = 0x0068_0000_0000_0700
    tables = Tables()
    swapper = tables.addresses.swapper_pg_dir
    tables.leaf(swapper - 4096, 3, 0x40000000, bits | image_index << 2)
    tables.leaf(0xFFFF000000000000, 3, 0x1000, bits | other_index << 2)
    tables.addresses = tables.addresses.with_image(swapper - 0x10000, swapper + 0x10000)
    mapping = walk(tables).mapping
    kinds = mapping.memtype[mapping.present].tolist()
    assert kinds == [expected[1], expected[0]]


def test_reserved_descriptors_are_named_and_do_not_translate():
    tables = Tables().set(0xFFFF000000000000, 3, 0x8000_0401).set(VMEMMAP, 0, 0x8000_0401)
    result = walk(tables)
    assert len(result.diagnostics) == 2
    assert "0x80000401" in result.diagnostics[0].message
    assert not result.mapping.valid.any()


@pytest.mark.parametrize("first", [0, UXN_TABLE | ACCESS_FLAG], ids=["alike", "attributes"])
def test_the_shared_shadow_of_kasan_is_one_row(first):
    """All of kasan_early_shadow_pud, _pmd and _pte point at one page: 32 TiB in four table pages.

    The first entry of each may have other table attributes.
    """
    tables = Tables()
    pud, pmd, pte, page = (tables.new_table() for _ in range(4))
    for index in range(512):
        tables.words[pud + 8 * index] = pmd | 3
        tables.words[pmd + 8 * index] = pte | 3
        tables.words[pte + 8 * index] = page | 0x0060_0000_0000_0783
    tables.words[pud] |= first
    tables.words[pmd] |= first
    start = 0xFFFF600000000000
    for index in range(64):
        tables.words[tables.root_pa + 8 * (((start >> 39) & 511) + index)] = pud | 3
    begin = time.perf_counter()
    result = walk(tables)
    assert time.perf_counter() - begin < 1
    mapping = result.mapping
    row = int(np.flatnonzero(mapping.present)[0])
    assert (int(mapping.start[row]), int(mapping.size[row]), int(mapping.pa[row])) == (start, 64 << 39, page)
    assert result.repeated.tolist() == [number == row for number in range(len(mapping))]
    assert result.diagnostics == ()
    assert len(mapping.tables.pa) == 4
    assert (result.table_descriptor & UXN_TABLE == 0).all()


def test_a_repeated_table_that_is_not_uniform_is_written_out():
    tables = Tables()
    pte = tables.new_table()
    tables.words[pte] = 0x9000 | TAGGED | 3
    for index in range(3):
        tables.set(0xFFFF000000000000 + (index << 21), 2, pte | 3)
    mapping = walk(tables).mapping
    starts = mapping.start[mapping.present].tolist()
    assert starts == [0xFFFF000000000000 + (index << 21) for index in range(3)]
    assert mapping.pa[mapping.present].tolist() == [0x9000] * 3


def _ladder(tables):
    """Alternating references at every level: 2**9 times as many paths with each level."""
    a, b, c, d, e, f = (tables.new_table() for _ in range(6))
    words = {}
    for index in range(512):
        words[tables.root_pa + 8 * index] = (a, b)[index % 2] | 3
        for upper, lower in ((a, (c, d)), (b, (d, c)), (c, (e, f)), (d, (f, e))):
            words[upper + 8 * index] = lower[index % 2] | 3
    return words


CORRUPTIONS = {
    "a root that points at itself everywhere": lambda t: {t.root_pa + 8 * i: t.root_pa | 3 for i in range(512)},
    "a recursive entry": lambda t: {t.root_pa + 8 * 300: t.root_pa | 3},
    "a PUD table used as PMD table": lambda t: {
        t.entry(0xFFFF000000000000, 1): t.words[t.root_pa] & ~0xFFF | 3,
    },
    "tables in MMIO": lambda t: {t.root_pa + 8 * i: 0x0900_0000 + i * 4096 | 3 for i in range(1, 200)},
    "tables at the moon": lambda t: {t.root_pa + 8 * i: 0xFFFF_FFFF_F000 - i * 4096 | 3 for i in range(1, 200)},
    "all ones": lambda t: {t.root_pa + 8 * i: (1 << 64) - 1 for i in range(1, 512)},
    "two tables that share each other's entries": _ladder,
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corrupt_tables_end_in_diagnostics_within_a_second(name):
    tables = Tables().leaf(0xFFFF000000000000, 3, 0x5000)
    changes = CORRUPTIONS[name](tables)
    memory = PatchedMemory(tables.memory, {pa: word(value) for pa, value in changes.items()})
    begin = time.process_time()
    result = walk(tables, memory)
    assert time.process_time() - begin < 1.5
    assert 1 <= len(result.diagnostics) <= 17
    assert all("0x" in item.message or "more of these" in item.message for item in result.diagnostics)
    mapping = result.mapping
    inside = np.zeros(len(mapping), bool)
    for start, last in zip(mapping.observed_start, mapping.observed_last, strict=True):
        inside |= (mapping.start >= start) & (mapping.last <= last)
    assert inside.all()
    covered = sum(mapping.size.tolist())
    assert covered == sum(
        last - start + 1
        for start, last in zip(mapping.observed_start.tolist(), mapping.observed_last.tolist(), strict=True)
    )


def test_a_missing_table_is_unobserved_and_named():
    tables = Tables().leaf(0xFFFF000000000000, 3, 0x5000).leaf(VMEMMAP, 2, 0x80000000)
    lost = tables.words[tables.entry(0xFFFF000000000000, 2)] & ~0xFFF
    result = walk(tables, PatchedMemory(tables.memory, missing=[lost]))
    mapping = result.mapping
    assert mapping.observed_start.tolist() == [0xFFFF000000200000]
    assert mapping.start.min() == 0xFFFF000000200000
    assert "not in the dump" in result.diagnostics[0].message
    assert hex(tables.entry(0xFFFF000000000000, 2) & ~0xFFF) in result.diagnostics[0].message
    step = explain(PatchedMemory(tables.memory, missing=[lost]), tables.addresses, 0xFFFF000000000000)[-1]
    assert (step.descriptor, step.table_pa) == (None, lost)


def test_a_missing_root_leaves_everything_unknown():
    tables = Tables().leaf(VMEMMAP, 2, 0x80000000)
    result = walk(tables, PatchedMemory(tables.memory, missing=[tables.root_pa]))
    assert len(result.mapping) == 0
    assert result.mapping.observed_start.size == 0
    assert "swapper_pg_dir" in result.diagnostics[0].message


def test_table_attributes_are_in_the_walk():
    tables = Tables().leaf(VMEMMAP, 2, 0x80000000)
    tables.words[tables.entry(VMEMMAP, 1)] |= 1 << 59 | 1 << 60
    steps = explain(tables.memory, tables.addresses, VMEMMAP)
    assert "(PXNTable UXNTable)" in steps[1].meaning
    assert walk(tables).table_descriptor[-1] >> np.uint64(59) == 3

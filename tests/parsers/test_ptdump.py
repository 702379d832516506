"""Page-table dumps as captured from real kernels, and the traits that changed from one kernel to the next."""

import doctest
from pathlib import Path

import numpy as np
import pytest

from parsers import ptdump as package
from parsers.arm64 import Attr, LevelWord, MemType
from parsers.ptdump import AttributeColumns, PageTableDump, UnknownWord, WxLine, parse, render

PTDUMP = Path(__file__).parents[2] / "fixtures" / "ptdump"
LAB = sorted(PTDUMP.glob("lab-*.txt"))
TOP = 1 << 64
NORMAL = Attr.PRESENT | Attr.VALID | Attr.PXN | Attr.SHARED | Attr.AF | Attr.UXN
ATTRS = "       RW NX SHD AF            UXN    MEM/NORMAL"


def load(name: str) -> PageTableDump:
    return parse((PTDUMP / name).read_bytes(), name)


def text(*rows: str) -> bytes:
    return "".join(f"{row}\n" for row in rows).encode()


def read(*rows: str) -> PageTableDump:
    return parse(text(*rows), "kernel_page_tables")


def row(start: int, size: int, rest: str = f" PTE{ATTRS}") -> str:
    return f"0x{start:016x}-0x{(start + size) % TOP:016x}   {size >> 10:9}K{rest}"


BASE = 0xFFFF << 48
PAGE = 4096


@pytest.mark.parametrize("path", LAB, ids=lambda path: path.stem)
def test_rendering_a_captured_dump_gives_its_bytes_again(path: Path) -> None:
    data = path.read_bytes()
    dump = parse(data, str(path))
    assert dump.diagnostics == ()
    assert render(dump.to_mapping(48, PAGE), 48, PAGE) == data


def test_rendering_a_4_14_dump_gives_its_bytes_again() -> None:
    data = (PTDUMP / "android-4.14-4k-39bit.txt").read_bytes()
    _, _, dump_text = data.partition(b"\n")  # the prompt
    mapping = parse(data, "").to_mapping(39, PAGE)
    assert render(mapping, 39, PAGE, AttributeColumns.LINUX_4_10) == dump_text


def test_the_captured_damage_is_a_hole_of_one_pmd_in_vmemmap() -> None:
    mapping = load("lab-6.12-pmem-removed.txt").to_mapping(48, PAGE)
    struct_pages = np.uint64(0xFFFFFDFFC0000000 + 0x80000 * 64)
    at = int(np.flatnonzero((mapping.start <= struct_pages) & (struct_pages <= mapping.last))[0])
    assert not mapping.present[at]
    assert mapping.level[at] == 2
    assert mapping.observed_start.tolist() == [BASE]
    assert mapping.observed_last.tolist() == [TOP - 1]
    assert mapping.quote is not None
    assert f"0x{int(mapping.start[at]):016x}-" in mapping.quote(at)


def test_android_4_14_prints_no_holes() -> None:
    dump = load("android-4.14-4k-39bit.txt")
    assert not dump.prints_holes
    assert not dump.break_before.any()
    assert len(dump) == 90
    mapping = dump.to_mapping(39, PAGE)
    assert mapping.level[-3:].tolist() == [2, 2, 1]  # the last one is a 1G block that is printed PGD
    assert mapping.observed_start.tolist() == [0xFFFFFF8000000000]  # the markers before it say so
    assert mapping.observed_last.tolist() == [0xFFFFFFC07FFFFFFF]
    assert [marker.name for marker in mapping.markers][:3] == ["Modules start", "Modules end", "vmalloc() Area"]
    assert mapping.markers[-1].name == "Linear Mapping"
    assert int(mapping.start[mapping.markers[-1].row]) == 0xFFFFFFC000000000


def test_zero_descriptors_printed_as_attributes_are_holes() -> None:
    dump = load("patched-6.9-printed-holes.txt")
    assert dump.prints_holes
    assert not dump.break_before.any()
    assert not dump.attrs[0]
    assert not dump.memtype[dump.attrs == 0].any()
    assert dump.markers[0].name == "Linear Mapping start"
    vmemmap = 0xFFFFFE01D1000000
    assert hex(dump.start[(dump.attrs != 0) & (dump.start >= 0xFFFFFDFFC0000000)][0]) == hex(vmemmap)


def test_a_shortened_dump_has_breaks_and_says_which_rows_it_left_out() -> None:
    dump = load("kasan-16k-47bit.txt")
    assert [(each.line, each.column) for each in dump.diagnostics] == [(3, 19), (5, 9)]
    mapping = dump.to_mapping(47, 16384)
    assert np.flatnonzero(dump.break_before).tolist() == [0, 2, 6, 11]
    assert len(mapping.observed_start) == 4
    assert {marker.name for marker in dump.markers} >= {"Kasan shadow start", "Kasan shadow end"}
    hole = mapping.level[~mapping.present]
    assert set(hole.tolist()) == {3, 2, 1}  # 16K/47: PGD is level 1


def test_lpa2_has_five_levels_and_no_shareability() -> None:
    dump = load("lpa2-4k-52bit.txt")
    assert dump.word[-1] == LevelWord.P4D
    mapping = dump.to_mapping(52, PAGE)
    assert mapping.level[-1] == 0
    assert not mapping.has(Attr.SHARED).any()
    assert mapping.has(Attr.AF).any()


def test_a_quoted_mail_reads_like_the_dump_it_quotes() -> None:
    dump = load("quoted-mail-6.17.txt")
    assert len(dump) == 11
    assert dump.diagnostics == ()
    assert dump.line[0] == 4
    assert dump.quote(0).startswith("> 0xffff000000000000-")


def test_columns_have_their_types() -> None:
    dump = load("lab-6.12-dimm-online.txt")
    for column, dtype in (
        (dump.start, "u8"),
        (dump.size, "u8"),
        (dump.word, "u1"),
        (dump.attrs, "u2"),
        (dump.memtype, "u1"),
        (dump.line, "u4"),
        (dump.break_before, "?"),
    ):
        assert column.dtype == np.dtype(dtype)
        assert len(column) == len(dump)


@pytest.mark.parametrize(
    ("rest", "attrs", "memtype"),
    [
        (ATTRS, NORMAL, MemType.NORMAL),
        ("       ro x  SHD AF NG     BLK UXN GP DEVICE/nGnRE", None, MemType.DEVICE_nGnRE),
        (" F     RW NX SHD AF            UXN    MEM/NORMAL-TAGGED", NORMAL & ~Attr.VALID, MemType.NORMAL_TAGGED),
        (" F USR ro NX SHD AF NG CON BLK UXN GP MEM/NORMAL-NC", None, MemType.NORMAL_NC),
        ("       RW NX SHD AF        DEVICE/GRE", NORMAL & ~Attr.UXN, MemType.DEVICE_GRE),
        ("       RW NX SHD AF            UXN", NORMAL, MemType.UNKNOWN),
        ("       RW NX SHD AF            UXN    ", NORMAL, MemType.UNKNOWN),
        (" F     RW x                BLK        MEM/NORMAL", Attr(0), MemType.UNKNOWN),
    ],
)
def test_attributes_are_read_by_word(rest: str, attrs: Attr | None, memtype: MemType) -> None:
    words = {
        "USR": Attr.USER,
        "ro": Attr.RDONLY,
        "NX": Attr.PXN,
        "SHD": Attr.SHARED,
        "AF": Attr.AF,
        "NG": Attr.NG,
        "CON": Attr.CONT,
        "BLK": Attr.BLOCK,
        "UXN": Attr.UXN,
        "GP": Attr.GP,
    }
    if attrs is None:
        attrs = Attr.PRESENT | (Attr(0) if " F " in rest else Attr.VALID)
        for word in rest.split():
            attrs |= words.get(word, Attr(0))
    dump = read(row(BASE, PAGE, " PTE" + rest))
    assert Attr(int(dump.attrs[0])) == attrs
    assert dump.memtype[0] == memtype
    assert not dump.unknown_words


def test_without_level_words_blocks_are_pmds() -> None:
    old = "       RW NX SHD AF        {} UXN MEM/NORMAL"
    dump = read(row(BASE, 2 << 20, old.format("BLK")), row(BASE + (2 << 20), PAGE, old.format("   ")))
    assert dump.word.tolist() == [LevelWord.NONE] * 2
    assert dump.to_mapping(48, PAGE).level.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("word", "size", "va_bits", "page_size", "level"),
    [
        ("PGD", 512 << 20, 42, 65536, 2),  # up to 6.11
        ("PMD", 512 << 20, 42, 65536, 2),  # since 6.12
        ("PGD", 1 << 30, 39, PAGE, 1),
        ("PUD", 1 << 30, 48, PAGE, 1),
        ("PMD", 32 << 20, 47, 16384, 2),
    ],
)
def test_folded_levels_come_from_the_geometry(word: str, size: int, va_bits: int, page_size: int, level: int) -> None:
    start = TOP - (1 << va_bits)
    dump = read(row(start, size, f" {word}       RW NX SHD AF        BLK UXN    MEM/NORMAL"))
    assert dump.to_mapping(va_bits, page_size).level.tolist() == [level]


def test_the_last_byte_of_the_address_space_is_reached() -> None:
    dump = read(row(TOP - PAGE, PAGE, " PTE"))
    assert dump.start.tolist() == [TOP - PAGE]
    assert dump.to_mapping(48, PAGE).last.tolist() == [TOP - 1]


def test_a_first_row_from_address_0_is_clipped_to_the_linear_map() -> None:
    mapped = BASE + (1 << 30)
    dump = read(row(0, mapped, " PGD"), row(mapped, PAGE), row(mapped + PAGE, PAGE, " PTE"))
    assert "5.6 to 5.11" in str(dump.diagnostics[0])
    mapping = dump.to_mapping(48, PAGE)
    assert mapping.start[:2].tolist() == [BASE, mapped]
    assert mapping.size[0] == 1 << 30


def test_a_first_row_that_ends_at_the_linear_map_is_left_out() -> None:
    dump = read(
        "---[ Modules start ]---", row(0, BASE, " PGD"), "---[ x ]---", row(BASE, PAGE), row(BASE + PAGE, PAGE, " PTE")
    )
    mapping = dump.to_mapping(48, PAGE)
    assert mapping.start.tolist() == [BASE, BASE + PAGE]
    assert [marker.row for marker in mapping.markers] == [0, 0]
    assert mapping.quote is not None
    assert mapping.quote(0) == dump.quote(1)


def test_inclusive_ends_are_a_dialect() -> None:
    rows = [f"0x{BASE + n * PAGE:016x}-0x{BASE + n * PAGE + 4095:016x}   {4:9}K PTE{ATTRS}" for n in range(3)]
    dump = read(*rows)
    assert dump.inclusive_end
    assert dump.size.tolist() == [PAGE] * 3
    mixed = read(*rows, row(BASE + 3 * PAGE, PAGE))
    assert len(mixed) == 3
    assert mixed.diagnostics[0].line == 4


def test_rows_about_table_entries_are_left_out() -> None:
    table = f"0x{BASE:016x}-0x{BASE + 127:016x}   {128:9}B PTE TBL PXNTbl UXNTbl"
    dump = read(table, f"0x{BASE:016x}-0x{BASE + 4095:016x}   {4:9}K PTE{ATTRS}")
    assert dump.size.tolist() == [PAGE]
    assert [each.line for each in dump.diagnostics] == [1]


def test_unknown_words_are_kept_and_reported_once() -> None:
    rows = [row(BASE + n * PAGE, PAGE, f" PTE{ATTRS.replace('UXN    ', 'UXN    PBHA0 ')}") for n in range(3)]
    dump = read("---[ vmemmap start ]---", *rows)
    assert dump.unknown_words == {"PBHA0": UnknownWord(3, 2)}
    assert len(dump.diagnostics) == 1
    assert dump.memtype.tolist() == [MemType.NORMAL] * 3


def test_callers_do_not_multiply_the_unknown_words() -> None:
    rows = [row(BASE + n * PAGE, PAGE, f" PTE{ATTRS}\tcaller: function_{n}+0x10/0x20") for n in range(5000)]
    dump = read(*rows)
    assert len(dump) == 5000
    assert dump.unknown_words == {"caller:": UnknownWord(5000, 1)}
    assert dump.quote(7).endswith("\tcaller: function_7+0x10/0x20")


def test_the_wx_check_is_kept_with_its_lines() -> None:
    dump = read(
        "[    1.0] arm64/mm: Found insecure W+X mapping at address (____ptrval____)/0xffff800008000000",
        "[    1.1] Checked W+X mappings: FAILED, 3 W+X pages found, 0 non-UXN pages found",
        row(BASE, PAGE),
    )
    assert dump.wx_check[1] == WxLine(2, "Checked W+X mappings: FAILED, 3 W+X pages found, 0 non-UXN pages found")
    assert dump.wx_check[0].text.startswith("arm64/mm: Found insecure W+X mapping")


def test_an_oops_in_the_text_is_not_a_marker() -> None:
    dump = read("------------[ cut here ]------------", row(BASE, PAGE), "---[ end trace 0000000000000000 ]---")
    assert dump.markers == ()


def test_other_text_breaks_a_dump_only_where_holes_are_not_printed() -> None:
    old = "       RW NX SHD AF            UXN MEM/NORMAL"
    without_holes = read(
        row(BASE, PAGE, " PTE" + old), "[snip]", row(BASE + PAGE, PAGE, " PTE" + old.replace("RW", "ro"))
    )
    assert without_holes.break_before.tolist() == [False, True]
    with_holes = read(row(BASE, PAGE), "[snip]", row(BASE + PAGE, PAGE, " PTE"))
    assert with_holes.break_before.tolist() == [False, False]
    jump = read(row(BASE, PAGE), row(BASE + 2 * PAGE, PAGE))
    assert jump.break_before.tolist() == [False, True]


def test_the_documented_example_holds() -> None:
    assert doctest.testmod(package).attempted
    assert doctest.testmod(package).failed == 0

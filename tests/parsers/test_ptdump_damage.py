"""Damaged, foreign and hostile texts: a diagnostic or one of our errors, never anything else."""

import time
from pathlib import Path

import pytest

from parsers.errors import FormatError, InputError, WrongFormatError
from parsers.ptdump import looks_like, parse
from tests.parsers.test_ptdump import BASE, LAB, PAGE, PTDUMP, read, row, text

GOOD = row(BASE, PAGE)
AFTER = row(BASE + 2 * PAGE, PAGE)


@pytest.mark.parametrize(
    ("bad", "column", "words"),
    [
        (row(BASE + PAGE, PAGE).replace("4K PTE", "8K PTE"), 49, "the size 8K"),
        (f"0x{BASE + PAGE:016x}-0x{BASE:016x}   {4:9}K PTE", 22, "before it starts"),
        (row(BASE + PAGE, PAGE).replace("0xffff0", "0xfffg0", 1), 6, "hexadecimal"),
        (f"0x{BASE + PAGE:016x}-0x{BASE + PAGE:016x}   {0:9}E PTE", 22, "before it starts"),
        (f"0x{BASE + PAGE:016x}-0x{BASE + 2 * PAGE:016x}", 38, "no size"),
        (row(BASE + PAGE, PAGE)[:30], 31, "hexadecimal"),
        (row(BASE + PAGE, PAGE, " PTE       RW NX SHD"), 51, "before the memory type"),
        (row(BASE + PAGE, PAGE, " PTE"), None, ""),
        (row(BASE + PAGE, PAGE, ""), 51, "neither a level nor attributes"),
        (row(BASE + PAGE, PAGE, " PTE       RW"), 51, "neither of NX and x"),
        (row(BASE + PAGE, PAGE) + row(BASE + PAGE, PAGE), 51, "among the attributes"),
        (row(0, PAGE), None, "below the kernel's half"),
        (row(BASE - (1 << 40), PAGE), None, "goes back"),
    ],
)
def test_a_bad_row_is_reported_and_the_rest_is_read(bad: str, column: int | None, words: str) -> None:
    dump = read(GOOD, bad, AFTER)
    if not words:  # the one good case among them
        assert len(dump) == 3
        return
    assert dump.start.tolist() == [BASE, BASE + 2 * PAGE]
    assert [(each.line, each.column) for each in dump.diagnostics] == [(2, column)]
    assert words in dump.diagnostics[0].message
    assert dump.break_before.tolist() == [False, True]


def test_one_stray_address_does_not_hide_what_follows() -> None:
    dump = read(GOOD, row(BASE + (1 << 40), PAGE), row(BASE + PAGE, PAGE), AFTER)
    assert dump.start.tolist() == [BASE, BASE + PAGE, BASE + 2 * PAGE]
    assert dump.diagnostics[0].line == 2


def test_a_second_dump_in_the_same_text_is_not_read() -> None:
    data = LAB[0].read_bytes()
    once, twice = parse(data, ""), parse(data + data, "")
    assert twice.start.tolist() == once.start.tolist()
    assert "goes back" in str(twice.diagnostics[0])
    assert twice.diagnostics[0].line == data.count(b"\n") + 2


@pytest.mark.parametrize("cut", range(1, 120, 7))
def test_a_text_that_ends_anywhere_claims_nothing_about_its_last_row(cut: int) -> None:
    whole = text(GOOD, row(BASE + PAGE, PAGE, " PTE"), row(BASE + 2 * PAGE, PAGE, " PTE       ro NX SHD AF"))
    whole += text(row(BASE + 3 * PAGE, PAGE, " PMD"))
    known = {0: BASE, 1: BASE + PAGE}
    dump = parse(whole[:-cut], "")
    assert dump.start.tolist() == [known[number] for number in range(len(dump))]
    complete = whole[:-cut].count(b"\n")
    assert len(dump) == min(complete, 2)


def test_a_last_row_without_newline_is_read_where_it_is_whole() -> None:
    last = row(2**64 - PAGE, PAGE, " PTE")
    assert len(parse(text(GOOD, last).rstrip(b"\n"), "")) == 2
    assert len(parse(text(GOOD, AFTER).rstrip(b"\n"), "")) == 2


def test_a_text_that_starts_in_the_middle_of_a_row() -> None:
    data = LAB[0].read_bytes()
    dump = parse(data[60:], "")
    assert len(dump) == len(parse(data, "")) - 1


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"hello\n", b"---[ Linear Mapping start ]---\n", b"0x", b"-" * 99, b"\r\n" * 9]
)
def test_a_text_without_rows_is_an_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse(data, "x")


@pytest.mark.parametrize("data", [b"\0" * 100_000, bytes(range(256)) * 400, GOOD.encode("utf-16")])
def test_binary_data_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"binary|UTF-16"):
        parse(data, "x")


def test_a_dump_of_wrapped_lines_says_so() -> None:
    head, attributes = GOOD.split("UXN")
    with pytest.raises(FormatError, match="wrapped") as raised:
        parse(text(head, "UXN" + attributes) * 3, "x")
    assert raised.value.line == 1


FOREIGN = {
    "stage-2": (PTDUMP / "foreign-stage2.txt").read_bytes(),
    "x86": (PTDUMP / "foreign-x86.txt").read_bytes(),
    "efi_page_tables": b"---[ UEFI runtime start ]---\n"
    + text(row(0x20000000, 1 << 20, " PTE       RW NX SHD AF NG         UXN    MEM/NORMAL")),
    "riscv": b"0xffffffd800000000-0xffffffd800200000    0x0000000080200000         2M PMD     D A G . . W R V\n",
    "powerpc": b"0xc000000000000000-0xc00000000fffffff  0x0000000000000000       256M        r  X   pte  valid\n",
    "32-bit Arm": b"0xc0000000-0xc0008000          32K     RW NX SHD\n",
    "s390": b"0x001bfffff4000000-0x001bfffff4100000         1M PTE RW NX\n",
    "below the kernel's half": text(row(0x400000, PAGE, " PTE   USR ro NX SHD AF NG         UXN    MEM/NORMAL")),
    "all 0": text(f"0x{0:016x}-0x{0:016x}   {4:9}K PTE       RW NX SHD AF            UXN    MEM/NORMAL") * 3,
    "hashed": b"0000000012345678-00000000abcdef01           4K PTE       RW NX SHD AF            UXN MEM/NORMAL\n",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_dumps_are_named(name: str) -> None:
    assert looks_like(FOREIGN[name])
    with pytest.raises(WrongFormatError, match=name) as raised:
        parse(FOREIGN[name], "x")
    assert "kernel_page_tables" in raised.value.message


def test_a_foreign_dump_far_down_in_a_log_is_named_too() -> None:
    filler = b"".join(b"[%5d.000000] systemd[1]: Started.\n" % number for number in range(4000))
    with pytest.raises(WrongFormatError, match="x86"):
        parse(filler + b"0xffff880001000000-0xffff880001a00000          10M     ro         PSE GLB NX pmd\n", "x")


def test_a_note_in_the_margin_makes_no_x86_dump() -> None:
    dump = read(GOOD + "  <- the last pte", row(BASE + PAGE, PAGE, " PTE"), AFTER)
    assert len(dump) == 3


def test_firmware_tables_after_the_kernels_are_left_out() -> None:
    dump = parse(LAB[0].read_bytes() + FOREIGN["efi_page_tables"], "")
    assert dump.start.tolist() == parse(LAB[0].read_bytes(), "").start.tolist()
    assert "below the kernel's half" in str(dump.diagnostics)


@pytest.mark.parametrize(
    "path", [*LAB, PTDUMP / "quoted-mail-6.17.txt", PTDUMP / "android-4.14-4k-39bit.txt"], ids=lambda path: path.stem
)
def test_dumps_are_recognised(path: Path) -> None:
    assert looks_like(path.read_bytes()[:4096])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"40000000-13fffffff : System RAM\n",
        b"[    0.000000] Early memory node ranges\n[    0.0]   node   0: [mem 0x0000000040000000-0x000000004fffffff]\n",
        b"0xffff800080000000-0xffff800080005000   20480 start_kernel+0x10/0x20 pages=4 vmalloc\n",
        b"00400000-00452000 r-xp 00000000 08:02 173521  /usr/bin/dbus-daemon\n",
    ],
)
def test_other_texts_are_not_taken_for_dumps(data: bytes) -> None:
    assert not looks_like(data)


def test_diagnostics_are_capped_and_counted() -> None:
    lines = [
        GOOD,
        *(row(BASE, PAGE).replace("4K", "8K") for _ in range(3000)),
        *("0xzz" + GOOD for _ in range(500)),
        AFTER,
    ]
    dump = read(*lines, *(f"0x{n:04x}" for n in range(500)))
    assert len(dump) == 2
    assert len(dump.diagnostics) == 101
    assert "more diagnostics" in dump.diagnostics[-1].message


def test_thousands_of_different_attributes_stay_bounded() -> None:
    dump = read(*(row(BASE + n * PAGE, PAGE) + f" note{n}" for n in range(6000)))
    assert len(dump) <= 4096
    assert len(dump.diagnostics) == 101


@pytest.mark.parametrize(
    "data", [b"0x" * 10_000_000, b"-" * 20_000_000, b"0xffff-" * 3_000_000, b"> " * 10_000_000], ids=len
)
def test_a_line_without_end_does_not_hang(data: bytes) -> None:
    begin = time.perf_counter()
    with pytest.raises(InputError):
        parse(data, "x")
    assert time.perf_counter() - begin < 5


def test_rows_after_a_line_without_end_are_read() -> None:
    dump = parse(text(GOOD) + b"x" * 3_000_000 + b"\n" + text(AFTER), "")
    assert dump.line.tolist() == [1, 3]
    assert dump.break_before.tolist() == [False, True]
    assert dump.quote(1) == AFTER


@pytest.mark.parametrize("character", [b"\0", b"\xff", b"\x1b[0m", b"(", b"%"])
def test_one_damaged_byte_costs_one_row_at_most(character: bytes) -> None:
    data = bytearray(LAB[0].read_bytes())
    rows = len(parse(bytes(data), ""))
    for offset in range(100, 1000, 37):
        damaged = bytes(data[:offset]) + character + bytes(data[offset + 1 :])
        assert len(parse(damaged, "")) >= rows - 2  # a newline may be hit

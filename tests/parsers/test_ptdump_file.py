"""A dump that is read from the disk piece by piece is the dump that is read from memory."""

from __future__ import annotations

import re
import tracemalloc
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from analyzer.sources.recognise import documents_of
from parsers.errors import InputError, PtauditError
from parsers.ptdump import PageTableDump, parse, parse_file
from parsers.ptdump.pieces import PIECE_BYTES
from tests.parsers.test_ptdump import BASE, PAGE, row, text

FIXTURES = Path(__file__).parent.parent.parent / "fixtures"
DUMPS = sorted({path.read_bytes(): path for path in FIXTURES.rglob("*kernel_page_tables*") if path.is_file()}.values())
ROWS = text(*(row(BASE + number * PAGE, PAGE) for number in range(40_000)))
LONG_LINE = b"x" * (2 * PIECE_BYTES + 100)

TEXTS = {
    "rows": ROWS,
    "no newline at the end": ROWS[:-1],
    "cut in a row": ROWS[:-60],
    "line ends of two bytes": ROWS.replace(b"\n", b"\r\n"),
    "a prefix": ROWS.replace(b"\n", b"\n[    1.234567] "),
    "no-break spaces": ROWS.replace(b"  4K", b"\xc2\xa0 4K"),
    "a long line before": LONG_LINE + b"\n" + ROWS,
    "a long line between": ROWS[:93] + ROWS[: ROWS.index(b"\n") + 1] + LONG_LINE + b"\n" + ROWS,
    "a long line at the end": ROWS + LONG_LINE,
    "a long line that ends with a piece": ROWS + b"y" * (2 * PIECE_BYTES - 1) + b"\n",
    "damage": ROWS.replace(b"0-0xffff", b"0-0xfffg", 300),
    "no row": b"nothing\n" * 300_000,
    "rows of another architecture": b"0xffff888000000000-0xffff888000200000 2M RW PSE GLB NX pmd\n" * 30_000,
    "the same before those of arm64": b"---[ User Space ]---\n" * 60_000 + ROWS,
}


def differences(one: PageTableDump, other: PageTableDump) -> list[str]:
    """The fields in which two dumps differ."""
    names = (each.name for each in fields(PageTableDump) if each.name != "line_index")
    return [name for name in names if not np.array_equal(getattr(one, name), getattr(other, name))]


def assert_read_alike(data: bytes, path: Path) -> None:
    """A file is read from the disk as it is from memory, and all its bytes are seen in order."""
    path.write_bytes(data)
    seen: list[bytes] = []
    try:
        of_memory = parse(data, "dump")
    except PtauditError as error:
        with pytest.raises(type(error), match=f"^{re.escape(str(error))}$"):
            parse_file(path, "dump")
        return
    of_file = parse_file(path, "dump", lambda piece: seen.append(bytes(piece)))
    assert differences(of_memory, of_file) == []
    for number in {0, len(of_memory) // 2, len(of_memory) - 1}:
        assert of_file.quote(number) == of_memory.quote(number)
    assert b"".join(seen) == data


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_is_read_alike_from_disk_and_memory(name: str, tmp_path: Path) -> None:
    assert_read_alike(TEXTS[name], tmp_path / "dump")


def test_every_dump_of_the_fixtures_is_read_alike_from_disk_and_memory(tmp_path: Path) -> None:
    assert len(DUMPS) > 30
    for path in DUMPS:
        assert_read_alike(path.read_bytes(), tmp_path / "dump")


def test_a_text_of_only_rows_holds_no_other_evidence() -> None:
    found = [data for path in DUMPS if (data := path.read_bytes()) and _only_rows(data)]
    assert len(found) > 30
    for data in [*found, TEXTS["rows"], TEXTS["cut in a row"], TEXTS["no newline at the end"]]:
        assert _only_rows(data)
        assert [(one.kind.name, one.data, one.part) for one in documents_of(data)] == [("ptdump", data, False)]


def _only_rows(data: bytes) -> bool:
    try:
        return parse(data, "dump").only_rows
    except PtauditError:
        return False


@pytest.mark.parametrize(
    "line",
    [
        b"prose",
        b"> " + row(BASE, PAGE).encode(),
        b"0x0000000040000000-0x000000007fffffff    1G online       yes  8-15",
        row(BASE + PAGE, PAGE).encode() + b" online",
        b"40000000-7fffffff : System RAM",
        b"[    1.000000] Unable to handle kernel paging request at virtual address fffffdffc0000000",
        b"---[ end trace 0000000000000000 ]---",
        b"  ---[ Modules start ]---",
        b"0x" + b"z" * 10,
    ],
)
def test_any_other_line_is_noticed(line: bytes) -> None:
    first = row(BASE, PAGE).encode() + b"\n"
    assert parse(first, "dump").only_rows
    assert not parse(first + line + b"\n", "dump").only_rows
    assert not parse(first + line, "dump").only_rows


def test_rows_of_a_file_that_was_written_to_are_written_out(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    path.write_bytes(ROWS)
    dump = parse_file(path, "dump")
    path.write_bytes(b"something else\n" * 300_000)
    quoted = dump.quote(1)
    assert quoted.split()[:3] == dump_words(1)[:3]
    assert quoted.split()[-1] == "NORMAL"


def dump_words(number: int) -> list[str]:
    return ROWS.splitlines()[number].decode().split()


def test_a_file_that_cannot_be_opened_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        parse_file(tmp_path / "none", "dump")


def test_the_text_of_a_file_is_not_held(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    path.write_bytes(ROWS * 4)
    tracemalloc.start()
    try:
        parse_file(path, "dump")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Of which the room for the most rows that may be in it, which takes no memory until it is used, is 0.7.
    assert peak < 1.2 * path.stat().st_size

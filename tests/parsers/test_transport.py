"""Evidence comes through mail: quoted, indented and wrapped rows are read as the rows that were sent."""

from __future__ import annotations

import base64
import doctest
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from analyzer.sources.read import Request, read_sources
from analyzer.sources.recognise import documents_of
from parsers import ftrace, ptdump, transport
from parsers.journal import without_json
from parsers.kinds import KINDS
from parsers.lines import without_transport
from parsers.transport import carried

FIXTURES = Path(__file__).parents[2] / "fixtures"
HOST = FIXTURES / "captures" / "pmem-6.12-vuln" / "02-one-removed"
TABLES = (HOST / "kernel_page_tables").read_bytes()
TRACE = (FIXTURES / "ftrace" / "pmem.trace").read_bytes()


def wrapped(data: bytes, width: int, mark: str = "") -> bytes:
    """As mailers do: lines broken at blanks, each with the mark of a quotation."""
    lines = []
    for line in data.decode().splitlines():
        pieces = textwrap.wrap(
            line, width, drop_whitespace=False, break_long_words=False, break_on_hyphens=False, replace_whitespace=False
        )
        lines += [mark + piece.rstrip() for piece in pieces] or [mark.rstrip()]
    return "\n".join(lines).encode() + b"\n"


def test_docstring() -> None:
    assert doctest.testmod(transport).failed == 0


@pytest.mark.parametrize("mark", ["", "> ", ">>> ", "    ", "> > "])
@pytest.mark.parametrize("width", [68, 72, 76, 80])
def test_page_tables(width: int, mark: str) -> None:
    plain = ptdump.parse(TABLES, "plain")
    (document,) = documents_of(wrapped(TABLES, width, mark))
    read = ptdump.parse(document.data, "mail")
    assert document.kind.name == "ptdump"
    assert not [one for one in read.diagnostics if "left out" in one.message]
    for column in ("start", "size", "attrs"):
        assert np.array_equal(getattr(read, column), getattr(plain, column)), column
    assert [marker.name for marker in read.markers] == [marker.name for marker in plain.markers]


def test_lines_are_those_of_the_mail() -> None:
    mail = wrapped(TABLES, 72, "> ")
    (document,) = documents_of(mail)
    read = ptdump.parse(document.data, "mail")
    lines = mail.decode().splitlines()
    for row in range(0, len(read), 7):
        assert f"{int(read.start[row]):#018x}"[2:] in lines[int(read.line[row]) - 1]


@pytest.mark.parametrize("mark", ["", "> ", "  "])
@pytest.mark.parametrize("width", [72, 76])
def test_traces(width: int, mark: str) -> None:
    plain = ftrace.read(TRACE, path="plain")
    (document,) = documents_of(wrapped(TRACE, width, mark))
    read = ftrace.read(document.data, path="mail")
    assert document.kind.name == "trace"
    assert len(read) == len(plain)
    assert read.events.column("start")[0].tolist() == plain.events.column("start")[0].tolist()


@pytest.mark.parametrize("name", ["iomem", "zoneinfo", "memory_blocks", "config"])
@pytest.mark.parametrize("how", ["> ", "      ", "utf-16", "base64", "no-break", "crlf"])
def test_small_files(name: str, how: str, tmp_path: Path) -> None:
    data = (HOST / name).read_bytes() * (4 if name == "memory_blocks" else 1)  # base64 needs two full lines to be seen
    kind = KINDS[name]
    sent = {
        "utf-16": lambda: data.decode().encode("utf-16"),
        "base64": lambda: base64.encodebytes(data),
        "no-break": lambda: data.replace(b" ", b"\xc2\xa0"),
        "crlf": lambda: data.replace(b"\n", b"\r\n"),
    }.get(how, lambda: b"".join(how.encode() + line for line in data.splitlines(keepends=True)))()
    (tmp_path / "mail.txt").write_bytes(sent)
    (source,) = read_sources(Request((tmp_path / "mail.txt",))).sources
    assert source.kind == name
    (document,) = documents_of(sent)
    plain, read = kind.parse(data, "x"), kind.parse(document.data, "x")
    assert str(read) == str(plain)


def test_prose_is_left_alone() -> None:
    text = b"The range\n0xffff000000000000-0xffff000000200000 is where it died.\nAF is set.\nx\n"
    assert carried(text) == text
    log = (HOST / "dmesg").read_bytes()
    assert carried(log) == log


def test_binary_data_are_left_alone() -> None:
    data = (FIXTURES / "ftrace" / "pmem.dat").read_bytes()
    assert carried(data) is data


def test_nothing_takes_more_than_its_size() -> None:
    for hostile in (
        b"0xffff000000000000-0xffff000000200000 2M PMD\nRW\n" * 50_000,
        b" " * 2_000_000,
        b"\n" * 2_000_000,
        b"> " * 1_000_000,
        b" : x\n" * 300_000,
        b"a-1 [000] \n" * 200_000,
    ):
        assert carried(hostile).count(b"\n") == hostile.count(b"\n")


@pytest.mark.parametrize("mark", [b"> > > > > ", b">>>>> ", b">> > >> ", b"> >>> > "])
def test_quotes_leave_no_blank_behind(mark: bytes) -> None:
    assert without_transport(mark + b"   refcount_t: underflow\n") == b"   refcount_t: underflow\n"


PREFIXES = {
    "grep -n": lambda number: b"%d:" % (number + 1),
    "quote": lambda _: b"| ",
    "compose": lambda _: b"guest-1  | ",
    "syslog": lambda number: b"Nov 21 08:00:%02d host sh[12]: " % (number % 60),
    "journal": lambda _: b"2026-11-27T10:00:00+0100 host sh[12]: ",
    "cri": lambda _: b"2026-11-27T10:00:00.123456789Z stdout F ",
    "moment": lambda _: b"[2026-11-27 10:00:00.123] ",
}


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("name", ["kernel_page_tables", "iomem", "memory_blocks", "zoneinfo", "meminfo", "trace"])
def test_evidence_behind_the_prefixes_of_collectors_is_what_it_was(name: str, prefix: str) -> None:
    data = FIXTURES.joinpath("ftrace/pmem.trace").read_bytes() if name == "trace" else (HOST / name).read_bytes()
    lines = data.splitlines(keepends=True)
    sent = b"".join(PREFIXES[prefix](number) + line for number, line in enumerate(lines))
    assert [(one.kind.name, one.data.split()) for one in documents_of(sent)] == [
        (one.kind.name, one.data.split()) for one in documents_of(data)
    ]


def test_prefixes_of_a_kernel_log_stay() -> None:
    log = b"".join(b"Nov 21 08:00:%02d host kernel: usb 1-1: new device\n" % number for number in range(20))
    assert carried(log) == log


@pytest.mark.parametrize(
    "log",
    [
        b'{"log":"' + b"[    1.000000] a%b" % (b"\\r" * 200_000) + b'"}\n',
        b'[{"msg": "[    1.000000] a\\n[    2.000000] b\\n[    3.000000] c\\n[    4.000000] d\\n'
        + b"\\r" * 200_000
        + b'"}]',
        b'{"dmesg": [{"pri": 6, "time": 1.000000, "msg": "a"' + b" " * 200_000 + b"x",
    ],
    ids=["line ends", "broken", "dmesg -J"],
)
def test_returns_and_blanks_take_linear_time(log):
    start = time.perf_counter()
    log.replace(b"a", b"b").splitlines()
    yardstick = time.perf_counter() - start
    start = time.perf_counter()
    without_json(log)
    assert time.perf_counter() - start < 100 * yardstick + 1

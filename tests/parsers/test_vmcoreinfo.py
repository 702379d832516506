"""VMCOREINFO as text, as a padded page and as an ELF note."""

import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers import vmcoreinfo as module
from parsers.errors import FormatError
from parsers.vmcoreinfo import parse_vmcoreinfo

NOTE = Path(__file__).parents[2] / "fixtures/host/pmem-6.12-vuln/01-three-namespaces/vmcoreinfo.note"
TEXT = NOTE.read_bytes()[24:]


@pytest.fixture(params=[NOTE.read_bytes(), TEXT, TEXT.ljust(4096, b"\0"), NOTE.read_bytes() + b"\0" * 100])
def info(request):
    return parse_vmcoreinfo(request.param, "vmcoreinfo")


def test_capture(info):
    assert info.osrelease == "6.12.117"
    assert info.build_id == "88f6bd24b2dd2550ad6100e339b0f0a035182f48"
    assert info.page_size == 4096
    assert info.kernel_offset == 0
    assert info.symbol("mem_section") == 0xFFFF00004FFE8540
    assert info.symbol("vmemmap") == 0xFFFFFDFFC0000000
    assert info.length("mem_section") == 8192
    assert info.size("page") == 64
    assert info.offset("page.compound_head") == 8
    assert info.number("SECTION_SIZE_BITS") == 27
    assert info.number("VMEMMAP_START") == 0xFFFFFDFFC0000000
    assert info.number("PHYS_OFFSET") == 0
    assert info.number("TCR_EL1_T1SZ") == 16
    assert info.number("PAGE_OFFLINE_MAPCOUNT_VALUE") == -251658240
    assert info.diagnostics == ()


def test_absent_key_is_unknown(info):
    assert info.symbol("page") is None
    assert info.number("NO_SUCH") is None
    assert info.offset("mem_section.usage") is None
    assert info.line("NUMBER(NO_SUCH)") is None


def test_lines_count_from_the_first_of_the_text(info):
    lines = TEXT.decode().splitlines()
    assert lines[info.line("NUMBER(VA_BITS)") - 1] == "NUMBER(VA_BITS)=48"
    assert set(info.lines) == set(info.text)


def test_radix_follows_the_key():
    info = parse_vmcoreinfo(
        b"SYMBOL(a)=10\nSIZE(a)=10\nNUMBER(a)=10\nNUMBER(b)=0x10\nKERNELOFFSET=10\nSYMBOL(b)=0xff\n", "v"
    )
    assert (info.symbol("a"), info.size("a"), info.number("a"), info.number("b")) == (16, 10, 10, 16)
    assert info.kernel_offset == 16
    assert info.symbol("b") == 255


def test_first_of_two_values_counts_and_is_reported():
    info = parse_vmcoreinfo(b"PAGESIZE=4096\nPAGESIZE=65536\nOSRELEASE=a\nOSRELEASE=a\n", "v")
    assert info.page_size == 4096
    assert [d.line for d in info.diagnostics] == [2]


@pytest.mark.parametrize("line", [b"SIZE(page)=-64", b"SYMBOL(x)=xyz", b"NUMBER(x)=", b"PAGESIZE=4k", b"SIZE(a)=0x40"])
def test_malformed_number_is_unknown_and_reported(line):
    info = parse_vmcoreinfo(b"OSRELEASE=6.1.0\n" + line + b"\n", "v")
    assert info.values == {}
    assert [d.line for d in info.diagnostics] == [2]


def test_note_cut_short_gives_what_it_has():
    info = parse_vmcoreinfo(NOTE.read_bytes()[:1000], "v")
    assert info.page_size == 4096
    assert "cut short" in info.diagnostics[0].message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 4096,
        b"0x00000000402d0000 1024\n",
        b"NAME=Debian\nVERSION_ID=12\n",
        b"\x7fELF\2\1",
        struct.pack("<III", 0xFFFFFFFF, 100, 0) + b"VMCOREINFO\0\0OSRELEASE=1\n",
        struct.pack("<III", 11, 0, 0) + b"VMCOREINFO\0\0OSRELEASE=1\n",
    ],
)
def test_nothing_usable_is_a_format_error(data):
    with pytest.raises(FormatError):
        parse_vmcoreinfo(data, "v")


def test_size_is_bounded():
    with pytest.raises(FormatError, match="more than"):
        parse_vmcoreinfo(b"PAGESIZE=4096\n" * module.MAX_BYTES, "v")


@given(
    st.dictionaries(
        st.tuples(
            st.sampled_from(["SIZE", "OFFSET", "LENGTH", "NUMBER", "SYMBOL"]),
            st.from_regex(r"[a-z_]{1,9}", fullmatch=True),
        ),
        st.integers(0, 2**64 - 1),
        min_size=1,
    )
)
def test_parse_undoes_print(values):
    text = "OSRELEASE=6.1\n" + "".join(
        f"{kind}({name})={value:x}\n" if kind == "SYMBOL" else f"{kind}({name})={value}\n"
        for (kind, name), value in values.items()
    )
    info = parse_vmcoreinfo(text.encode(), "v")
    assert {(kind, name): getattr(info, kind.lower())(name) for kind, name in values} == values


@given(
    st.binary(max_size=100) | st.binary(max_size=60).map(lambda tail: tail[:12].ljust(12) + b"VMCOREINFO\0\0" + tail)
)
def test_any_bytes_parse_or_raise_format_error(data):
    with suppress(FormatError):
        assert parse_vmcoreinfo(data, "v").text


@pytest.mark.parametrize(
    ("seconds", "said"),
    [("1795787708", "2026-11-27T13:55:08+00:00"), ("0", None), ("-1", None), ("18446744073709551615", None)],
)
def test_when_the_kernel_crashed(seconds, said):
    info = parse_vmcoreinfo(f"OSRELEASE=6.12.0\nPAGESIZE=4096\nCRASHTIME={seconds}\n".encode(), "vmcoreinfo")
    assert (info.crash_time and info.crash_time.isoformat()) == said

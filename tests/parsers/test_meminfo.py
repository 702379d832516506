"""/proc/meminfo in bytes."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers import meminfo as module
from parsers.errors import FormatError
from parsers.meminfo import parse_meminfo

MEMINFO = Path(__file__).parents[2] / "fixtures/host/dimm-6.12/03-two-blocks-offline/meminfo"


def test_capture():
    meminfo = parse_meminfo(MEMINFO.read_bytes(), "meminfo")
    assert meminfo.get("MemTotal") == 495808 * 1024
    assert meminfo.get("PageTables") == 136 * 1024
    assert meminfo.get("Hugepagesize") == 2 << 20
    assert meminfo.get("HugePages_Total") == 0
    assert meminfo.get("Active(anon)") == 2956 * 1024
    assert meminfo.get("DirectMap2M") is None
    assert meminfo.diagnostics == ()
    assert MEMINFO.read_text().splitlines()[meminfo.line("PageTables") - 1].startswith("PageTables:")
    assert meminfo.line("DirectMap2M") is None


def test_direct_map_where_a_kernel_prints_it():
    meminfo = parse_meminfo(b"MemTotal: 4 kB\r\nDirectMap4k:      332408 kB\r\nDirectMap1G:           0 kB\r\n", "m")
    assert (meminfo.get("DirectMap4k"), meminfo.get("DirectMap1G")) == (332408 * 1024, 0)


def test_what_is_not_understood_is_reported():
    meminfo = parse_meminfo(b"$ cat /proc/meminfo\nMemTotal: 4 kB\nMemFree: lots\nHardware: 5 MB\n", "m")
    assert meminfo.get("MemFree") is None
    assert [(d.line, d.message) for d in meminfo.diagnostics] == [(1, "not understood (and 2 more)")]


@pytest.mark.parametrize("data", [b"", b"\n", b"MemFree: 5 kB\n", b"\0", b"x" * (module.MAX_BYTES + 1)])
def test_nothing_usable_is_a_format_error(data):
    with pytest.raises(FormatError):
        parse_meminfo(data, "m")


@given(st.dictionaries(st.from_regex(r"[A-Z][a-z]{1,8}", fullmatch=True), st.integers(0, 2**50)))
def test_parse_undoes_print(sizes):
    sizes = {"MemTotal": 1, **sizes}
    text = "".join(f"{name + ':':<16}{value:>8} kB\n" for name, value in sizes.items())
    meminfo = parse_meminfo(text.encode(), "m")
    assert meminfo.fields == {name: value * 1024 for name, value in sizes.items()}
    assert list(meminfo.lines.values()) == list(range(1, len(sizes) + 1))


@given(st.binary(max_size=60).map(lambda tail: b"MemTotal: 1 kB\n" + tail) | st.binary(max_size=60))
def test_any_bytes_parse_or_raise_format_error(data):
    with suppress(FormatError):
        assert parse_meminfo(data, "m").get("MemTotal") is not None

"""/proc/zoneinfo: populated, empty and device zones, one node and several."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers import zoneinfo as module
from parsers.errors import FormatError
from parsers.zoneinfo import parse_zoneinfo

HOST = Path(__file__).parents[2] / "fixtures/host"
DIMM = HOST / "dimm-6.12/03-two-blocks-offline/zoneinfo"
PMEM = HOST / "pmem-6.12-vuln/01-three-namespaces/zoneinfo"


def test_capture():
    zones = parse_zoneinfo(DIMM.read_bytes(), "zoneinfo")
    assert zones.zone == ("DMA", "DMA32", "Normal", "Movable", "Device")
    assert zones.node.tolist() == [0] * 5
    assert zones.free.tolist() == [49230, 0, 0, 65510, 0]
    assert zones.spanned.tolist() == [311296, 0, 0, 65536, 0]
    assert zones.present.tolist() == [81920, 0, 0, 65536, 0]
    assert zones.managed.tolist() == [58416, 0, 0, 65536, 0]
    assert zones.start_pfn.tolist() == [16384, -1, -1, 589824, -1]
    assert zones.nr_page_table_pages == {0: 21}
    assert zones.diagnostics == ()


def test_line_is_that_of_the_header():
    zones = parse_zoneinfo(DIMM.read_bytes(), "zoneinfo")
    lines = DIMM.read_text().splitlines()
    assert [lines[line - 1].split()[-1] for line in zones.line] == list(zones.zone)


def test_zone_device_spans_pages_without_a_start():
    zones = parse_zoneinfo(PMEM.read_bytes(), "zoneinfo")
    row = zones.zone.index("Device")
    assert (zones.spanned[row], zones.present[row], zones.start_pfn[row]) == (32768, 0, -1)


def test_page_tables_counted_by_zone_are_summed_by_node():
    text = (
        b"Node 0, zone DMA\n  pages free 1\n      nr_page_table_pages 3\n"
        b"Node 0, zone Normal\n      nr_page_table_pages 4\n"
        b"Node 1, zone Normal\n      nr_page_table_pages 5\nNode 2, zone Normal\n  pages free 9\n"
    )
    zones = parse_zoneinfo(text, "z")
    assert zones.nr_page_table_pages == {0: 7, 1: 5}
    assert zones.node.tolist() == [0, 0, 1, 2]
    assert zones.free.tolist() == [1, -1, -1, 9]


def test_missing_counts_are_unknown_and_reported():
    zones = parse_zoneinfo(b"Node 3, zone   Normal\n  pages free     7\n        spanned  8\n", "z")
    assert (zones.present[0], zones.managed[0]) == (-1, -1)
    assert [d.line for d in zones.diagnostics] == [1]


@pytest.mark.parametrize("data", [b"", b"\n", b"pages free 5\n", b"\0", b"Node 0\n", b" " * 100_000])
def test_nothing_usable_is_a_format_error(data):
    with pytest.raises(FormatError):
        parse_zoneinfo(data, "z")


def test_size_is_bounded():
    with pytest.raises(FormatError, match="more than"):
        parse_zoneinfo(b"x" * (module.MAX_BYTES + 1), "z")


COUNT = st.integers(0, 2**52)


@given(
    st.lists(
        st.tuples(st.integers(0, 99), st.sampled_from(["DMA", "Normal"]), COUNT, COUNT, COUNT, COUNT, COUNT), min_size=1
    )
)
def test_parse_undoes_print(rows):
    text = "".join(
        f"Node {node}, zone {zone:>8}\n  pages free     {free}\n        min      1\n        spanned  {spanned}\n"
        f"        present  {present}\n        managed  {managed}\n  start_pfn:           {start}\n"
        for node, zone, free, spanned, present, managed, start in rows
    )
    zones = parse_zoneinfo(text.encode(), "z")
    columns = (zones.node, zones.free, zones.spanned, zones.present, zones.managed, zones.start_pfn)
    node, *counts = (column.tolist() for column in columns)
    assert list(zip(node, zones.zone, *counts, strict=True)) == rows


@given(st.binary(max_size=100) | st.text("Node 0,zonefreepagspd\n:", max_size=100).map(str.encode))
def test_any_bytes_parse_or_raise_format_error(data):
    with suppress(FormatError):
        assert len(parse_zoneinfo(data, "z")) > 0


def test_a_zone_with_pages_and_no_start_is_cut_short():
    """The kernel leaves the start out for zones without pages only."""
    zone = b"Node 0, zone  Movable\n  pages free     9\n        spanned  99\n        present  %d\n        managed  %d\n"
    assert parse_zoneinfo(zone % (0, 0), "zoneinfo").complete
    cut = parse_zoneinfo(zone % (99, 90), "zoneinfo")
    assert not cut.complete
    assert parse_zoneinfo(zone % (99, 90) + b"  start_pfn:           16384\n", "zoneinfo").complete

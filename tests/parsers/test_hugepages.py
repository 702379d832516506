"""HugeTLB pools as captured and as a copied tree."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers import hugepages as module
from parsers.errors import FormatError
from parsers.hugepages import parse_hugepages, parse_hugepages_tree

HOST = Path(__file__).parents[2] / "fixtures/host"
TEXT = (HOST / "pmem-6.12-fixed/01-three-namespaces/hugetlb").read_bytes()
PREFIX = b"/sys/kernel/mm/hugepages/hugepages-"


def test_capture():
    pages = parse_hugepages(TEXT, "hugetlb")
    assert list(pages.pools) == [64 << 10, 2 << 20, 32 << 20, 1 << 30]
    pool = pages.pools[2 << 20]
    assert (pool.nr, pool.free, pool.resv, pool.surplus, pool.nr_overcommit) == (0, 0, 0, 0, 0)
    assert pool.demote_size_bytes == 64 << 10
    assert pages.pools[64 << 10].demote_size_bytes is None
    lines = TEXT.decode().splitlines()
    assert lines[pool.line - 1].endswith("hugepages-2048kB/nr_hugepages:0")
    assert pages.optimize_vmemmap is False
    assert lines[pages.optimize_vmemmap_line - 1] == "/proc/sys/vm/hugetlb_optimize_vmemmap:0"
    assert not any(one.nr for one in pages.pools.values())
    assert pages.diagnostics == ()


def test_kernel_without_the_sysctl_leaves_it_unknown():
    pages = parse_hugepages((HOST / "dimm-6.12/03-two-blocks-offline/hugetlb").read_bytes(), "hugetlb")
    assert pages.optimize_vmemmap is None
    assert pages.optimize_vmemmap_line is None


def test_copied_tree_says_the_same():
    tree = {
        name.lstrip("/"): value.encode() + b"\n"
        for name, value in (line.rsplit(":", 1) for line in TEXT.decode().splitlines())
    }
    pages, copied = parse_hugepages(TEXT, "hugetlb"), parse_hugepages_tree(tree, "tree")
    assert [(p.size_bytes, p.nr, p.demote_size_bytes) for p in copied.pools.values()] == [
        (p.size_bytes, p.nr, p.demote_size_bytes) for p in pages.pools.values()
    ]
    assert copied.optimize_vmemmap is False
    assert copied.pools[2 << 20].line == 1


def test_pools_of_single_nodes_do_not_hide_those_of_the_system():
    text = PREFIX + b"2048kB/nr_hugepages:8\n/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages:3\n"
    pages = parse_hugepages(text, "h")
    assert pages.pools[2 << 20].nr == 8


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"vm.hugetlb_optimize_vmemmap = 1\n", True),
        (b"/proc/sys/vm/hugetlb_optimize_vmemmap:1", True),
        (b"hugetlb_optimize_vmemmap:x", None),
    ],
)
def test_sysctl_alone(text, value):
    pages = parse_hugepages(text, "h")
    assert pages.optimize_vmemmap is value
    assert pages.pools == {}


def test_malformed_count_is_unknown_and_reported():
    pages = parse_hugepages(PREFIX + b"2048kB/nr_hugepages:many\n" + PREFIX + b"2048kB/free_hugepages:2\n", "h")
    assert pages.pools[2 << 20].nr is None
    assert pages.pools[2 << 20].free == 2
    assert [d.line for d in pages.diagnostics] == [1]


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"nr_hugepages:5\n", b"\0", b"x" * (module.MAX_BYTES + 1), b"/" * 100_000]
)
def test_nothing_usable_is_a_format_error(data):
    with pytest.raises(FormatError):
        parse_hugepages(data, "h")


@given(st.dictionaries(st.integers(1, 2**30), st.tuples(*[st.integers(0, 2**40)] * 4), min_size=1))
def test_parse_undoes_print(pools):
    names = ("nr_hugepages", "free_hugepages", "resv_hugepages", "surplus_hugepages")
    text = "".join(
        f"hugepages-{size}kB/{name}:{value}\n"
        for size, values in pools.items()
        for name, value in zip(names, values, strict=True)
    )
    pages = parse_hugepages(text.encode(), "h")
    assert {size >> 10: (p.nr, p.free, p.resv, p.surplus) for size, p in pages.pools.items()} == pools


@given(st.binary(max_size=80) | st.binary(max_size=40).map(lambda tail: PREFIX + b"64kB/" + tail))
def test_any_bytes_parse_or_raise_format_error(data):
    with suppress(FormatError):
        assert parse_hugepages(data, "h").path == "h"

"""Memory-block sysfs as captured, as a copied tree, and at the size of the largest machines."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers import memory_blocks as module
from parsers.errors import FormatError
from parsers.memory_blocks import BlockState, parse_memory_blocks, parse_memory_blocks_tree, parse_memory_nodes
from tests.parsers.yardstick import best_of_three

DIMM = Path(__file__).parents[2] / "fixtures/host/dimm-6.12/03-two-blocks-offline"
TEXT = (DIMM / "memory_blocks").read_bytes()
COLUMNS = ("block", "state", "removable", "phys_index", "phys_device", "node")


def columns(blocks):
    numbers = [getattr(blocks, name).tolist() for name in COLUMNS]
    return [*numbers, blocks.state_word, blocks.valid_zones, blocks.block_size_bytes, blocks.auto_online_blocks]


@pytest.fixture
def dimm():
    return parse_memory_blocks(TEXT, "memory_blocks")


def test_a_listing_in_which_every_block_has_every_attribute_is_complete(dimm):
    assert dimm.complete
    assert parse_memory_blocks(TEXT.removesuffix(b"\n"), "memory_blocks").complete


@pytest.mark.parametrize(
    "lost", [b"memory16/state:offline\n", b"memory9/valid_zones:DMA\n", b"memory0/phys_index:00000000\n"]
)
def test_a_listing_without_an_attribute_of_one_block_is_not_complete(lost):
    assert lost in TEXT
    assert not parse_memory_blocks(TEXT.replace(lost, b""), "memory_blocks").complete


@pytest.mark.parametrize(
    "text",
    [
        b"block_size_bytes:8000000\n",
        b"block_size_bytes:8000000\nmemory0/state:online\nmemory8/s",
        b"block_size_bytes:8000000\nmemory0/state:online\nmemory8/state:onl",
        b"block_size_bytes:8000000\nmemory0/valid_zones:DMA\n",
    ],
)
def test_a_listing_without_blocks_or_states_or_with_half_a_line_is_not_complete(text):
    assert not parse_memory_blocks(text, "memory_blocks").complete


def test_capture(dimm):
    assert dimm.block.tolist() == [0, 8, 9, 16, 17, 18, 19]
    assert dimm.state_word == ("online", "online", "online", "offline", "offline", "online", "online")
    assert dimm.block[dimm.state == BlockState.OFFLINE].tolist() == [16, 17]
    assert dimm.block[dimm.online].tolist() == [0, 8, 9, 18, 19]
    assert dimm.valid_zones == ("DMA", "DMA", "DMA", "Normal Movable", "Normal Movable", "Movable", "Movable")
    assert dimm.phys_index.tolist() == dimm.block.tolist()
    assert dimm.removable.tolist() == [1] * 7
    assert dimm.phys_device.tolist() == [0] * 7
    assert dimm.node.tolist() == [-1] * 7
    assert dimm.block_size_bytes == 0x8000000
    assert dimm.auto_online_blocks == "offline"
    assert dimm.diagnostics == ()


def test_line_is_that_of_the_state(dimm):
    lines = TEXT.decode().splitlines()
    for block, word, line in zip(dimm.block, dimm.state_word, dimm.line, strict=True):
        assert lines[line - 1] == f"memory{block}/state:{word}"


def test_order_prefix_and_line_ends_do_not_matter(dimm):
    lines = [b"/sys/devices/system/memory/" + line for line in reversed(TEXT.splitlines())]
    assert columns(parse_memory_blocks(b"\r\n".join(lines), "m")) == columns(dimm)
    quoted = b"".join(b"> " + line for line in TEXT.splitlines(keepends=True))
    assert columns(parse_memory_blocks(quoted, "m")) == columns(dimm)


def test_other_attributes_and_noise_are_passed_over(dimm):
    noise = (
        b"[root@host memory]# grep -rH . .\n./memory8/power/control:auto\n./memory8/uevent:DEVTYPE=x\n"
        b"grep: memory8/probe: Permission denied\nmemoryX/state:online\nmemory/state:online\nnode0/memory8\n::/\n"
    )
    assert columns(parse_memory_blocks(noise + TEXT + noise, "m")) == columns(dimm)


def test_copied_tree(dimm):
    files = dict(line.split(":", 1) for line in TEXT.decode().splitlines())
    tree = {f"sys/devices/system/memory/{name}": value.encode() + b"\n" for name, value in files.items()}
    blocks = parse_memory_blocks_tree(tree, "tree")
    assert columns(blocks) == columns(dimm)
    assert blocks.line is None
    noise = {
        "sys/devices/system/memory/memory8/\udcff\nmemory9/state:": b"offline",
        "memory0/notes": b"\nmemory8/state:offline",
    }
    assert columns(parse_memory_blocks_tree({**tree, **noise}, "tree")) == columns(dimm)
    linked = parse_memory_blocks_tree({**tree, "sys/devices/system/memory/memory8/node1": b""}, "tree")
    assert linked.node.tolist() == [-1, 1, -1, -1, -1, -1, -1]


def test_what_was_not_captured_is_unknown():
    blocks = parse_memory_blocks(b"memory3/valid_zones:none\nmemory2/state:online\n", "m")
    assert blocks.block.tolist() == [2, 3]
    assert blocks.state.tolist() == [BlockState.ONLINE, BlockState.UNKNOWN]
    assert blocks.valid_zones == ("", "none")
    assert blocks.phys_index.tolist() == [-1, -1]
    assert blocks.line.tolist() == [2, 0]
    assert blocks.block_size_bytes is None
    assert blocks.auto_online_blocks is None
    assert [d.message for d in blocks.diagnostics] == [
        "block_size_bytes is missing: where the blocks lie is unknown",
        "the state of 1 blocks is missing",
    ]


def test_going_offline_and_foreign_states():
    blocks = parse_memory_blocks(b"memory1/state:going-offline\nmemory2/state:ERROR-UNKNOWN-3\n", "m")
    assert blocks.state.tolist() == [BlockState.GOING_OFFLINE, BlockState.UNKNOWN]
    assert blocks.state_word[1] == "ERROR-UNKNOWN-3"
    assert [d.line for d in blocks.diagnostics if "does not have" in d.message] == [2]


def test_last_of_two_states_counts_and_is_reported():
    blocks = parse_memory_blocks(b"block_size_bytes:8000000\nmemory1/state:online\nmemory1/state:offline\n", "m")
    assert blocks.state_word == ("offline",)
    assert blocks.line.tolist() == [3]
    assert [d.line for d in blocks.diagnostics] == [2]


def test_phys_index_that_is_another_blocks_is_reported():
    blocks = parse_memory_blocks(
        b"block_size_bytes:8000000\nmemory16/state:online\nmemory16/phys_index:00000011\n", "m"
    )
    assert blocks.phys_index.tolist() == [17]
    assert [d.line for d in blocks.diagnostics] == [2]


@pytest.mark.parametrize("size", [b"0", b"8000001"])
def test_impossible_block_size_is_unknown(size):
    blocks = parse_memory_blocks(b"memory1/state:online\nblock_size_bytes:" + size + b"\n", "m")
    assert blocks.block_size_bytes is None
    assert blocks.diagnostics[0].line == 2


def test_nodes_without_block_numbers_follow_the_order_of_names():
    nodes = parse_memory_nodes((DIMM / "memory_nodes").read_bytes(), "memory_nodes")
    assert nodes.node.tolist() == [0] * 7
    assert nodes.block.tolist() == [-1] * 7
    blocks = parse_memory_blocks(TEXT, "memory_blocks").with_nodes(nodes)
    assert blocks.node.tolist() == [0] * 7
    assert "order of names" in blocks.diagnostics[-1].message
    names = ["memory0", "memory16", "memory17", "memory18", "memory19", "memory8", "memory9"]
    listing = "".join(f"lrwxrwxrwx node{number} -> ../../node/node{number}\n" for number in range(len(names)))
    blocks = parse_memory_blocks(TEXT, "memory_blocks").with_nodes(parse_memory_nodes(listing.encode(), "n"))
    assert {f"memory{block}": node for block, node in zip(blocks.block, blocks.node, strict=True)} == {
        name: number for number, name in enumerate(names)
    }


def test_nodes_that_do_not_fit_the_blocks_stay_unknown(dimm):
    blocks = dimm.with_nodes(parse_memory_nodes(b"node0 -> ../../node/node0\n", "n"))
    assert blocks.node.tolist() == [-1] * 7
    assert "do not fit" in blocks.diagnostics[-1].message


@pytest.mark.parametrize(
    "listing",
    [
        b"memory8/node1\nmemory16/node0\n",
        b"/sys/devices/system/memory/memory8:\nnode1\nonline\n\n/sys/devices/system/memory/memory16:\nnode0\n",
        b"lrwxrwxrwx 1 root root 0 /sys/devices/system/memory/memory8/node1 -> ../../node/node1\nmemory16/node0\n",
        b"/sys/devices/system/node/node1/memory8\n/sys/devices/system/node/node0/memory16\n",
    ],
)
def test_listings_with_block_numbers(listing, dimm):
    blocks = dimm.with_nodes(parse_memory_nodes(listing, "n"))
    assert blocks.node.tolist() == [-1, 1, -1, 0, -1, -1, -1]


def test_block_of_two_nodes_is_reported_and_unknown(dimm):
    blocks = dimm.with_nodes(parse_memory_nodes(b"memory8/node0\nmemory8/node1\nmemory9/node1\nmemory77/node1\n", "n"))
    assert blocks.node.tolist() == [-1, -1, 1, -1, -1, -1, -1]
    assert "block 8 belongs to more than one node" in blocks.diagnostics[-1].message


@pytest.mark.parametrize(
    "data", [b"", b"\n\n", b"hello:world\n", b"memory1/state\n", b"\0\1\2", b"memory/state:online"]
)
def test_nothing_usable_is_a_format_error(data):
    with pytest.raises(FormatError):
        parse_memory_blocks(data, "m")
    with pytest.raises(FormatError):
        parse_memory_nodes(data, "n")
    with pytest.raises(FormatError):
        parse_memory_blocks_tree({"state": data.replace(b"\0", b"")}, "t")


@pytest.mark.parametrize("line", [b"\n", b":", b"/"])
def test_lines_and_separators_are_bounded(line):
    with pytest.raises(FormatError, match="more than"):
        parse_memory_blocks(b"memory1/state:online\n" + line * (10 * module.MAX_LINES // len(line) + 1), "m")


def test_node_listing_is_bounded():
    with pytest.raises(FormatError, match="more than"):
        parse_memory_nodes(b"node0 -> \n" * (module.MAX_LINES + 1), "n")


def test_one_huge_line_is_read_in_linear_time():
    blocks = parse_memory_blocks(
        b"memory1/state:" + b"x" * 5_000_000 + b"\nmemory2/state:online\n" + b"/" * 5_000_000, "m"
    )
    assert blocks.block.tolist() == [1, 2]
    assert len(blocks.state_word[0]) == 64


def test_largest_machine_costs_about_what_splitting_its_lines_costs():
    count = 131_072
    prefix = "/sys/devices/system/memory/"
    attributes = ("state:online", "valid_zones:Normal Movable", "removable:1", "phys_device:0")
    lines = [f"{prefix}memory{n}/{attribute}" for attribute in attributes for n in range(count)]
    lines += [f"{prefix}memory{n}/phys_index:{n:08x}" for n in range(count)]
    data = "\n".join(lines).encode()
    blocks = parse_memory_blocks(data, "m")
    assert np.array_equal(blocks.phys_index, np.arange(count))
    assert bool(blocks.online.all())
    split = best_of_three(lambda: [line.rsplit(b":", 1)[0].rsplit(b"/", 2) for line in data.splitlines()])
    assert best_of_three(lambda: parse_memory_blocks(data, "m")) < 4 * split


@given(
    st.dictionaries(
        st.integers(0, 10**12),
        st.tuples(
            st.sampled_from(["online", "offline", "going-offline"]),
            st.sampled_from(["none", "Normal", "Normal Movable"]),
            st.integers(0, 2**32),
            st.integers(0, 1),
        ),
        min_size=1,
        max_size=12,
    ),
    st.randoms(use_true_random=False),
)
def test_parse_undoes_print_in_any_order(expected, random):
    lines = ["block_size_bytes:8000000"]
    for number, values in expected.items():
        for attribute, value in zip(("state", "valid_zones", "phys_index", "removable"), values, strict=True):
            lines.append(
                f"memory{number}/{attribute}:{value:x}"
                if attribute == "phys_index"
                else f"memory{number}/{attribute}:{value}"
            )
    random.shuffle(lines)
    blocks = parse_memory_blocks("\n".join(lines).encode(), "m")
    rows = zip(
        blocks.state_word, blocks.valid_zones, blocks.phys_index.tolist(), blocks.removable.tolist(), strict=True
    )
    assert dict(zip(blocks.block.tolist(), rows, strict=True)) == expected
    assert blocks.block.tolist() == sorted(expected)


@given(st.binary(max_size=80) | st.text("memory01/state:nodeline\n ->", max_size=80).map(str.encode))
def test_any_bytes_parse_or_raise_format_error(data):
    with suppress(FormatError):
        assert len(parse_memory_blocks(data, "m")) <= data.count(b"\n") + 1
    with suppress(FormatError):
        assert parse_memory_nodes(data, "n").node.size

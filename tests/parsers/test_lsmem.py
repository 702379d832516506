"""lsmem in all its output modes says what the sysfs it was run on says."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers import lsmem as module
from parsers.errors import FormatError
from parsers.lsmem import parse_lsmem
from parsers.memory_blocks import BlockState, parse_memory_blocks

HOST = Path(__file__).parents[2] / "fixtures/host"
LSMEM = HOST / "lsmem"
SYSFS = parse_memory_blocks((HOST / "dimm-6.12/03-two-blocks-offline/memory_blocks").read_bytes(), "memory_blocks")


def read(name):
    return parse_lsmem((LSMEM / name).read_bytes(), name)


@pytest.mark.parametrize(
    "name",
    ["default.txt", "all-columns.txt", "columns.json", "all-bytes.json", "raw.txt", "pairs.txt", "reordered.txt"],
)
def test_every_output_mode_gives_the_blocks_of_sysfs(name):
    blocks = read(name)
    assert blocks.block.tolist() == SYSFS.block.tolist()
    assert blocks.state.tolist() == SYSFS.state.tolist()
    assert blocks.state_word == SYSFS.state_word
    assert blocks.block_size_bytes == SYSFS.block_size_bytes
    assert blocks.diagnostics == ()


@pytest.mark.parametrize("name", ["all-columns.txt", "columns.json", "raw.txt", "pairs.txt"])
def test_all_columns(name):
    blocks = read(name)
    assert blocks.valid_zones == SYSFS.valid_zones
    assert blocks.node.tolist() == [0] * 7
    assert blocks.removable.tolist() == [1, 1, 1, -1, -1, 1, 1]  # lsmem does not say of offline blocks
    assert blocks.phys_index.tolist() == [-1] * 7


@pytest.mark.parametrize("name", ["default.txt", "all-columns.txt", "columns.json", "raw.txt", "pairs.txt"])
def test_line_is_that_of_the_row(name):
    lines = (LSMEM / name).read_text().splitlines()
    blocks = read(name)
    for state, line in zip(blocks.state_word, blocks.line, strict=True):
        assert f" {state}" in f" {lines[line - 1]}".replace('"', " ").replace("=", " ")


def test_columns_that_were_not_asked_for_are_unknown():
    blocks = read("default.txt")
    assert blocks.node.tolist() == [-1] * 7
    assert blocks.valid_zones == ("",) * 7
    assert blocks.auto_online_blocks is None


def test_states_that_the_totals_contradict_are_unknown():
    blocks = read("split-none.txt")
    assert blocks.block.tolist() == SYSFS.block.tolist()
    assert set(blocks.state.tolist()) == {BlockState.UNKNOWN}
    assert "do not add up" in blocks.diagnostics[-1].message


def test_rounded_totals_are_not_a_contradiction():
    text = (
        b"RANGE                                  SIZE  STATE REMOVABLE BLOCK\n"
        b"0x0000000000000000-0x000000008fffffff  2.3G online       yes  0-17\n\n"
        b"Memory block size:       128M\nTotal online memory:     2.3G\nTotal offline memory:      0B\n"
    )
    assert bool(parse_lsmem(text, "l").online.all())


@pytest.mark.parametrize(
    "text",
    [
        b"  STATE RANGE                                 BLOCK\non->off 0x0000000000000000-0x0000000007ffffff     0\n",
        b"STATE RANGE BLOCK\non->off 0x0000000000000000-0x0000000007ffffff 0\n",
    ],
)
def test_going_offline(text):
    assert parse_lsmem(text, "l").state.tolist() == [BlockState.GOING_OFFLINE]


def test_mail_prompt_and_windows_line_ends():
    text = b"[root@host ~]# lsmem\r\n" + (LSMEM / "default.txt").read_bytes().replace(b"\n", b"\r\n")
    quoted = b"".join(b"> " + line for line in text.splitlines(keepends=True))
    blocks = parse_lsmem(quoted, "l")
    assert blocks.state_word == SYSFS.state_word
    assert blocks.line[0] == 3


def test_rows_that_are_not_understood_are_reported():
    text = (LSMEM / "default.txt").read_bytes().replace(b"0x0000000040000000", b"0xsomewhere       ")
    blocks = parse_lsmem(text.replace(b"  8-9", b"    x"), "l")
    assert 8 not in blocks.block
    assert [d.line for d in blocks.diagnostics if d.message == "not understood"] == [3]


def test_range_that_contradicts_its_blocks_is_reported():
    text = (LSMEM / "default.txt").read_bytes().replace(b"  8-9\n", b" 8-10\n")
    blocks = parse_lsmem(text, "l")
    assert [d.line for d in blocks.diagnostics if "not that of the blocks" in d.message] == [3]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"hello\n",
        b"\0",
        b"{",
        b"{}",
        b'{"memory": 5}',
        b'{"memory": [5]}',
        b'{"memory": []}',
        b'{"a":' * 100_000,
        b"RANGE STATE\n0x0000000000000000-0x0000000007ffffff online\n",
        b'{"memory": [{"range": "0x0-0x7ffffff", "state": "online"}]}',
        b'{"memory": [{"range": "0x0-0xffffffffffffffff", "state": "online", "block": "0-137438953471"}]}',
        b"x" * (module.MAX_BYTES + 1),
    ],
)
def test_nothing_usable_is_a_format_error(data):
    with pytest.raises(FormatError):
        parse_lsmem(data, "l")


@pytest.mark.parametrize("line", [b"A" * 2_000_000 + b"x", b"A-" * 1_000_000, b"STATE" + b" " * 2_000_000 + b"x"])
def test_long_lines_take_linear_time(line):
    with pytest.raises(FormatError):
        parse_lsmem(b"STATE\n" + line + b"\n", "l")


@given(st.sets(st.integers(0, 5000), min_size=1, max_size=30), st.integers(24, 31), st.randoms(use_true_random=False))
def test_rows_expand_to_the_blocks_that_they_merge(numbers, shift, random):
    rows = []
    for number in sorted(numbers):
        if rows and rows[-1][1] == number - 1 and random.random() < 0.7:
            rows[-1][1] = number
        else:
            rows.append([number, number])
    text = "".join(
        f'RANGE="0x{low << shift:016x}-0x{((high + 1) << shift) - 1:016x}" STATE="online" BLOCK="{low}-{high}"\n'
        for low, high in rows
    )
    blocks = parse_lsmem(text.encode(), "l")
    assert blocks.block.tolist() == sorted(numbers)
    assert blocks.block_size_bytes == 1 << shift


@given(st.binary(max_size=100) | st.text("RANGE STATE\n0x1-fonline", max_size=100).map(str.encode))
def test_any_bytes_parse_or_raise_format_error(data):
    with suppress(FormatError):
        assert len(parse_lsmem(data, "l")) >= 0

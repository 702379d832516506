"""/proc/iomem as captured, as an unprivileged user sees it, and as mail mangles it."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers import iomem as module
from parsers.errors import FormatError, WrongFormatError
from parsers.iomem import Iomem, parse_iomem

HOST = Path(__file__).parents[2] / "fixtures" / "host"
DIMM = HOST / "dimm-6.12/03-two-blocks-offline/iomem"


def tree(iomem: Iomem) -> list[tuple[int, int, str, int, int]]:
    columns = (iomem.start.tolist(), iomem.last.tolist(), iomem.name, iomem.depth.tolist(), iomem.parent.tolist())
    return list(zip(*columns, strict=True))


@pytest.fixture
def dimm() -> Iomem:
    return parse_iomem(DIMM.read_bytes(), "iomem")


def test_capture_lists_system_ram_half_open(dimm):
    rows = dimm.named("System RAM")
    assert list(zip(dimm.start[rows].tolist(), dimm.end[rows].tolist(), strict=True)) == [
        (0x40000000, 0x4C410000),
        (0x4C420000, 0x4C440000),
        (0x4C730000, 0x4FC00000),
        (0x4FFE0000, 0x50000000),
        (0x80000000, 0xA0000000),
    ]
    assert dimm.privileged
    assert dimm.diagnostics == ()


def test_line_numbers_point_into_the_file(dimm):
    lines = DIMM.read_text().splitlines()
    for row, name in enumerate(dimm.name):
        text = lines[dimm.line[row] - 1]
        assert text.endswith(f" : {name}")
        assert text.strip().startswith(f"{dimm.start[row]:08x}-")


def test_children_know_their_parents(dimm):
    code = dimm.named("Kernel code")[0]
    assert dimm.name[dimm.parent[code]] == "System RAM"
    assert dimm.depth[code] == 1
    virtio = dimm.named("virtio-pci-modern")[0]
    assert dimm.depth[virtio] == 2
    assert virtio in dimm.leaves()
    assert code in dimm.leaves()
    assert dimm.parent[code] not in dimm.leaves()


def test_devdax_namespaces_lie_in_persistent_memory():
    iomem = parse_iomem((HOST / "pmem-6.12-vuln/01-three-namespaces/iomem").read_bytes(), "iomem")
    (pmem,) = iomem.named("Persistent Memory")
    assert [iomem.name[row] for row in np.flatnonzero(iomem.parent == pmem)] == [
        "namespace0.0",
        "dax0.0",
        "namespace0.1",
        "dax0.1",
        "namespace0.2",
        "dax0.2",
    ]


def test_zeros_mean_unprivileged_not_empty():
    iomem = parse_iomem(b"00000000-00000000 : System RAM\n  00000000-00000000 : Kernel code\n", "iomem")
    assert not iomem.privileged
    assert iomem.depth.tolist() == [0, 1]
    flat = parse_iomem(b"00000000-00000000 : System RAM\n00000000-00000000 : System RAM\n", "iomem")
    assert flat.depth.tolist() == [0, 0]


@pytest.mark.parametrize(
    "mangle",
    [
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: b"".join(b"> > " + line for line in text.splitlines(keepends=True)),
        lambda text: b"".join(b"    " + line for line in text.splitlines(keepends=True)),
        lambda text: text.rstrip(b"\n"),
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.replace(b"reserved", b"\x1b[31mreserved\x1b[0m"),
    ],
)
def test_transport_changes_nothing(mangle, dimm):
    assert tree(parse_iomem(mangle(DIMM.read_bytes()), "iomem")) == tree(dimm)


def test_lost_indentation_is_rebuilt_from_the_ranges(dimm):
    flat = b"\n".join(line.strip() for line in DIMM.read_bytes().splitlines())
    iomem = parse_iomem(flat, "iomem")
    assert tree(iomem) == tree(dimm)
    assert "indentation is lost" in iomem.diagnostics[0].message


def test_prompts_are_reported_and_skipped():
    iomem = parse_iomem(b"[root@host ~]# cat /proc/iomem\n40000000-4fffffff : System RAM\n\n[root@host ~]#\n", "a")
    assert iomem.line.tolist() == [2]
    assert [(d.line, d.path) for d in iomem.diagnostics] == [(1, "a")]
    assert "1 more" in iomem.diagnostics[0].message


def test_range_up_to_the_top_of_the_address_space():
    iomem = parse_iomem(b"fffffffff0000000-ffffffffffffffff : top\n", "iomem")
    assert iomem.last.tolist() == [2**64 - 1]
    assert iomem.end.tolist() == [0]


def test_reversed_range_is_left_out_and_reported():
    iomem = parse_iomem(b"00001000-00000fff : nothing\n40000000-4fffffff : System RAM\n", "iomem")
    assert iomem.name == ("System RAM",)
    assert iomem.diagnostics[0].line == 1


def test_child_outside_its_parent_is_reported():
    iomem = parse_iomem(b"40000000-4fffffff : System RAM\n  60000000-6fffffff : stray\n", "iomem")
    assert iomem.parent.tolist() == [-1, 0]
    assert iomem.diagnostics[0].line == 2


@pytest.mark.parametrize("data", [b"", b" \n", b"Permission denied\n", b"\x7fELF\0\0\0", b"a" * 10000, b"\n" * 100])
def test_nothing_usable_is_a_format_error(data):
    with pytest.raises(FormatError):
        parse_iomem(data, "iomem")


def test_ioports_is_something_else():
    with pytest.raises(WrongFormatError, match="ioports"):
        parse_iomem(b"0000-001f : dma1\n0020-0021 : pic1\n", "iomem")


def test_size_is_bounded():
    with pytest.raises(FormatError, match="no /proc/iomem has more"):
        parse_iomem(b"0" * (module.MAX_BYTES + 1), "iomem")


def test_long_lines_take_linear_time():
    data = b"40000000-4fffffff : System RAM\n" + b"> " * 500_000 + b"\n" + b" " * 1_000_000 + b"x\n" + b"f" * 1_000_000
    assert parse_iomem(data, "iomem").name == ("System RAM",)


@st.composite
def nested(draw, start=0, last=2**64 - 1, depth=0):
    """Rows of a tree as the kernel has them: siblings ascend without overlap, children lie inside."""
    rows = []
    bounds = draw(st.lists(st.integers(start, last), max_size=6, unique=True).map(sorted))
    for low, high in zip(bounds[::2], bounds[1::2], strict=False):
        rows.append((low, high, draw(st.text("abc ()0", min_size=1).map(str.strip).filter(bool)), depth))
        if depth < 2 and draw(st.booleans()):
            rows += draw(nested(low, high, depth + 1))
    return rows


@given(nested())
def test_parse_undoes_print(rows):
    if not rows:
        return
    text = "".join(f"{'  ' * depth}{low:08x}-{high:08x} : {name}\n" for low, high, name, depth in rows)
    iomem = parse_iomem(text.encode(), "iomem")
    assert [row[:4] for row in tree(iomem)] == rows
    assert iomem.diagnostics == ()


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_raise_format_error(data):
    with suppress(FormatError, WrongFormatError):
        assert len(parse_iomem(data, "iomem")) <= data.count(b"\n") + 1


def test_ranges_that_end_before_they_start_are_not_resources():
    good, bad = b"40000000-7fffffff : System RAM\n", b"90000000-80000000 : upside down\n"
    resources = parse_iomem(good + bad, "iomem")
    assert resources.name == ("System RAM",)
    assert [item.line for item in resources.diagnostics] == [2]
    with pytest.raises(FormatError, match="every range ends before it starts"):
        parse_iomem(bad, "iomem")

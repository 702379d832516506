"""Laws of reading and writing dumps, over generated mappings."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parsers.arm64 import Attr, MemType, granule
from parsers.errors import InputError
from parsers.mapping import Mapping, Marker
from parsers.ptdump import parse, render

GEOMETRIES = ((4096, 39), (4096, 48), (4096, 52), (16384, 47), (16384, 48), (65536, 42), (65536, 48))
FLAGS = [Attr.VALID, Attr.USER, Attr.RDONLY, Attr.PXN, Attr.SHARED, Attr.AF, Attr.NG, Attr.CONT, Attr.UXN, Attr.GP]
TYPES = [each for each in MemType if each not in (MemType.UNKNOWN, MemType.NORMAL_WT)]


@st.composite
def mappings(draw: st.DrawFn) -> tuple[Mapping, int, int]:
    """A mapping of ranges side by side, as a kernel that prints holes walks them, and its geometry."""
    page_size, va_bits = draw(st.sampled_from(GEOMETRIES))
    geometry = granule(page_size)
    first = geometry.first_level(va_bits)
    rows: list[tuple[int, int, int, int]] = [(3, 1, int(Attr(0)), 0)]
    for _ in range(draw(st.integers(1, 12))):
        level = draw(st.integers(first, 3))
        if draw(st.booleans()):
            rows.append((level, draw(st.integers(1, 700)), 0, 0))
            continue
        attrs = Attr.PRESENT
        for flag in draw(st.sets(st.sampled_from(FLAGS))) | {Attr.AF}:
            attrs |= flag
        if level != 3:
            level = max(level, min(geometry.block_levels()), first)
            attrs |= Attr.BLOCK
        rows.append((level, draw(st.integers(1, 700)), int(attrs), int(draw(st.sampled_from(TYPES)))))
    level, count, attrs_column, memtype = zip(*rows, strict=True)
    size = np.array([n * geometry.span(each) for each, n in zip(level, count, strict=True)], object)
    size = np.minimum(size, (1 << va_bits) // len(rows) // page_size * page_size).astype(np.uint64)
    start = np.uint64((1 << 64) - (1 << va_bits)) + np.concatenate([[np.uint64(0)], np.cumsum(size)[:-1]])
    if draw(st.booleans()):  # reaching the end of the address space
        size[-1] = (1 << 64) - int(start[-1])
    mapping = Mapping(
        start=start,
        size=size,
        level=np.array(level, np.int8),
        attrs=np.array(attrs_column, np.uint16),
        memtype=np.array(memtype, np.uint8),
        observed_start=start[:1],
        observed_last=start[-1:] + size[-1:] - np.uint64(1),
        source="kernel_page_tables",
        markers=tuple(
            Marker(name, row)
            for row, name in sorted(draw(st.sets(st.tuples(st.integers(0, len(rows)), st.sampled_from("abc")))))
        ),
    )
    return mapping, va_bits, page_size


def facts(mapping: Mapping) -> dict[str, list[int]]:
    names = ("start", "size", "level", "attrs", "memtype", "observed_start", "observed_last")
    return {name: getattr(mapping, name).tolist() for name in names}


@settings(deadline=None)
@given(mappings())
def test_reading_what_was_written_gives_the_mapping_again(case: tuple[Mapping, int, int]) -> None:
    mapping, va_bits, page_size = case
    written = render(mapping, va_bits, page_size)
    dump = parse(written, mapping.source)
    again = dump.to_mapping(va_bits, page_size)
    assert dump.diagnostics == ()
    assert facts(again) == facts(mapping)
    assert [(each.name, each.row) for each in again.markers] == [(each.name, each.row) for each in mapping.markers]
    assert render(again, va_bits, page_size) == written
    lines = written.decode().split("\n")
    assert [again.quote(row) for row in range(len(again))] == [lines[int(line) - 1] for line in dump.line]


PREFIXES = (
    b"> ",
    b"> > ",
    b"    ",
    b"\xc2\xa0 ",
    b"<6>",
    b"[    1.234567] ",
    b"<6>[ 1234.567890][   T12] ",
    b"Nov 21 08:03:44 host kernel: [   12.345678] ",
    b"2026-11-21T08:03:44.123456+00:00 my-host kernel: ",
    b"\xef\xbb\xbf",
    b"57:",
)


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r\r\n", b"   \n", b"\xc2\xa0\n"])
@pytest.mark.parametrize("copies", [1, 9])
@settings(max_examples=12, deadline=None)
@given(case=mappings(), prefix=st.sampled_from(PREFIXES))
def test_prefixes_and_line_ends_change_nothing(
    ending: bytes, copies: int, case: tuple[Mapping, int, int], prefix: bytes
) -> None:
    mapping, va_bits, page_size = case
    plain = render(mapping, va_bits, page_size)
    lines = [b"prose"] * 20 * copies + [b"# cat kernel_page_tables"] + plain.splitlines()
    pasted = b"".join(prefix + line + ending for line in lines)
    one, other = (parse(data, mapping.source) for data in (plain, pasted))
    assert facts(other.to_mapping(va_bits, page_size)) == facts(one.to_mapping(va_bits, page_size))
    assert other.diagnostics == ()
    assert [each.name for each in other.markers] == [each.name for each in one.markers]


@settings(deadline=None)
@given(mappings(), st.data())
def test_splitting_a_row_keeps_what_is_mapped_and_observed(case: tuple[Mapping, int, int], data: st.DataObject) -> None:
    mapping, va_bits, page_size = case
    large = np.flatnonzero(mapping.size > page_size)
    if not large.size:
        return
    row = data.draw(st.sampled_from(large.tolist()))
    pages = int(mapping.size[row]) // page_size
    head = np.uint64(data.draw(st.integers(1, pages - 1)) * page_size)
    twice = np.insert(np.arange(len(mapping)), row, row)
    start, size = mapping.start[twice].copy(), mapping.size[twice].copy()
    size[row], size[row + 1] = head, size[row] - head
    start[row + 1] += head
    split = replace(
        mapping,
        start=start,
        size=size,
        level=mapping.level[twice],
        attrs=mapping.attrs[twice],
        memtype=mapping.memtype[twice],
        markers=(),
    )
    again = parse(render(split, va_bits, page_size), "").to_mapping(va_bits, page_size)
    assert again.size.tolist() == size.tolist()
    assert again.observed_start.tolist() == mapping.observed_start.tolist()
    assert again.observed_last.tolist() == mapping.observed_last.tolist()


@settings(max_examples=200, deadline=None)
@given(mappings(), st.data())
def test_any_damage_leaves_a_dump_or_our_error(case: tuple[Mapping, int, int], data: st.DataObject) -> None:
    mapping, va_bits, page_size = case
    text = bytearray(render(mapping, va_bits, page_size))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
        if not text:
            break
    try:
        dump = parse(bytes(text), "x")
    except InputError:
        return
    last = dump.start + (dump.size - np.uint64(1))
    assert (last >= dump.start).all()
    assert (dump.start[1:] > last[:-1]).all()
    assert dump.to_mapping(va_bits, page_size).level.size == len(dump)


@settings(deadline=None)
@given(st.lists(st.integers(0, 99), min_size=1, max_size=40), st.integers(0, 3))
def test_the_regular_and_the_tolerant_reader_agree(pages: list[int], style: int) -> None:
    """The same rows in the kernel's columns and out of them, in one text."""
    start = 0xFFFF << 48
    regular, mixed = [], []
    for number, count in enumerate(pages):
        size = (count + 1) * 4096
        attrs = "       RW NX SHD AF            UXN    MEM/NORMAL"
        line = f"0x{start:016x}-0x{start + size:016x}   {size >> 10:9}K PTE{attrs}"
        regular.append(line)
        odd = (
            line.replace("0x", ""),
            " ".join(line.split()),
            line.upper().replace("0X", "0x"),
            line.replace(" ", "\t"),
        )
        mixed.append(
            odd[style] if number % 2 and style != 2 else line.replace("ffff", "FFFF", 1) if style == 2 else line
        )
        start += size
    one, other = (parse("".join(f"{line}\n" for line in lines).encode(), "") for lines in (regular, mixed))
    for column in ("start", "size", "attrs", "memtype", "line"):
        assert getattr(one, column).tolist() == getattr(other, column).tolist()

"""Dumps that claim more than they hold, and dumps that are cut while they are read."""

import errno
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.errors import FormatError, InputError
from parsers.vmcore.addresses import AddressMap
from parsers.vmcore.bitmap import Bitmap
from parsers.vmcore.distilled import write_core
from parsers.vmcore.flattened import FLAT_MAGIC, Flattened, PlainFile
from parsers.vmcore.opening import open_dump
from parsers.vmcore.pagetable import walk_page_tables
from tests.parsers.vmcore.cores import Tables, flattened, kdump, vmcoreinfo

MIB = 1 << 20
END = struct.pack(">qq", -1, -1)


def stream_of(pieces, end=END):
    body = b"".join(struct.pack(">qq", at, len(data)) + data for at, data in pieces)
    return FLAT_MAGIC.ljust(4096, b"\0") + body + end


def peak_of(work):
    tracemalloc.start()
    try:
        work()
    except InputError as error:
        return tracemalloc.get_traced_memory()[1], error
    finally:
        tracemalloc.stop()
    return tracemalloc.get_traced_memory()[1], None


@pytest.fixture
def tables():
    made = Tables()
    for number in range(600):
        made.leaf(0xFFFF000000000000 + (number << 21), 3, 0x8000_0000 + (number << 12))
    return made


def dump_of(tables, kind):
    memory = tables.memory
    plain = kdump(memory, memory.units, vmcoreinfo(), machine="aarch64", block_size=4096, codec="none")
    return flattened(plain) if kind == "flattened" else plain


def test_a_flattened_dump_of_single_bytes_is_refused_early(tmp_path):
    path = tmp_path / "kdump"
    path.write_bytes(stream_of([], b"") + struct.pack(">qqb", 0, 1, 75) * 300_000)
    used, error = peak_of(lambda: open_dump(path))
    assert isinstance(error, FormatError)
    assert "pieces" in error.message
    assert (error.path, error.offset > 4096) == (str(path), True)
    assert used < 16 * MIB


def test_a_bitmap_of_64_mib_is_counted_in_pieces(tmp_path, tables):
    memory, path = tables.memory, tmp_path / "kdump"
    head = bytearray(kdump(memory, memory.units, vmcoreinfo(), machine="aarch64", block_size=4096))
    blocks = 2 * (64 * MIB // 4096)
    claims = 8 * 64 * MIB
    head[436:444] = struct.pack("<II", blocks, claims)
    head[4096 + 96 : 4096 + 104] = struct.pack("<Q", claims)  # max_mapnr_64
    with path.open("wb") as file:
        file.write(head[: 2 * 4096])
        file.truncate(2 * 4096 + blocks * 4096)
    used, error = peak_of(lambda: open_dump(path))
    assert error is None
    assert used < 16 * MIB
    assert int(open_dump(path).memory.extents[1][0]) == claims * 4096


def test_a_header_that_claims_more_bitmap_than_the_file_has_names_the_offset(tmp_path, tables):
    path = tmp_path / "kdump"
    data = dump_of(tables, "plain")
    path.write_bytes(data[: 11 * 4096 + 40])
    with pytest.raises(FormatError, match="bitmap") as caught:
        open_dump(path)
    assert (caught.value.path, caught.value.offset) == (str(path), 11 * 4096 + 40)


@given(st.lists(st.tuples(st.integers(0, 60), st.binary(min_size=1, max_size=24)), max_size=12), st.data())
def test_pieces_overwrite_earlier_ones(tmp_path_factory, pieces, data):
    path = tmp_path_factory.mktemp("flat") / "f"
    path.write_bytes(stream_of(pieces))
    expected = bytearray(max((at + len(one) for at, one in pieces), default=0))
    for at, one in pieces:
        expected[at : at + len(one)] = one
    with path.open("rb") as stream:
        file = Flattened(PlainFile(stream, str(path)), str(path))
    assert not file.truncated
    for _ in range(6):
        at, size = data.draw(st.integers(0, 100)), data.draw(st.integers(0, 100))
        found = file.read(at, size)
        assert found == bytes(expected[at : at + size])[: len(found)]
        written = [n for start, one in pieces for n in range(start, start + len(one)) if at <= n < at + size]
        assert len(found) == max((n + 1 - at for n in written), default=0)


@pytest.mark.parametrize("size", [8, 4096, 4096 + 8, MIB + 4096 + 800])
def test_ranks_are_the_set_bits_before(size):
    rng = np.random.default_rng(size)
    data = (rng.integers(0, 256, size) * (rng.random(size) < 0.3)).astype(np.uint8).tobytes()
    bitmap = Bitmap(lambda at, count: data[at : at + count], 0, size, "made")
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    pfns = np.unique(rng.integers(0, 8 * size, 500)).astype(np.uint64)
    held, rank = bitmap.look(pfns)
    np.testing.assert_array_equal(held, bits[pfns.astype(np.int64)] == 1)
    np.testing.assert_array_equal(rank, (np.cumsum(bits) - bits)[pfns.astype(np.int64)])


@pytest.mark.parametrize("kind", ["plain", "flattened", "elf"])
def test_a_dump_that_is_cut_while_it_is_read(tmp_path, tables, kind):
    """With a mapping of the file this would end the process with SIGBUS."""
    path, memory = tmp_path / "dump", tables.memory
    if kind == "elf":
        write_core(path, memory, memory.units, vmcoreinfo())
    else:
        path.write_bytes(dump_of(tables, kind))
    raw = open_dump(path)
    assert str(path) not in Path("/proc/self/maps").read_text()
    os.truncate(path, path.stat().st_size * 2 // 3)
    result = walk_page_tables(raw.memory, AddressMap.from_vmcoreinfo(raw.vmcoreinfo), source="cut")
    lost = [one for one in raw.memory.diagnostics if "end" in one.message]
    assert [one.path for one in lost] == [str(path)] * len(lost) != []
    assert any("not in the dump" in one.message for one in result.diagnostics)
    assert result.mapping.observed_start.size > 1


@pytest.mark.parametrize("kind", ["plain", "flattened", "elf"])
def test_a_file_that_cannot_be_read_names_reason_and_offset(tmp_path, tables, kind, monkeypatch):
    path, memory = tmp_path / "dump", tables.memory
    if kind == "elf":
        write_core(path, memory, memory.units, vmcoreinfo())
    else:
        path.write_bytes(dump_of(tables, kind))
    raw = open_dump(path)

    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", broken)
        patch.setattr(os, "preadv", broken)
        if kind == "elf":
            _, present = raw.memory.read_units(memory.units)
            assert not present.any()
            assert "Input/output error" in raw.memory.diagnostics[0].message
            assert raw.memory.diagnostics[0].offset is not None
        else:
            with pytest.raises(InputError, match="Input/output error") as caught:
                raw.memory.read_units(memory.units)
            assert (caught.value.path, caught.value.offset is not None) == (str(path), True)


def test_a_page_that_cannot_be_read_is_unknown(tmp_path, tables, monkeypatch):
    path, memory = tmp_path / "dump", tables.memory
    path.write_bytes(dump_of(tables, "plain"))
    raw, real = open_dump(path), os.pread
    data_at = path.stat().st_size // 2

    def broken(fd, size, offset):
        if offset > data_at:
            raise OSError(errno.EIO, "Input/output error")
        return real(fd, size, offset)

    monkeypatch.setattr(os, "pread", broken)
    _, present = raw.memory.read_units(memory.units)
    assert present.any()
    assert not present.all()
    assert "Input/output error" in raw.memory.diagnostics[0].message

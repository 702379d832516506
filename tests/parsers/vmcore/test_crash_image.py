"""The list of memory of a loaded crash kernel: struct kimage and the ELF header that is one of its segments."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from parsers.vmcore.crash_image import read_crash_image
from parsers.vmcore.dump import Dump
from parsers.vmcore.extract import extract
from parsers.vmcore.opening import open_dump
from tests.parsers.vmcore.conftest import FIXTURES
from tests.parsers.vmcore.cores import PatchedMemory, word

CORE = FIXTURES / "pmem-6.12-64k-namespaces.core.zst"
CRASHED = FIXTURES.parent / "crashed" / "pmem-7.3-16k.core.zst"
RAM = [(0x40000000, 0x67600000), (0x73600000, 0x7FC00000)]
PAGE = 1 << 16


@pytest.fixture(scope="module")
def tables():
    """Two pages of the linear map, which are there to be overwritten: tables of the last level."""
    found = extract(CORE).mapping.tables
    return [int(pa) for pa, level in zip(found.pa, found.level, strict=True) if level == 3][:2]


def header(ranges, *, kind=1, machine=183, room=None):
    """An elfcorehdr as `crash_prepare_elf64_headers` writes it: a note, then the memory."""
    rows = [struct.pack("<IIQQQQQQ", 4, 0, 0x1000, 0, 0x1000, 8, 8, 4)]
    rows += [struct.pack("<IIQQQQQQ", kind, 7, lo, 0, lo, hi - lo, hi - lo, 0) for lo, hi in ranges]
    fixed = (4, machine, 1, 0, 64, 0, 0, 64, 56, room or len(rows), 0, 0, 0)
    return struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1" + bytes(9), *fixed) + b"".join(rows)


def loaded(tables, content, *, memsz=PAGE, missing=()):
    """The dump of a kernel with a crash kernel of two segments, the second of which is ``content``."""
    raw = open_dump(CORE)
    dump = Dump(raw)
    image, place = tables
    linear = dump.addresses.page_offset - dump.addresses.phys_offset
    at = dump.member("kimage", "segment").offset
    variable, _ = dump.addresses.physical(np.array([dump.symbol("kexec_crash_image")], np.uint64))
    segments = [(0, 0, 0x67700000, PAGE), (0, 0, place, memsz)]
    patches = {
        int(variable[0]): word(linear + image),
        image + dump.member("kimage", "nr_segments").offset: word(len(segments)),
        image + at: b"".join(struct.pack("<4Q", *one) for one in segments),
        place: content,
    }
    return Dump(raw, memory=PatchedMemory(raw.memory, patches, missing))


def test_memory_of_a_loaded_crash_kernel_is_its_elf_header(tables):
    found = read_crash_image(loaded(tables, header(RAM)))
    assert (found.loaded, found.unread) == (True, "")
    assert [(lo * PAGE, hi * PAGE) for lo, hi in zip(found.start_pfn, found.end_pfn, strict=True)] == RAM


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (header(RAM, machine=62), "none of its 2 segments can be read as an ELF header"),
        (bytes(64), "none of its 2 segments can be read as an ELF header"),  # unmapped, before 6.4
        (header(RAM, kind=0), "is not whole"),
        (header([]), "lists no memory"),
        (header([(0x40000000, 1 << 53)]), "lists no memory, or some that cannot be"),
        (header(RAM, room=2000), "does not fit into its segment"),
    ],
    ids=["another machine", "zeros", "no type", "empty", "beyond", "too long"],
)
def test_a_header_that_is_not_whole_is_no_list(tables, content, why):
    found = read_crash_image(loaded(tables, content))
    assert (found.loaded, len(found)) == (True, 0)
    assert why in found.unread


def test_pages_that_the_dump_lacks_are_named(tables):
    gone = range(tables[0], tables[0] + PAGE, 4096)
    found = read_crash_image(loaded(tables, header(RAM), missing=gone))
    assert (found.loaded, len(found)) == (True, 0)
    assert f"physical page {tables[0]:#x} is not in the dump" in found.unread
    # A kdump has none of the memory of the kernel that wrote it.
    crashed = extract(CRASHED).crash_image
    assert (crashed.loaded, len(crashed)) == (True, 0)
    assert crashed.unread == "physical page 0x41a04000 is not in the dump"


def test_none_is_loaded_where_the_pointer_is_null():
    found = extract(CORE).crash_image
    assert (found.loaded, len(found), found.unread) == (False, 0, "")

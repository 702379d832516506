"""Files that are dumps, are other dumps, are damaged, or are nothing of the kind."""

import contextlib
import gzip
import lzma
import os
import struct

import numpy as np
import pytest
import zstandard

from parsers.errors import FormatError, InputError, LayoutError, PtauditError, WrongFormatError
from parsers.vmcore.container import open_plain
from parsers.vmcore.distilled import write_core
from parsers.vmcore.extract import extract
from parsers.vmcore.opening import open_dump
from tests.parsers.vmcore.conftest import AFTER
from tests.parsers.vmcore.cores import PageMemory, Tables, vmcoreinfo

VMEMMAP, LINEAR = 0xFFFFFDFFC0000000, 0xFFFF000000000000


@pytest.fixture(scope="module")
def plain():
    with open_plain(AFTER) as stream:
        return stream.read()


ELSEWHERE = {"NUMBER(kimage_voffset)": hex(0xFFFF800080000000 - 0x40200000)}


@pytest.fixture
def core(tmp_path, plain):
    path = tmp_path / "vmcore"
    path.write_bytes(plain)
    return path


def small(path, info=None, more=()):
    memory = Tables().image().leaf(VMEMMAP, 2, 0x80000000).memory
    memory.pages.update(more)
    write_core(path, memory, memory.units, vmcoreinfo() if info is None else info)
    return path


@pytest.mark.parametrize(
    "pack", [gzip.compress, lzma.compress, zstandard.ZstdCompressor().compress], ids=["gz", "xz", "zst"]
)
def test_containers_are_opened_by_content(tmp_path, pack):
    core = small(tmp_path / "vmcore")
    packed = tmp_path / "sent-by-mail.bin"
    packed.write_bytes(pack(core.read_bytes()))
    one, other = open_dump(core), open_dump(packed)
    units = np.arange(0x40000, 0x40002, dtype=np.uint64)
    np.testing.assert_array_equal(one.memory.read_units(units)[0], other.memory.read_units(units)[0])


@pytest.mark.parametrize(
    "pack", [gzip.compress, lzma.compress, zstandard.ZstdCompressor().compress], ids=["gz", "xz", "zst"]
)
@pytest.mark.parametrize("keep", [0.1, 0.7, 0.999])
def test_a_container_that_ends_early_is_an_error(tmp_path, plain, pack, keep):
    packed = pack(plain[:1_000_000])
    path = tmp_path / "vmcore.packed"
    path.write_bytes(packed[: int(len(packed) * keep)])
    with pytest.raises(FormatError, match="damaged"):
        open_dump(path)


def test_several_zstd_frames_are_one_file(tmp_path):
    data = np.random.default_rng(1).bytes(300_000)
    pack = zstandard.ZstdCompressor().compress
    path = tmp_path / "frames.zst"
    path.write_bytes(pack(data[:100_000]) + pack(b"") + pack(data[100_000:]))
    with open_plain(path) as stream:
        assert stream.read() == data


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("parsers.vmcore.container.MAX_RATIO", 100)
    monkeypatch.setattr("parsers.vmcore.container._RATIO_FREE_BYTES", 1 << 20)
    path = tmp_path / "bomb.xz"
    path.write_bytes(lzma.compress(bytes(8 << 20)))
    with pytest.raises(FormatError, match="100 times"):
        open_plain(path)


def test_zeros_take_no_room(tmp_path):
    path = tmp_path / "sparse.zst"
    path.write_bytes(zstandard.ZstdCompressor().compress(bytes(16 << 20) + b"end"))
    with open_plain(path) as stream:
        status = os.fstat(stream.fileno())
    assert status.st_size == (16 << 20) + 3
    assert status.st_blocks * 512 < 1 << 20


def elf(machine=183, kind=4, elf_class=2, data=1):
    ident = b"\x7fELF" + bytes([elf_class, data, 1]) + bytes(9)
    return struct.pack("<16sHHIQQQIHHHHHH", ident, kind, machine, 1, 0, 64, 0, 0, 64, 56, 0, 64, 0, 0)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"", InputError, "not a crash dump"),
        (b"hello\n" * 100, InputError, "not a crash dump"),
        (bytes(5000), InputError, "not a crash dump"),
        (elf(machine=62), WrongFormatError, "EM_X86_64"),
        (elf(kind=2), WrongFormatError, "not a core"),
        (elf(data=2), WrongFormatError, "big-endian"),
        (elf(elf_class=1), WrongFormatError, "32-bit"),
        (elf(), FormatError, "no memory"),
        (elf()[:30], FormatError, "damaged ELF"),
        (b"KDUMP   " + bytes(30), FormatError, "truncated"),
        (b"KDUMP   " + bytes(9000), FormatError, "block size"),
        (b"makedumpfile\0\0\0\0" + bytes(9000), FormatError, "piece header"),
        (b"makedumpfile\0\0\0\0" + bytes(4080), InputError, "no kdump header"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, content, error, message):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises((error, WrongFormatError), match=message) as caught:
        open_dump(path)
    assert caught.value.path == str(path)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        extract(tmp_path / "absent")
    with pytest.raises(InputError, match="directory"):
        extract(tmp_path)


def test_a_vmcore_without_vmcoreinfo_needs_its_text(tmp_path):
    path = small(tmp_path / "vmcore", info=b"")
    with pytest.raises(InputError, match="no VMCOREINFO"):
        open_dump(path)
    text = tmp_path / "vmcoreinfo"
    text.write_bytes(vmcoreinfo())
    facts = extract(path, vmcoreinfo=text)
    assert facts.mapping.pa[facts.mapping.present].tolist() == [0x40000000, 0x80000000]


def test_vmcoreinfo_is_found_in_memory(tmp_path):
    page = vmcoreinfo().ljust(4096, b"\0")
    raw = open_dump(small(tmp_path / "vmcore", info=b"", more={0x50000: page}))
    assert raw.vmcoreinfo.osrelease == "6.12.0"
    assert "found it in memory" in raw.diagnostics[0].message


def test_of_several_in_memory_the_one_that_fits_the_page_tables_counts(tmp_path):
    """An earlier kernel, the crash kernel or a guest left the others."""
    stale, page = (info.ljust(4096, b"\0") for info in (vmcoreinfo(OSRELEASE="6.1.0", **ELSEWHERE), vmcoreinfo()))
    left = {0x40200: b"\1" * 4096, 0x50000: stale, 0x50002: stale}
    path = small(tmp_path / "vmcore", info=b"", more=left | {0x50001: page})
    assert open_dump(path).vmcoreinfo.osrelease == "6.12.0"
    with pytest.raises(InputError, match="2 found in memory are of other boots or other kernels"):
        open_dump(small(tmp_path / "vmcore", info=b"", more=left))


def test_a_page_in_memory_that_no_kernel_can_have_hides_no_good_one(tmp_path):
    odd, page = (info.ljust(4096, b"\0") for info in (vmcoreinfo(page_size=5), vmcoreinfo()))
    path = small(tmp_path / "vmcore", info=b"", more={0x50000: odd, 0x50001: page})
    assert open_dump(path).vmcoreinfo.osrelease == "6.12.0"


@pytest.mark.parametrize("offset", ["0x0", "-4096"])
def test_a_kernel_image_that_lies_nowhere_is_no_failure_inside(tmp_path, offset):
    text = tmp_path / "vmcoreinfo"
    info = open_dump(AFTER).vmcoreinfo
    lines = "".join(f"{key}={value}\n" for key, value in info.text.items() if key != "NUMBER(kimage_voffset)")
    text.write_text(f"{lines}NUMBER(kimage_voffset)={offset}\n")
    with contextlib.suppress(PtauditError):
        extract(AFTER, vmcoreinfo=text)


def test_vmcoreinfo_in_memory_counts_where_page_tables_of_zeros_do_not_deny_it(tmp_path):
    memory = Tables().image().memory
    memory.pages.update({0x40000: bytes(4096), 0x50000: vmcoreinfo().ljust(4096, b"\0")})
    write_core(tmp_path / "vmcore", memory, memory.units, b"")
    assert open_dump(tmp_path / "vmcore").vmcoreinfo.osrelease == "6.12.0"


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (ELSEWHERE, "another kernel: by it the page tables lie at 0x40200000"),
        ({"NUMBER(VA_BITS)": 39, "NUMBER(TCR_EL1_T1SZ)": 25}, "swapper_pg_dir is not mapped there"),
        ({"NUMBER(PHYS_OFFSET)": "0x80000000"}, "shows PHYS_OFFSET 0x40000000, not 0x80000000"),
    ],
    ids=["image", "bits", "linear map"],
)
def test_a_vmcoreinfo_of_another_boot_is_refused(tmp_path, info, message):
    text, memory = tmp_path / "vmcoreinfo", Tables().image().leaf(LINEAR, 2, 0x40000000).memory
    memory.pages[0x40200] = memory.pages[0x40000]  # an old copy
    write_core(tmp_path / "vmcore", memory, memory.units, vmcoreinfo())
    assert extract(tmp_path / "vmcore").mapping.pa is not None
    text.write_bytes(vmcoreinfo(**info))
    with pytest.raises(FormatError, match=message):
        extract(tmp_path / "vmcore", vmcoreinfo=text)


@pytest.mark.parametrize("key", ["NUMBER(VA_BITS)", "NUMBER(PHYS_OFFSET)", "SYMBOL(swapper_pg_dir)", "PAGESIZE"])
def test_vmcoreinfo_without_the_layout_names_the_missing_key(tmp_path, key):
    lines = [line for line in vmcoreinfo().splitlines(keepends=True) if not line.startswith(key.encode())]
    with pytest.raises((LayoutError, FormatError)) as caught:
        extract(small(tmp_path / "vmcore", info=b"".join(lines)))
    assert key in str(caught.value) or "page size" in str(caught.value).lower()


def test_impossible_layouts_are_refused(tmp_path):
    for info in (vmcoreinfo(page_size=8192), vmcoreinfo(va_bits=64)):
        with pytest.raises(PtauditError):
            extract(small(tmp_path / "vmcore", info=info))


def test_a_truncated_dump_says_so_and_what_is_left_is_read(core, plain):
    core.write_bytes(plain[: len(plain) * 2 // 3])
    facts = extract(core)
    assert "truncated" in facts.diagnostics[0].message
    assert facts.mapping.observed_last.size > 1 or facts.sections is None or len(facts.diagnostics) > 1


def test_every_truncation_gives_facts_or_an_error_of_ours(core, plain):
    for size in [*range(0, 6000, 500), *range(6000, len(plain), len(plain) // 24)]:
        core.write_bytes(plain[:size])
        try:
            facts = extract(core)
        except PtauditError:
            continue
        assert facts.diagnostics


def test_damaged_headers_give_facts_or_an_error_of_ours(core, plain):
    rng = np.random.default_rng(7)
    for _ in range(25):
        data = bytearray(plain)
        for place in rng.integers(16, 6000, 3).tolist():
            data[place] = int(rng.integers(256))
        core.write_bytes(data)
        try:
            extract(core, with_dmesg=False)
        except PtauditError:
            continue


def test_memory_that_the_file_does_not_hold_is_unknown_not_zero(tmp_path, plain):
    """p_memsz greater than p_filesz: drgn and crash read zeros there."""
    data = bytearray(plain)
    (phoff,) = struct.unpack_from("<Q", data, 32)
    entry = phoff + 56  # the first PT_LOAD
    pa, filesz = struct.unpack_from("<QQ", data, entry + 24)
    struct.pack_into("<Q", data, entry + 32, filesz - 4096)
    path = tmp_path / "vmcore"
    path.write_bytes(data)
    memory = open_dump(path).memory
    _, present = memory.read_units(np.array([pa // 4096, (pa + filesz) // 4096 - 1], np.uint64))
    assert present.tolist() == [filesz > 4096, False]


def test_segments_that_overlap_are_read_once(tmp_path):
    """/proc/vmcore lists the kernel image once by its own address and once in the linear map."""
    memory = Tables().leaf(VMEMMAP, 2, 0x80000000).memory
    path = tmp_path / "vmcore"
    write_core(path, memory, memory.units, vmcoreinfo())
    data = bytearray(path.read_bytes())
    (phoff,) = struct.unpack_from("<Q", data, 32)
    (count,) = struct.unpack_from("<H", data, 56)
    headers = data[phoff : phoff + 56 * count] + data[phoff + 56 : phoff + 112]
    struct.pack_into("<Q", data, 32, len(data))
    struct.pack_into("<H", data, 56, count + 1)
    path.write_bytes(data + headers)
    raw = open_dump(path)
    starts, ends = raw.memory.extents
    assert (starts[1:] >= ends[:-1]).all()
    np.testing.assert_array_equal(raw.memory.read_units(memory.units)[0], memory.read_units(memory.units)[0])


def test_many_segments_use_the_extended_count(tmp_path):
    pages = {number * 2: bytes([number % 256]) * 4096 for number in range(0x40000, 0x40000 + 66000)}
    memory = PageMemory(pages)
    path = tmp_path / "vmcore"
    write_core(path, memory, memory.units, vmcoreinfo())
    starts, _ = open_dump(path).memory.extents
    assert starts.size == 66000


def vmlinux(tmp_path, *, machine=183, build_id=b"\x01" * 20):
    """An ELF file of nothing but a build-id note."""
    note = struct.pack("<III", 4, len(build_id), 3) + b"GNU\0" + build_id if build_id else b""
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 3, machine, 1, 0, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    header += struct.pack("<IIQQQQQQ", 4, 4, 120, 0, 0, len(note), len(note), 4)
    path = tmp_path / "vmlinux"
    path.write_bytes(header + note)
    return path


def test_a_vmlinux_of_another_build_is_refused_with_both_ids(tmp_path):
    with pytest.raises(InputError) as caught:
        extract(AFTER, vmlinux=vmlinux(tmp_path))
    assert "01" * 20 in str(caught.value)
    assert "88f6bd24b2dd2550ad6100e339b0f0a035182f48" in str(caught.value)


def test_other_vmlinux_files_are_refused(tmp_path):
    with pytest.raises(WrongFormatError, match="EM_X86_64"):
        extract(AFTER, vmlinux=vmlinux(tmp_path, machine=62))
    with pytest.raises(InputError, match="no build-id"):
        extract(AFTER, vmlinux=vmlinux(tmp_path, build_id=b""))
    (tmp_path / "text").write_text("no ELF")
    with pytest.raises(FormatError, match="no usable ELF"):
        extract(AFTER, vmlinux=tmp_path / "text")
    with pytest.raises(FormatError, match="no usable ELF"):
        extract(AFTER, vmlinux=cut(tmp_path, vmlinux(tmp_path)))


def cut(tmp_path, path):
    part = tmp_path / "part"
    part.write_bytes(path.read_bytes()[:70])
    return part

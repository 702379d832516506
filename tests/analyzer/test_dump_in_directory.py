"""A crash dump that lies in a capture directory is found by its content, at the cost of its first bytes."""

from __future__ import annotations

import os
import shutil
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import zstandard

from analyzer.audit import audit
from analyzer.reports.json import document
from analyzer.sources.read import Request, read_sources
from analyzer.sources.sniff import is_kernel_dump
from parsers.errors import FormatError, UsageError
from parsers.vmcore.container import open_plain
from parsers.vmcore.dump import Dump
from parsers.vmcore.extract import VmcoreFacts
from parsers.vmcore.opening import open_dump
from tests.parsers.vmcore.cores import kdump
from tests.parsers.vmcore.test_without_debuginfo import map_text

VMCORES = Path(__file__).parents[2] / "fixtures" / "vmcore"
AFTER, BEFORE = (VMCORES / f"pmem-6.12-vuln-{when}.core.zst" for when in ("after", "before"))
UNAME = b"Linux (none) 6.12.117 #1 SMP aarch64 GNU/Linux\n"
KIB, GIB = 1 << 10, 1 << 30


@pytest.fixture(scope="module")
def plain() -> bytes:
    with open_plain(AFTER) as stream:
        return stream.read()


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    folder = tmp_path / "host"
    folder.mkdir()
    (folder / "uname").write_bytes(UNAME)
    (folder / "iomem").write_bytes((VMCORES / "pmem-6.12-vuln-after.iomem").read_bytes())
    return folder


def kinds(folder: Path) -> list[str]:
    return sorted(source.kind for source in read_sources(Request((folder,))).sources)


def elf(kind: int, machine: int = 183, va: int = 0xFFFF000040000000, pa: int = 0x40000000) -> bytes:
    head = b"\x7fELF\2\1\1".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", kind, machine, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0
    )
    note, load = (
        struct.pack("<IIQQQQQQ", 4, 0, 176, 0, 0, 8, 8, 4),
        struct.pack("<IIQQQQQQ", 1, 7, 4096, va, pa, 8, 8, 4096),
    )
    return (head + note + load).ljust(8192, b"\0")


@pytest.mark.parametrize("name", ["vmcore", "kernel.elf.zst", "crash/127.0.0.1/dump.bin"])
def test_it_is_read_as_if_it_had_been_named(capture: Path, plain: bytes, tmp_path: Path, name: str) -> None:
    data = AFTER.read_bytes() if name.endswith(".zst") else plain
    beside = tmp_path / "elsewhere"
    beside.write_bytes(data)
    wanted = document(audit(Request((capture, beside))))["findings"]
    (capture / name).parent.mkdir(parents=True, exist_ok=True)
    (capture / name).write_bytes(data)
    found = document(audit(Request((capture,))))["findings"]
    assert kinds(capture) == ["iomem", "uname", "vmcore"]
    assert [(one["rule"], one["claim"], one["fingerprint"]) for one in found] == [
        (one["rule"], one["claim"], one["fingerprint"]) for one in wanted
    ]
    assert ("VMM-02", "proven") in {(one["rule"], one["claim"]) for one in found}


def test_the_parts_of_a_split_dump_are_one(capture: Path) -> None:
    raw = open_dump(AFTER)
    units = np.concatenate(
        [np.arange(lo // 4096, hi // 4096, dtype=np.uint64) for lo, hi in zip(*raw.memory.extents, strict=True)]
    )
    half = int(units[units.size // 2]) // 16
    for name, part in (("dump.1", (0, half)), ("dump.2", (half, int(units.max()) // 16 + 1))):
        data = kdump(raw.memory, units, raw.vmcoreinfo_bytes, machine="aarch64", split=part)
        (capture / name).write_bytes(data)
    sources = read_sources(Request((capture,))).sources
    assert [Path(one.path).name for one in sources if one.kind == "vmcore"] == ["dump.1", "dump.2"]


def without_kallsyms(plain: bytes) -> bytes:
    """The same dump of a kernel whose VMCOREINFO does not say where its symbols are, as before 6.0."""
    return plain.replace(b"SYMBOL(kallsyms_", b"SYMBOL(hidden___")


def vmcore_of(folder: Path) -> VmcoreFacts:
    facts = read_sources(Request((folder,))).captured.vmcore
    assert facts is not None
    return facts


def test_the_system_map_beside_it_gives_the_symbols_that_it_lacks(capture: Path, plain: bytes) -> None:
    symbols = Dump(open_dump(AFTER))
    (capture / "vmcore").write_bytes(without_kallsyms(plain))
    assert vmcore_of(capture).blocks is None
    (capture / "boot").mkdir()
    (capture / "boot" / "System.map-6.1.0").write_bytes(map_text(symbols, 0x10000))
    assert vmcore_of(capture).blocks is None
    assert kinds(capture) == ["iomem", "uname", "vmcore"]
    (capture / "boot" / "System.map-6.12.117").write_bytes(map_text(symbols, 0))
    assert vmcore_of(capture).blocks is not None
    read = read_sources(Request((capture,)))
    assert "system_map" in {source.kind for source in read.sources}
    assert [Path(name).name for name in read.ignored] == ["System.map-6.1.0"]


def test_a_vmlinux_beside_it_is_named_and_not_opened(capture: Path, plain: bytes) -> None:
    (capture / "vmcore").write_bytes(without_kallsyms(plain))
    (capture / "vmlinux-6.12.117.debug").write_bytes(b"\x7fELF and no more")
    (source,) = (one for one in read_sources(Request((capture,))).sources if one.kind == "vmcore")
    assert str(capture / "vmlinux-6.12.117.debug") in source.diagnostics[-1].message
    (capture / "vmcore").write_bytes(plain)  # its own BTF does
    (source,) = (one for one in read_sources(Request((capture,))).sources if one.kind == "vmcore")
    assert not [one for one in source.diagnostics if "vmlinux" in one.message]


def test_of_two_dumps_none_is_chosen(capture: Path, plain: bytes) -> None:
    (capture / "vmcore").write_bytes(plain)
    (capture / "old").mkdir()
    (capture / "old" / "vmcore.zst").write_bytes(BEFORE.read_bytes())
    with pytest.raises(
        UsageError, match=r"several crash dumps, name one, or the earlier and the later: old/vmcore.zst, vmcore"
    ):
        audit(Request((capture,)))


def test_one_that_is_damaged_leaves_the_rest(capture: Path, plain: bytes) -> None:
    (capture / "vmcore").write_bytes(plain[:5000])
    (source,) = (one for one in read_sources(Request((capture,))).sources if one.kind == "vmcore")
    assert source.diagnostics
    for name in ("uname", "iomem"):
        (capture / name).unlink()
    with pytest.raises(FormatError):
        read_sources(Request((capture,)))


@pytest.mark.parametrize(
    ("data", "dump"),
    [
        (elf(4), True),
        (elf(4, pa=0), True),
        (elf(4, va=0), True),
        (elf(4, va=0x400000, pa=0), False),  # of a process
        (elf(4, machine=62), False),
        (elf(1), False),  # a module
        (elf(2), False),  # vmlinux
        (elf(4)[:100], False),
        (b"\x7fELF", False),
        (b"KDUMP   " + bytes(100), True),
        (b"DISKDUMP" + bytes(100), True),
        (b"makedumpfile" + bytes(100), True),
        (zstandard.compress(elf(4)), True),
        (zstandard.compress(elf(2)), False),
        (zstandard.compress(elf(4))[:20], False),
        (b"", False),
    ],
)
def test_kernel_cores_are_distinguished_from_other_files(tmp_path: Path, data: bytes, dump: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    assert is_kernel_dump(path) is dump


def test_other_files_cost_their_first_bytes(capture: Path, ptaudit) -> None:
    for name, head in (("disk.img", b""), ("core.1234", elf(4, va=0x400000, pa=0)), ("vmlinux", elf(2))):
        (capture / name).write_bytes(head)
        os.truncate(capture / name, 64 * GIB)
    noise = np.random.default_rng(1).integers(0, 256, 256 * KIB, dtype=np.uint8).tobytes()
    (capture / "backup.zst").write_bytes(zstandard.compress(noise))
    os.truncate(capture / "backup.zst", 64 * GIB)
    (capture / "proc").mkdir()
    (capture / "proc" / "kcore").write_bytes(elf(4))
    begin = time.process_time()
    assert kinds(capture) == ["iomem", "uname"]
    assert time.process_time() - begin < 2
    done = ptaudit("audit", capture, "--verbose")
    assert "5 unrecognised files were skipped:" in done.out
    assert f"{capture}/core.1234" in done.out


def test_a_file_given_with_its_directory_is_not_an_earlier_capture(capture: Path, plain: bytes) -> None:
    (capture / "vmcore").write_bytes(plain)
    shutil.copy(VMCORES / "pmem-6.12-vuln-after.kernel_page_tables", capture / "kernel_page_tables")
    (capture.parent / "link").symlink_to(capture / "vmcore")
    files = (capture / "kernel_page_tables", capture / "vmcore", capture.parent / "link")
    for paths in ((capture, *files), (*files, capture)):
        read = read_sources(Request(paths))
        assert sorted(one.kind for one in read.sources) == ["iomem", "ptdump", "uname", "vmcore"]
        assert (read.captured.earlier_dump, read.captured.earlier_vmcore) == (None, None)
    (capture / "vmcore").write_bytes(plain[:5000])
    (refused,) = read_sources(Request((capture, capture / "vmcore"))).refused  # named, so it has to be readable
    assert isinstance(refused, FormatError)
    (capture / "vmcore").unlink()
    (capture / "iomem").write_bytes(b"\0\0\0")
    (refused,) = read_sources(Request((capture, capture / "iomem"))).refused
    assert isinstance(refused, FormatError)

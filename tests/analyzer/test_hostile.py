"""What strangers send, through the command line: a clear word and status 2, or an ordinary audit, and soon."""

import gzip
import json
import os
import struct
import time
from pathlib import Path

import pytest
import zstandard

from tests.analyzer.conftest import CAPTURES

PMEM = CAPTURES / "pmem-6.12-vuln" / "02-one-removed"
SECONDS = 10
NUMBERS = ["18446744073709551615", "18446744073709551616", "-1", "0", "9" * 400, "f" * 400, "0x" + "f" * 400]
ROW = "0xffff000000000000-0xffff000000001000           4K PTE       RW NX SHD AF            UXN    MEM/NORMAL\n"
ABSURD = {
    "kernel_page_tables": ROW + "0x{n}-0x{n}   {n}K PTE       RW NX SHD AF            UXN    MEM/NORMAL\n",
    "iomem": "{n}-{n} : System RAM\n00000000-ffffffff : System RAM\n",
    "memory_blocks": "block_size_bytes:{n}\nmemory{n}/state:online\nmemory0/phys_index:{n}\nmemory0/state:online\n",
    "zoneinfo": "Node {n}, zone Normal\n  pages free {n}\n      spanned  {n}\n      present  {n}\n  start_pfn: {n}\n",
    "config": "CONFIG_ARM64_VA_BITS={n}\nCONFIG_ARM64_4K_PAGES=y\n",
    "vmcoreinfo": "OSRELEASE=6.12.0\nPAGESIZE={n}\nNUMBER(VA_BITS)={n}\nNUMBER(PHYS_OFFSET)={n}\nSIZE(page)={n}\n",
    "meminfo": "MemTotal: {n} kB\nHugePages_Total: {n}\n",
    "uname": "Linux host 6.{n}.{n} #1 SMP aarch64\n",
    "cmdline": "mem={n} hugepages={n}\n",
    "dmesg": "[    0.000000] Linux version 6.12.0\n[    {n}.000000] node {n}: [mem 0x{n}-0x{n}]\n",
    "trace": "# tracer: nop\n#\n sh-{n} [{n}] d.... {n}.500000: mhp_online: (online_pages+0x0/0x368) pfn={n} nr={n}\n",
    "lsmem": "RANGE SIZE STATE REMOVABLE BLOCK\n0x{n}-0x{n} {n}G online yes {n}-{n}\n",
}


def copy_of(capture: Path, folder: Path) -> Path:
    folder.mkdir()
    for path in capture.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def audited_in_time(done, begin):
    """An ordinary audit, or one line that says what is wrong."""
    assert time.monotonic() - begin < SECONDS
    assert done.status in {0, 1, 2}
    assert "Traceback" not in done.out + done.err
    if done.status == 2:
        assert done.err.startswith("ptaudit: ")
        assert done.err.count("\n") == 1
    return done


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number[:21])
@pytest.mark.parametrize("name", ABSURD)
def test_absurd_numbers(ptaudit, tmp_path, name, number):
    folder = copy_of(PMEM, tmp_path / "capture")
    (folder / name).write_text(ABSURD[name].replace("{n}", number))
    begin = time.monotonic()
    done = audited_in_time(ptaudit("audit", folder), begin)
    assert done.status != 2 or "two" in done.err or name in done.err


def test_links_pipes_devices_and_unreadable_files(ptaudit, tmp_path):
    folder = copy_of(PMEM, tmp_path / "capture")
    (folder / "loop").symlink_to(folder)
    for name in ("zoneinfo", "config", "meminfo", "cmdline"):
        (folder / name).unlink()
    (folder / "zoneinfo").symlink_to("zoneinfo")
    (folder / "config").symlink_to("/dev/zero")
    (folder / "cmdline").symlink_to("/proc/self/mem")
    (folder / "meminfo").mkdir()
    os.mkfifo(folder / "trace.dat")
    (folder / "dmesg").chmod(0)
    begin = time.monotonic()
    assert audited_in_time(ptaudit("audit", folder), begin).status in {0, 1}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize(
    "name", ["kernel_page_tables", "trace", "dmesg", "config", "notes.txt", "bundle.tar.gz", "vmcore"]
)
def test_a_file_that_may_not_be_read_is_named_and_the_rest_is_audited(ptaudit, tmp_path, name):
    folder = copy_of(PMEM, tmp_path / "capture")
    path = folder / name
    path.touch()
    path.chmod(0)
    begin = time.monotonic()
    done = audited_in_time(ptaudit("audit", folder, "--format", "json"), begin)
    assert done.status in {0, 1}
    (reason,) = (one["reason"] for one in json.loads(done.out)["unread"] if one["path"] == str(path))
    assert reason.endswith("Permission denied")
    for command in ("audit", "sections", "timeline"):
        begin = time.monotonic()
        assert audited_in_time(ptaudit(command, path), begin).err.endswith("Permission denied\n")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
def test_a_directory_that_may_not_be_listed_is_named_and_the_rest_is_audited(ptaudit, tmp_path):
    folder = copy_of(PMEM, tmp_path / "capture")
    (folder / "closed").mkdir(mode=0)
    begin = time.monotonic()
    done = audited_in_time(ptaudit("audit", folder, "--format", "json"), begin)
    assert done.status == 1
    assert str(folder / "closed") in {one["path"] for one in json.loads(done.out)["unread"]}
    begin = time.monotonic()
    assert audited_in_time(ptaudit("audit", folder / "closed"), begin).status == 2


def test_directories_nested_without_end_beside_a_capture(ptaudit, tmp_path):
    folder = copy_of(PMEM, tmp_path / "capture")
    (folder / ("d/" * 300)).mkdir(parents=True)
    begin = time.monotonic()
    done = audited_in_time(ptaudit("audit", folder, "--format", "json"), begin)
    assert done.status == 1
    (unread,) = json.loads(done.out)["unread"]
    assert unread["reason"] == "directories are nested more than 200 deep"


@pytest.mark.parametrize("option", ["--vmlinux", "--system-map", "--vmcoreinfo"])
def test_symbols_without_a_dump_are_named(ptaudit, tmp_path, option):
    assert ptaudit("audit", PMEM, option, tmp_path / "nothing").err.endswith("nothing: No such file or directory\n")
    (tmp_path / "symbols").write_text("x")
    done = ptaudit("audit", PMEM, option, tmp_path / "symbols", "--format", "json")
    reason = "no crash dump that it belongs to was read"
    assert {"path": str(tmp_path / "symbols"), "reason": reason} in json.loads(done.out)["unread"]


@pytest.mark.parametrize("target", ["/dev/zero", "fifo", "loop", "nothing"])
def test_what_is_not_a_file(ptaudit, tmp_path, target):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    begin = time.monotonic()
    assert audited_in_time(ptaudit("audit", tmp_path / target), begin).status == 2


def test_a_directory_of_very_many_files(ptaudit, tmp_path):
    folder = copy_of(PMEM, tmp_path / "capture")
    for number in range(10_000):
        (folder / f"x{number}").touch()
    begin = time.monotonic()
    assert audited_in_time(ptaudit("audit", folder), begin).status == 1


@pytest.mark.parametrize("name", ["iomem", "zoneinfo", "config", "memory_blocks", "cmdline", "uname", "meminfo"])
def test_a_large_hole_after_the_text(ptaudit, tmp_path, name):
    folder = copy_of(PMEM, tmp_path / "capture")
    with (folder / name).open("r+b") as file:
        file.truncate(1 << 27)  # sparse
    begin = time.monotonic()
    audited_in_time(ptaudit("audit", folder, "--select", "ENV"), begin)


def test_a_configuration_that_unpacks_to_gigabytes(ptaudit, tmp_path):
    folder = copy_of(PMEM, tmp_path / "capture")
    (folder / "config").write_bytes(gzip.compress(gzip.compress(bytes(64 << 20))))
    (folder / "config.gz").write_bytes(gzip.compress(bytes(64 << 20)))
    begin = time.monotonic()
    assert audited_in_time(ptaudit("audit", folder), begin).status == 1


def test_iomem_nested_without_end(ptaudit, tmp_path):
    folder = copy_of(PMEM, tmp_path / "capture")
    rows = (" " * 2 * depth + f"{depth:016x}-{2**63 - depth:016x} : System RAM\n" for depth in range(2500))
    (folder / "iomem").write_text("".join(rows))
    begin = time.monotonic()
    audited_in_time(ptaudit("audit", folder), begin)


def test_very_many_markers_and_kinds_of_rows(ptaudit, tmp_path):
    folder = copy_of(PMEM, tmp_path / "capture")
    rows = (ROW.replace("000001000 ", f"{4096 * n + 4096:09x} ").replace("AF ", f"W{n} ") for n in range(50_000))
    (folder / "kernel_page_tables").write_text("".join(rows) + "---[ vmemmap start ]---\n" * 300_000)
    begin = time.monotonic()
    audited_in_time(ptaudit("audit", folder), begin)


def elf(count, headers=b"", *, section_count=0):
    ident = b"\x7fELF\2\1\1" + bytes(9)
    fields = (4, 183, 1, 0, 64, 128 if section_count else 0, 0, 64, 56, count, 64, 1 if section_count else 0, 0)
    section = struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, section_count, 0, 0)
    head = ident + struct.pack("<HHIQQQIHHHHHH", *fields)
    return head + (bytes(64) + section if section_count else b"") + headers


def header(kind, offset, pa, size):
    return struct.pack("<IIQQQQQQ", kind, 6, offset, 0, pa, size, size, 0)


CORES = {
    "headers without end": elf(0xFFFF, section_count=2**31) + bytes(9999),
    "headers beyond the file": elf(60000),
    "one note sixty thousand times": elf(60000, header(4, 0, 0, 1 << 30) * 60000) + bytes(8 << 20),
    "segments over each other": elf(
        20000, b"".join(header(1, 4096 + n, 0x40000000 + 64 * n, 1 << 40) for n in range(20000))
    )
    + bytes(1 << 20),
    "sizes that wrap": elf(2, header(1, 2**64 - 1, 2**52 - 1, 2**64 - 1) + header(1, 2**63, 2**63, 2**63)),
}


@pytest.mark.parametrize("name", CORES)
def test_crash_dumps_that_cannot_be(ptaudit, tmp_path, name):
    path = tmp_path / "vmcore"
    path.write_bytes(CORES[name])
    begin = time.monotonic()
    assert audited_in_time(ptaudit("audit", path), begin).status == 2


def test_a_flattened_dump_of_millions_of_pieces(ptaudit, tmp_path):
    path = tmp_path / "vmcore.zst"
    pieces = struct.pack(">qqb", 0, 1, 75) * 4_000_000
    path.write_bytes(zstandard.ZstdCompressor().compress(b"makedumpfile".ljust(4096, b"\0") + pieces))
    begin = time.monotonic()
    done = audited_in_time(ptaudit("audit", path), begin)
    assert done.status == 2
    assert f"{path}:offset 0x" in done.err

"""Crash dumps on the command line: bad ones end with status 2 and one clear line, small ones give the same findings."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from parsers.vmcore.container import open_plain
from parsers.vmcore.distilled import write_core
from parsers.vmcore.opening import open_dump
from tests.parsers.vmcore.cores import PageMemory, kdump
from tests.parsers.vmcore.test_opening import vmlinux

VMCORES = Path(__file__).parents[2] / "fixtures" / "vmcore"
AFTER = VMCORES / "pmem-6.12-vuln-after.core.zst"
CORES = [AFTER, VMCORES / "pmem-6.12-vuln-before.core.zst", VMCORES / "dimm-6.12-memmap-on-memory-online.core.zst"]
MACHINE_AT, TYPE_AT = 18, 16
SECRET = b"a user's secret ".ljust(4096, b"!")


@pytest.fixture(scope="session")
def plain() -> bytes:
    with open_plain(AFTER) as stream:
        return stream.read()


@pytest.fixture
def given(tmp_path: Path):
    def write(data: bytes, name: str = "vmcore") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def changed(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def refused(done, *words: str) -> None:
    assert done.status == 2
    assert done.out == ""
    assert done.err.startswith("ptaudit: ")
    assert len(done.err.splitlines()) == 1
    for word in words:
        assert word in done.err


# What cannot be read -------------------------------------------------------------------------------------------------


def test_a_dump_of_another_machine(ptaudit, given, plain: bytes) -> None:
    refused(ptaudit("audit", given(changed(plain, MACHINE_AT, b"\x3e\0"))), "EM_X86_64", "arm64")
    refused(ptaudit("audit", sys.executable), "not for arm64")


def test_a_kdump_of_another_machine(ptaudit, given) -> None:
    raw = open_dump(AFTER)
    units = np.unique(raw.memory.extents[0] // np.uint64(4096))
    refused(
        ptaudit("audit", given(kdump(raw.memory, units, raw.vmcoreinfo_bytes, machine="x86_64"))), "x86_64", "arm64"
    )


def test_a_vmlinux_in_place_of_the_dump(ptaudit, given, plain: bytes) -> None:
    refused(ptaudit("audit", given(changed(plain, TYPE_AT, b"\x03\0"))), "not a core", "--vmlinux")


@pytest.mark.parametrize("size", [20, 64, 100, 5000])
def test_a_dump_that_ends_in_its_headers(ptaudit, given, plain: bytes, size: int) -> None:
    refused(ptaudit("audit", given(plain[:size])), "vmcore:")


def test_a_dump_that_ends_before_the_page_tables(ptaudit, given, plain: bytes) -> None:
    refused(ptaudit("audit", given(plain[:300000])), "truncated", "page tables")


def test_a_dump_that_ends_later_decides_less_and_says_so(ptaudit, given, plain: bytes) -> None:
    done = ptaudit("audit", given(plain[: len(plain) - (64 << 10)]), "--format", "json")
    document = json.loads(done.out)
    assert any("truncated" in one["message"] for one in document["sources"][0]["diagnostics"])


@pytest.mark.parametrize("kept", [0.1, 0.9])
def test_a_compressed_dump_that_ends_early(ptaudit, given, kept: float) -> None:
    data = AFTER.read_bytes()
    refused(ptaudit("audit", given(data[: int(len(data) * kept)], "vmcore.zst")), "the file ends inside a frame")


def test_no_dump_at_all(ptaudit, given) -> None:
    refused(ptaudit("audit", given(bytes(range(1, 256)) * 100)), "not recognised")
    refused(ptaudit("distill", given(b"Linux version 6.12\n"), "-o", "x"), "not a crash dump")
    refused(ptaudit("audit", given(b"KDUMP   " + bytes(1000))), "vmcore")
    refused(ptaudit("distill", "/nonexistent", "-o", "x"), "/nonexistent")


def test_no_vmcoreinfo(ptaudit, given, plain: bytes) -> None:
    without = plain.replace(b"VMCOREINFO\0", b"VMCOREINFX\0").replace(b"OSRELEASE=", b"OSRELEASX=")
    refused(ptaudit("audit", given(without)), "no VMCOREINFO", "--vmcoreinfo")


def test_vmcoreinfo_from_a_file(ptaudit, given, plain: bytes) -> None:
    without = plain.replace(b"VMCOREINFO\0", b"VMCOREINFX\0").replace(b"OSRELEASE=", b"OSRELEASX=")
    text = given(open_dump(AFTER).vmcoreinfo_bytes, "vmcoreinfo")
    assert "VMM-02" in ptaudit("audit", given(without), "--vmcoreinfo", text).out


def test_a_vmlinux_that_does_not_fit(ptaudit, given, plain: bytes) -> None:
    refused(ptaudit("audit", AFTER, "--vmlinux", sys.executable), "not for arm64")
    refused(ptaudit("audit", AFTER, "--vmlinux", given(b"text")), "no usable ELF file")
    refused(ptaudit("audit", AFTER, "--vmlinux", given(plain, "core")), "build-id")
    refused(ptaudit("audit", AFTER, "--vmlinux", "/nonexistent"), "/nonexistent")
    refused(ptaudit("audit", AFTER, "--system-map", given(b"text")), "no System.map")


def test_without_drgn_dumps_are_read_and_a_vmlinux_is_not(ptaudit, monkeypatch, tmp_path) -> None:
    with_drgn = ptaudit("audit", AFTER, "--format", "json").out
    monkeypatch.setitem(sys.modules, "drgn", None)
    monkeypatch.delitem(sys.modules, "parsers.vmcore.program", raising=False)
    assert ptaudit("audit", AFTER, "--format", "json").out == with_drgn
    own = vmlinux(tmp_path, build_id=bytes.fromhex(open_dump(AFTER).vmcoreinfo.build_id))
    refused(ptaudit("audit", AFTER, "--vmlinux", own), "vmlinux needs drgn, which is not installed")


# Split dumps ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def split(given) -> tuple[Path, Path]:
    raw = open_dump(AFTER)
    starts, ends = (column // np.uint64(4096) for column in raw.memory.extents)
    units = np.concatenate([np.arange(lo, hi, dtype=np.uint64) for lo, hi in zip(starts, ends, strict=True)])
    half = int(units[units.size // 2]) // 16
    info, last = raw.vmcoreinfo_bytes, int(units.max()) // 16 + 1
    first = given(kdump(raw.memory, units, info, split=(0, half)), "dump1")
    return first, given(kdump(raw.memory, units, info, split=(half, last)), "dump2")


def test_the_files_of_a_split_dump_are_one_dump(ptaudit, split: tuple[Path, Path]) -> None:
    document = json.loads(ptaudit("audit", *split, "--format", "json").out)
    assert [(one["kind"], Path(one["path"]).name) for one in document["sources"]] == [
        ("vmcore", "dump1"),
        ("vmcore", "dump2"),
    ]
    assert "VMM-02" in {one["rule"] for one in document["findings"]}


def test_one_file_of_a_split_dump_is_not_enough(ptaudit, split: tuple[Path, Path]) -> None:
    refused(ptaudit("audit", split[0]), "split", "give all of them")


def test_two_dumps_are_not_one(ptaudit, split: tuple[Path, Path], tmp_path: Path) -> None:
    refused(ptaudit("distill", AFTER, split[0], "-o", tmp_path / "small"), "not one file of a split kdump")
    refused(ptaudit("distill", split[0], AFTER, "-o", tmp_path / "small"))
    assert not (tmp_path / "small").exists()


# Small cores ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A dump with much more memory than an audit reads: a user's secret is in every page that the small core lacks."""
    raw = open_dump(AFTER)
    starts, ends = (column // np.uint64(4096) for column in raw.memory.extents)
    units = np.concatenate([np.arange(lo, hi, dtype=np.uint64) for lo, hi in zip(starts, ends, strict=True)])
    data, _ = raw.memory.read_units(units)
    # The kernel's own code, in pages 0x4a200 to 0x4b260 here, is read and is nobody's secret.
    elsewhere = (*range(0x40000, 0x4A200), *range(0x4B260, 0x50000))
    pages = dict.fromkeys(elsewhere, SECRET) | dict(zip(units.tolist(), data, strict=True))
    memory = PageMemory(pages)
    write_core(tmp_path / "large", memory, memory.units, raw.vmcoreinfo_bytes)
    return tmp_path / "large"


def reported(done, path: Path) -> dict:
    """A JSON report without what names the file."""
    document = json.loads(done.out.replace(str(path), "DUMP"))
    return {key: document[key] for key in ("kernel", "findings", "rules")}


def test_a_small_core_says_what_the_dump_says(ptaudit, large: Path, tmp_path: Path) -> None:
    small, again = tmp_path / "small.core", tmp_path / "again.core"
    done = ptaudit("distill", large, "-o", small, "--with-dmesg")
    assert (done.status, done.err) == (0, "")
    assert "pages of 4 KiB" in done.out
    assert "1/4" in done.out
    assert "no memory of user space" in done.out
    assert SECRET in large.read_bytes()
    assert b"a user's secret" not in small.read_bytes()
    expected = reported(ptaudit("audit", large, "--format", "json"), large)
    assert {one["rule"] for one in expected["findings"]} >= {"VMM-02"}
    assert reported(ptaudit("audit", small, "--format", "json"), small) == expected
    assert ptaudit("distill", small, "-o", again, "--with-dmesg").status == 0
    assert again.read_bytes() == small.read_bytes()


@pytest.mark.parametrize("core", CORES, ids=lambda core: core.name)
def test_findings_without_the_log_are_the_same(ptaudit, core: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.core"
    assert "kernel log" not in ptaudit("distill", core, "-o", small).out
    expected = reported(ptaudit("audit", core, "--format", "json"), core)["findings"]
    assert reported(ptaudit("audit", small, "--format", "json"), small)["findings"] == expected


def test_nothing_of_the_path_is_in_the_findings(ptaudit, tmp_path: Path) -> None:
    other = tmp_path / "another name"
    shutil.copy(AFTER, other)
    one, two = (reported(ptaudit("audit", path, "--format", "json"), path) for path in (AFTER, other))
    assert one == two


def test_the_dump_is_never_replaced(ptaudit, large: Path) -> None:
    before = large.stat().st_size
    refused(ptaudit("distill", large, "-o", large), "cannot replace the dump")
    assert large.stat().st_size == before


@pytest.mark.parametrize("core", CORES, ids=lambda core: core.name)
def test_what_lies_in_a_dump_has_no_line(ptaudit, core: Path) -> None:
    document = json.loads(ptaudit("audit", core, "--format", "json").out)
    quoted = [one for finding in document["findings"] for one in finding["evidence"]]
    assert quoted
    assert not [one for one in quoted if "line" in one]

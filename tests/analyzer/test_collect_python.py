"""The collecting script in Python: one file of Python 3.6, whose small core is the one that `distill` writes."""

from __future__ import annotations

import ast
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from analyzer.collect.on_this_host import python_script, script
from analyzer.collect.without_packages.small_core import SmallCore, take_core
from parsers.manifest import parse_manifest
from parsers.vmcore.extract import distill, extract, extract_facts
from parsers.vmcore.opening import open_dump
from tests.parsers.vmcore.conftest import AFTER
from tests.parsers.vmcore.cores import PageMemory, PatchedMemory, word
from tests.parsers.vmcore.kcores import room_for_kcore
from tests.parsers.vmcore.test_distilled import comparable
from tests.parsers.vmcore.test_kcore import CORES, kcore_of

on_linux = pytest.mark.skipif(platform.system() != "Linux", reason="collects from a Linux host")
NOT_COMPARED = {"diagnostics", "path", "explain", "symbol", "symbol_at", "recheck", "settled", "vmcoreinfo", "listed"}


@pytest.fixture(scope="module")
def room():
    with room_for_kcore() as directory:
        yield directory


@pytest.fixture(scope="module")
def kcore(room):
    return kcore_of(room, AFTER).rename(room / "after")


@pytest.fixture(scope="module")
def raw_after():
    return open_dump(AFTER)


@pytest.fixture(scope="module")
def after():
    return extract(AFTER)


def nothing_changes() -> bytes:
    return b""


def tree() -> ast.Module:
    return ast.parse(python_script(), feature_version=(3, 6))


def printed(tmp_path: Path, kcore: Path) -> Path:
    """The printed script, which reads another file than /proc/kcore."""
    text = python_script().replace('KCORE = "/proc/kcore"', f"KCORE = {str(kcore)!r}")
    assert text != python_script()
    path = tmp_path / "collect.py"
    path.write_text(text)
    return path


def run(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", str(path), *arguments]
    return subprocess.run(command, cwd=path.parent, capture_output=True, text=True, timeout=120, check=False)


def test_it_is_printed_and_the_shell_script_stays_what_is_printed_without_a_name(ptaudit) -> None:
    assert ptaudit("collect", "--print-script=python").out == python_script()
    assert ptaudit("collect", "--print-script=sh").out == ptaudit("collect", "--print-script").out == script()
    assert ptaudit("collect", "--print-script=perl").status == 2


def test_one_file_of_python_3_6_without_packages() -> None:
    imported = set()
    for node in ast.walk(tree()):
        if isinstance(node, ast.Import):
            imported |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module)
        assert not isinstance(node, ast.NamedExpr)
        assert not (isinstance(node, ast.Attribute) and node.attr in {"removeprefix", "removesuffix", "bit_count"})
        assert not (isinstance(node, ast.keyword) and node.arg in {"capture_output", "strict", "text"})
    assert "__future__" not in imported, "annotations are of 3.7"
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names
    assert python_script().startswith("#!/usr/bin/env python3\n")


@pytest.mark.parametrize("version", ["3.6", "3.8", "3.9", "3.12", "3.13", "3.14"])
def test_other_pythons_run_it(version: str, tmp_path: Path) -> None:
    python = shutil.which(f"python{version}")
    if python is None or subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip(f"python{version} is not installed")
    path = tmp_path / "collect.py"
    path.write_text(python_script())
    done = subprocess.run([python, path, "-h"], capture_output=True, text=True, check=False)
    assert "host.core is an ELF core" in done.stdout
    assert done.returncode == 0


def test_the_shell_script_is_in_it_unchanged() -> None:
    (value,) = (
        node.value.value
        for node in tree().body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "TEXT_SOURCES"
    )
    assert value == script()


# The small core -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("core", CORES, ids=lambda core: core.name)
def test_the_small_core_is_as_good_as_the_one_that_distill_writes(room, core: Path, tmp_path: Path) -> None:
    kcore = kcore_of(room, core)
    distill(kcore, tmp_path / "distilled")
    size, _ = take_core(str(kcore), str(tmp_path / "taken"), nothing_changes)
    assert size == (tmp_path / "taken").stat().st_size
    assert (tmp_path / "taken").stat().st_mode & 0o777 == 0o600
    theirs, ours = extract(tmp_path / "distilled"), extract(tmp_path / "taken")
    for name in theirs.__dataclass_fields__.keys() - NOT_COMPARED:
        assert comparable(getattr(ours, name)) == comparable(getattr(theirs, name)), name
    before = {note.message for note in theirs.diagnostics}
    assert {note.message for note in ours.diagnostics} <= before


def test_data_of_the_kernel_that_the_linear_map_lacks_is_taken_from_where_the_image_is_mapped(room, tmp_path, after):
    take_core(str(kcore_of(room, AFTER, hidden=True)), str(tmp_path / "taken"), nothing_changes)
    facts = extract(tmp_path / "taken")
    assert facts.zones.max_pfn == after.zones.max_pfn > 0
    assert comparable(facts.iomem) == comparable(after.iomem)
    assert comparable(facts.mapping) == comparable(after.mapping)


def test_tables_of_one_run_of_pages_become_numbers_and_are_read_again_as_tables(room, tmp_path, raw_after, after):
    """1100 tables of the last level that map pages one after another, reached by spare entries of the linear map."""
    assert after.addresses.granule.page_size == 4096
    starts, ends = raw_after.memory.extents
    units = np.concatenate([np.arange(a, b, 4096, np.uint64) for a, b in zip(starts, ends, strict=True)]) // np.uint64(
        4096
    )
    pages = dict(zip(units.tolist(), map(bytearray, raw_after.memory.read_units(units)[0]), strict=True))
    first = int(ends[-1]) + (4 << 20)
    directories, tables = [first, first + 4096, first + 8192], [first + (3 + n) * 4096 for n in range(1100)]
    for number, table in enumerate(tables):
        start = 0x800000000 + number * 512 * 4096 | 0x68000000000703
        pages[table // 4096] = (np.arange(512, dtype=np.uint64) * np.uint64(4096) + np.uint64(start)).tobytes()
    pages[tables[7] // 4096] = pages[tables[7] // 4096][:-8] + word(0)
    above = next(step for step in after.explain(after.addresses.page_offset) if step.level == 1).table_pa
    for number, directory in enumerate(directories):
        some = tables[512 * number :][:512]
        pages[directory // 4096] = b"".join(word(table | 3) for table in some).ljust(4096, b"\0")
        place = above % 4096 + 8 * (500 + number)
        pages[above // 4096][place : place + 8] = word(directory | 3)
    kcore = kcore_of(room, AFTER, PageMemory(pages))
    take_core(str(kcore), str(tmp_path / "taken"), nothing_changes)
    raw = open_dump(tmp_path / "taken")
    assert (tmp_path / "taken").stat().st_size < (len(pages) - 1000) * 4096
    data, present = raw.memory.read_units(np.array(tables, dtype=np.uint64) // np.uint64(4096))
    assert present.all()
    assert [bytes(one) for one in data] == [bytes(pages[table // 4096]) for table in tables]
    assert b"PTAUDIT\0" in (tmp_path / "taken").read_bytes()[:65536]
    assert comparable(extract_facts(raw).mapping) == comparable(extract(kcore).mapping)


def test_an_unconfirmed_table_of_zeros_is_left_out_and_reported(room, tmp_path, raw_after, after) -> None:
    va = (int(after.sections.section_mem_map[1]) & ~63) + int(after.sections.section_nr[1]) * 32768 * 64 + 0x200000
    empty = int(raw_after.memory.extents[0][0]) // 4096 * 4096
    memory = PatchedMemory(raw_after.memory, {after.explain(va)[-1].entry_pa: word(empty | 3), empty: bytes(4096)})
    kcore = kcore_of(room, AFTER, memory)
    _, losses = take_core(str(kcore), str(tmp_path / "taken"), nothing_changes)
    assert any(what == "zeros" and "may not have read" in why for what, why in losses)
    assert comparable(extract(tmp_path / "taken").mapping) == comparable(extract(kcore).mapping)


def test_memory_that_comes_and_goes_is_read_again_and_then_not_claimed(kcore: Path, tmp_path: Path) -> None:
    moments = iter([b"1", b"2", b"3", b"3"])
    take_core(str(kcore), str(tmp_path / "second"), lambda: next(moments))
    assert (tmp_path / "second").exists()
    ever = iter(range(100))
    with pytest.raises(Exception, match="came and went"):
        take_core(str(kcore), str(tmp_path / "never"), lambda: b"%d" % next(ever))
    assert not (tmp_path / "never").exists()


def test_a_section_that_changes_meanwhile_is_noticed(kcore: Path, monkeypatch) -> None:
    from analyzer.collect.without_packages.kernel import Kcore  # noqa: PLC0415

    core = SmallCore(Kcore(str(kcore)))
    core.take()
    assert core.is_of_one_moment()
    pa, _ = core.watched[-1]
    core.kept[pa // 4096] = b"\1" * 4096
    assert not core.is_of_one_moment()


# The printed script ---------------------------------------------------------------------------------------------------


@on_linux
def test_a_bundle_of_the_printed_script_is_audited_as_the_dump(ptaudit, kcore: Path, tmp_path: Path) -> None:
    done = run(printed(tmp_path, kcore), "-o", "home/")
    assert (done.returncode, done.stdout) == (0, "")
    home = tmp_path / "home"
    assert home.stat().st_mode & 0o077 == 0
    assert not [path for path in home.iterdir() if path.stat().st_mode & 0o077]
    manifest = parse_manifest((home / "manifest").read_bytes(), "manifest")
    assert manifest.results["host.core"] == "ok"
    assert not manifest.diagnostics
    assert manifest.results.keys() >= {"uname", "iomem"}
    for path in home.iterdir():
        if path.name not in {"host.core", "manifest"}:
            path.unlink()  # of this machine
    document = json.loads(ptaudit("audit", home, "--format", "json").out)
    dump = json.loads(ptaudit("audit", AFTER, "--format", "json").out)
    found, theirs = (
        [(one["rule"], one["claim"], one["pfn_ranges"]) for one in report["findings"]] for report in (document, dump)
    )
    assert found == theirs
    assert ("VMM-02", "proven") in [one[:2] for one in found]


@on_linux
def test_folders_of_others_are_refused_and_a_kcore_that_does_not_exist_is_in_the_manifest(tmp_path: Path) -> None:
    path = printed(tmp_path, tmp_path / "none")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    assert run(path, "-o", "full/").returncode == 2
    assert [one.name for one in (tmp_path / "full").iterdir()] == ["mine"]
    (tmp_path / "link").symlink_to(tmp_path / "full")
    assert run(path, "-o", "link/").returncode == 2
    done = run(path, "-o", "home/")
    assert done.returncode == 0
    assert "does not exist (CONFIG_PROC_KCORE=n, or the /proc of a container)" in done.stderr
    assert not (tmp_path / "home" / "host.core").exists()
    assert "does not exist" in parse_manifest((tmp_path / "home" / "manifest").read_bytes(), "m").why_not("host.core")
    assert run(path, "-o", "text/", "--no-kcore").returncode == 0
    assert "host.core" not in (tmp_path / "text" / "manifest").read_text()


@on_linux
@pytest.mark.parametrize("name", ["home.tar.gz", "home.tgz"])
def test_an_archive_is_written_where_one_is_named(kcore: Path, tmp_path: Path, name: str) -> None:
    path = printed(tmp_path, kcore)
    done = run(path, "-o", name)
    assert (done.returncode, done.stdout) == (0, "")
    assert {one.name for one in tmp_path.iterdir()} == {"collect.py", name}
    assert (tmp_path / name).stat().st_mode & 0o077 == 0
    with tarfile.open(tmp_path / name) as archive:
        assert {"manifest", "host.core", "uname"} <= set(archive.getnames())
    (tmp_path / f"folder-{name}").mkdir()
    assert run(path, "-o", f"folder-{name}").returncode == 2
    assert run(path, "-n", "-o", f"dry-{name}").returncode == 0
    assert not (tmp_path / f"dry-{name}").exists()


@on_linux
def test_what_names_no_directory_is_an_archive_as_it_is_for_the_shell_script(kcore: Path, tmp_path: Path) -> None:
    path = printed(tmp_path, kcore)
    assert run(path, "-o", "mine").returncode == 0
    assert run(path).returncode == 0
    (one,) = [one.name for one in tmp_path.iterdir() if one.name not in {"collect.py", "mine.tar.gz"}]
    assert re.fullmatch(r"ptaudit-.*-\d{8}-\d{6}\.tar\.gz", one)
    with tarfile.open(tmp_path / "mine.tar.gz") as archive:
        assert "host.core" in archive.getnames()


@on_linux
def test_dry_run_and_bad_options(tmp_path: Path, kcore: Path) -> None:
    path = printed(tmp_path, kcore)
    done = run(path, "-n", "-o", "home/")
    assert done.returncode == 0
    assert re.search(r"host\.core .*\(root\)", done.stderr)
    assert run(path, "-t", "x").returncode == 2
    assert [one.name for one in tmp_path.iterdir()] == ["collect.py"]


@on_linux
def test_a_redacted_folder_has_no_core(tmp_path: Path, kcore: Path) -> None:
    done = run(printed(tmp_path, kcore), "-r", "-o", "home/")
    assert done.returncode == 0
    assert "host.core: left out, for whole pages of" in done.stderr
    assert not (tmp_path / "home" / "host.core").exists()
    assert (tmp_path / "home" / "manifest").exists()


@pytest.mark.parametrize("content", [b"", b"\x7fELF\2\1" + bytes(80), os.urandom(300), b"\x7fELF"])
def test_what_is_not_a_kcore_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "kcore").write_bytes(content)
    with pytest.raises(Exception, match="not the memory of an arm64 kernel"):
        take_core(str(tmp_path / "kcore"), str(tmp_path / "out"), nothing_changes)
    assert not (tmp_path / "out").exists()

"""Directories of strangers: nested without end, with links and names that lead nowhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from analyzer.fleet.find import find_bundles
from analyzer.fleet.unit import audit_bundle
from analyzer.sources.folder import MAX_DEPTH, below
from analyzer.sources.read import Request, read_sources
from parsers.errors import InputError

UNAME = b"Linux h 6.12.117 #1 SMP aarch64 GNU/Linux\n"
LONG = "x" * 300


def test_files_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for name in ("b/z", "b/a/q", "a.txt", "a/k", "b.txt", "c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "around").symlink_to(tmp_path)
    (tmp_path / "nowhere").symlink_to("nowhere")
    expected = sorted(path for path in tmp_path.rglob("*") if path.is_symlink() or not path.is_dir())
    assert [path for _, path in below(tmp_path)] == expected
    assert [name for name, _ in below(tmp_path)] == [str(path.relative_to(tmp_path)) for path in expected]


def test_directories_nested_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "uname").write_bytes(UNAME)
    monkeypatch.chdir(tmp_path)
    for _ in range(MAX_DEPTH):
        os.mkdir("d")  # noqa: PTH102 the whole path is too long to be named in the end
        os.chdir("d")
    assert read_sources(Request((tmp_path,))).captured.release is not None
    for _ in range(1200):
        os.mkdir("d")  # noqa: PTH102
        os.chdir("d")
    read = read_sources(Request((tmp_path,)))
    assert read.captured.release is not None
    ((path, reason),) = read.unread
    assert path.endswith("d/d")
    assert reason == "directories are nested more than 200 deep"
    assert audit_bundle(str(tmp_path))["status"] == "audited"
    for _ in range(MAX_DEPTH + 1200):  # too deep for whoever removes it later
        os.chdir("..")
        os.rmdir("d")  # noqa: PTH106


def test_names_longer_than_any_file_has() -> None:
    with pytest.raises(InputError, match="File name too long"):
        read_sources(Request((Path(LONG),)))
    with pytest.raises(InputError, match="no such bundle"):
        list(find_bundles((LONG,)))
    assert audit_bundle(LONG)["status"] == "unreadable"


def test_file_that_is_not_a_list_of_bundles(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"# hosts\n" + LONG.encode() + b"\na\0b\n")
    with pytest.raises(InputError, match="list:3: a NUL in a list"):
        list(find_bundles((f"@{tmp_path}/list",)))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
def test_directory_that_may_not_be_listed_is_named(tmp_path: Path) -> None:
    (tmp_path / "uname").write_bytes(UNAME)
    (tmp_path / "closed").mkdir(mode=0)
    assert read_sources(Request((tmp_path,))).ignored == [str(tmp_path / "closed")]

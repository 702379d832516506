"""Reports on disk: whole or not at all, one file or every format."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from analyzer.audit_command import FORMATS
from analyzer.output import write_text
from parsers.errors import UsageError


def test_directory_gets_every_format(ptaudit, damaged: Path, tmp_path: Path) -> None:
    done = ptaudit("audit", damaged, "--output", f"{tmp_path}/new/reports/")
    written = {path.name: path.read_text() for path in (tmp_path / "new/reports").iterdir()}
    assert done.status == 1
    assert set(written) == {f"report.{suffix}" for suffix in FORMATS.values()}
    assert json.loads(written["report.json"])["schema"] == "ptaudit.report/2"
    assert json.loads(written["report.sarif"])["version"] == "2.1.0"
    assert "CRITICAL VMM-02" in written["report.txt"]
    assert "ptaudit_info" in written["report.prom"]
    assert "findings" in done.out


def test_existing_directory_needs_no_slash(ptaudit, sound: Path, tmp_path: Path) -> None:
    assert ptaudit("audit", sound, "--output", tmp_path).status == 0
    assert (tmp_path / "report.json").exists()


def test_file_gets_one_format_and_no_colour(ptaudit, damaged: Path, tmp_path: Path) -> None:
    done = ptaudit("audit", damaged, "--output", tmp_path / "report.txt")
    assert done.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["report.txt"]
    assert "\x1b" not in (tmp_path / "report.txt").read_text()


def test_reader_of_the_old_file_keeps_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "ptaudit.prom"
    path.write_text("old\n")
    with path.open() as reader:
        write_text(path, "new\n")
        assert reader.read() == "old\n"
    assert path.read_text() == "new\n"
    assert [one.name for one in tmp_path.iterdir()] == ["ptaudit.prom"]


def test_failure_leaves_the_old_file_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ptaudit.prom"
    path.write_text("old\n")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match="No space left"):
        write_text(path, "new\n")
    assert path.read_text() == "old\n"
    assert [one.name for one in tmp_path.iterdir()] == ["ptaudit.prom"]


def test_other_users_can_read_a_new_file_and_modes_are_kept(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        write_text(tmp_path / "new", "x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o644
    (tmp_path / "new").chmod(0o640)
    write_text(tmp_path / "new", "y")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


def test_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "through")
    reader.join(10)
    assert got == ["through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_missing_folder_is_one_clear_line(ptaudit, sound: Path, tmp_path: Path) -> None:
    done = ptaudit("audit", sound, "--output", tmp_path / "none" / "report.txt")
    assert done.status == 2
    assert "cannot be written" in done.err
    with pytest.raises(UsageError):
        write_text(tmp_path / "none" / "x", "")


def test_directory_that_cannot_be_made(ptaudit, sound: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = ptaudit("audit", sound, "--output", f"{tmp_path}/file/reports/")
    assert done.status == 2
    assert "cannot be made" in done.err


@pytest.mark.parametrize("form", FORMATS)
def test_file_name_that_is_not_utf8(ptaudit, sound: Path, tmp_path: Path, form: str, monkeypatch) -> None:
    strange = os.fsdecode(b"h\xf6st")
    (tmp_path / strange).mkdir()
    (tmp_path / strange / "kernel_page_tables").write_bytes((sound / "kernel_page_tables").read_bytes())
    monkeypatch.chdir(tmp_path)
    done = ptaudit("audit", strange, "--format", form)
    assert done.status == 0
    assert "Traceback" not in done.err

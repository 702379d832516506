"""What runs as root keeps its hands off what is not its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from analyzer.collect.on_this_host import script
from tests.analyzer.conftest import CAPTURES

ROOT = CAPTURES.parents[1]


def collect(folder: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-s", "--", "-t", "2", *map(str, arguments)], input=script(), cwd=folder, capture_output=True, text=True,
        check=False, env=os.environ | environment, timeout=120,
    )  # fmt: skip


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter").write_text("dear\n")
    done = collect(tmp_path, "-o", "mine/")
    assert done.returncode == 2
    assert "not empty" in done.stderr
    assert [one.name for one in (tmp_path / "mine").iterdir()] == ["letter"]


def test_a_link_to_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to("elsewhere")
    done = collect(tmp_path, "-o", "out/")
    assert done.returncode == 2
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_the_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 12345, 12345)
    done = collect(tmp_path, "-o", "theirs/")
    assert done.returncode == 2
    assert "not a folder of yours" in done.stderr
    assert not list((tmp_path / "theirs").iterdir())


def test_an_archive_replaces_a_link_and_does_not_follow_it(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("untouched\n")
    (tmp_path / "out.tar.gz").symlink_to("victim")
    assert collect(tmp_path, "-o", "out.tar.gz").returncode == 0
    assert (tmp_path / "victim").read_text() == "untouched\n"
    assert not (tmp_path / "out.tar.gz").is_symlink()


def test_an_archive_is_not_put_into_a_folder_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "out.tar.gz").mkdir()
    assert collect(tmp_path, "-o", "out.tar.gz").returncode == 2
    assert not list((tmp_path / "out.tar.gz").iterdir())


def test_what_is_written_is_for_its_user_only_and_nothing_else_stays(tmp_path: Path) -> None:
    assert collect(tmp_path, "-o", "out.tar.gz").returncode == 0
    assert collect(tmp_path, "-o", "folder/").returncode == 0
    assert sorted(one.name for one in tmp_path.iterdir()) == ["folder", "out.tar.gz"]
    for path in (tmp_path / "out.tar.gz", tmp_path / "folder", *(tmp_path / "folder").iterdir()):
        assert path.stat().st_mode & 0o077 == 0
        assert not path.name.startswith(".")


def test_a_program_in_a_folder_that_all_can_write_to_is_not_run(tmp_path: Path) -> None:
    open_to_all = tmp_path / "bin"
    open_to_all.mkdir()
    (open_to_all / "uname").write_text(f'#!/bin/sh\ntouch {tmp_path}/was-run\nexec /usr/bin/uname "$@"\n')
    (open_to_all / "uname").chmod(0o755)
    open_to_all.chmod(0o777)
    for path in (f"{open_to_all}:{os.environ['PATH']}", f".:bin:{os.environ['PATH']}"):
        collect(tmp_path, "-n", PATH=path)
        assert not (tmp_path / "was-run").exists()


def test_an_interrupted_collection_leaves_nothing(tmp_path: Path) -> None:
    slow = tmp_path / "bin"
    slow.mkdir(0o700)
    (slow / "uname").write_text('#!/bin/sh\n[ "$1" = -a ] && sleep 30\nexec /usr/bin/uname "$@"\n')
    (slow / "uname").chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    process = subprocess.Popen(
        ["sh", "-s", "--", "-o", "out/"], stdin=subprocess.PIPE, cwd=work, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"PATH": f"{slow}:{os.environ['PATH']}"},
    )  # fmt: skip
    process.stdin.write(script())
    process.stdin.close()
    end = time.monotonic() + 20
    while not (work / "out").exists() and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.5)
    process.terminate()
    process.wait(60)
    assert not list(work.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_temporary_files_go_on_sigterm(tmp_path: Path) -> None:
    code = (
        "import sys, tempfile, time\nfrom analyzer.status import status_of\n"
        "def work(_):\n    with tempfile.TemporaryDirectory(prefix='ptaudit-'):\n"
        "        print('here', flush=True)\n        time.sleep(60)\n"
        "sys.exit(status_of(work))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "here\n"
    assert list(tmp_path.iterdir())
    process.terminate()
    assert process.wait(30) == 143
    process.stdout.close()
    assert not list(tmp_path.iterdir())

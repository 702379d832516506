"""SIGTERM, SIGHUP and Ctrl-C: the program ends soon, with the signal's status, one line at most and no file left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from analyzer.collect.on_this_host import python_script, script
from tests.analyzer.conftest import CAPTURES
from tests.analyzer.test_collect import SHELLS, installed

ROOT = CAPTURES.parents[1]
PMEM = CAPTURES / "pmem-6.12-vuln/02-one-removed"
UNDER = "import sys, time\nfrom analyzer.status import status_of\ndef work(_):\n    {body}\nsys.exit(status_of(work))\n"
LOST = """
    import weakref
    class Thing: pass
    def forget(_):
        print("here", flush=True)
        time.sleep(2)
    thing = Thing()
    kept = weakref.ref(thing, forget)
    del thing
    time.sleep(60)
"""
COMPILED = """
    from analyzer.temporary import folder
    import re
    with folder():
        print("here", flush=True)
        re.match("(a*)*b", "a" * 34)
"""


def started(code: str, folder: Path, *before: str) -> subprocess.Popen[str]:
    """A program that has printed its first line."""
    process = subprocess.Popen(
        [*before, sys.executable, "-c", UNDER.format(body=code.strip())], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"TMPDIR": str(folder)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    return process


@pytest.mark.parametrize("code", [LOST, COMPILED], ids=["lost in a callback", "compiled code that does not return"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_the_program_soon_and_nothing_stays(tmp_path: Path, code: str, number: signal.Signals) -> None:
    process = started(code, tmp_path)
    begin = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=50)
    assert process.returncode == 128 + number
    assert err == ("ptaudit: interrupted\n" if number == signal.SIGINT else "")
    assert time.monotonic() - begin < 20
    assert not list(tmp_path.iterdir())


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    process = started("print('here', flush=True); time.sleep(2); print('done')", tmp_path, "nohup")
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "done\n")


def test_ctrl_c_while_the_program_is_loaded_prints_nothing() -> None:
    code = "import sys, signal\nfrom ptaudit.command import main\nimport analyzer.interrupt as i\n"
    code += "real = i.die_of_interrupt\n"
    code += "i.die_of_interrupt = lambda: (real(), signal.raise_signal(signal.SIGINT))\n"
    code += "sys.argv = ['ptaudit', '--help']\nmain()\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def slow_uname(folder: Path) -> dict[str, str]:
    """An environment in which collecting takes long."""
    folder.mkdir(0o700)
    (folder / "uname").write_text('#!/bin/sh\n[ "$1" = -a ] && sleep 30\nexec /usr/bin/uname "$@"\n')
    (folder / "uname").chmod(0o755)
    return os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("how", ["ptaudit", "script"])
@pytest.mark.parametrize("output", ["out.tar.gz", "out/"])
def test_collecting_that_is_ended_leaves_nothing(tmp_path: Path, how: str, output: str) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "script.py").write_text(python_script())
    command = [str(tmp_path / "script.py")] if how == "script" else ["-m", "analyzer.cli", "collect"]
    process = subprocess.Popen(
        [sys.executable, *command, "-o", output], cwd=work, env=slow_uname(tmp_path / "bin"),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    end = time.monotonic() + 30
    while not list(work.rglob("manifest")) and time.monotonic() < end:
        time.sleep(0.05)
    assert list(work.rglob("manifest"))
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    assert not [one for one in work.rglob("*") if one.is_file() or one.name.startswith(".")]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_the_script_that_is_ended_leaves_nothing_in_any_shell(tmp_path: Path, shell: list[str], number: int) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "collect.sh").write_text(script())
    process = subprocess.Popen(
        [*installed(shell), str(tmp_path / "collect.sh"), "-o", "out.tar.gz"], cwd=work,
        env=slow_uname(tmp_path / "bin"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    end = time.monotonic() + 30
    while not list(work.rglob("manifest")) and time.monotonic() < end:
        time.sleep(0.05)
    assert list(work.rglob("manifest"))
    process.send_signal(number)
    assert process.wait(20) == 128 + number
    assert not list(work.iterdir())


def test_a_fleet_that_is_ended_while_it_starts_ends_at_once(tmp_path: Path) -> None:
    shutil.copytree(PMEM, tmp_path / "fleet/host1")
    (tmp_path / "temporary").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "analyzer.cli", "fleet", str(tmp_path / "fleet"), "-o", str(tmp_path / "r")],
        cwd=ROOT, env=os.environ | {"TMPDIR": str(tmp_path / "temporary")}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    end = time.monotonic() + 60
    while not list((tmp_path / "temporary").iterdir()) and time.monotonic() < end:
        time.sleep(0.01)
    assert list((tmp_path / "temporary").iterdir())
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (143, "")
    assert not list((tmp_path / "temporary").iterdir())

"""A shared environment in which another distribution has one of our packages: said in one line, no traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = "import sys; sys.argv[0] = 'ptaudit'; from ptaudit.command import main; main()"


def run(*arguments: str, path: list[Path]) -> subprocess.CompletedProcess[str]:
    """Run with these folders, and then the installed packages, to import from; no editable install is in the way."""
    folders = [*path, Path(sysconfig.get_path("purelib"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    command = [sys.executable, "-S", "-P", "-c", RUN, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd="/")


@pytest.mark.parametrize("name", ["parsers", "rules", "analyzer"])
def test_a_package_that_hides_ours_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text('"""A rule engine for board games."""\n')
    done = run("rules", path=[tmp_path, ROOT])
    assert done.returncode == 2
    assert f"another package {name!r} hides ptaudit's, in {tmp_path / name}" in done.stderr
    assert "uv tool install ptaudit" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_distribution_that_overwrote_ours_is_named(tmp_path: Path) -> None:
    for name in ("parsers", "rules", "analyzer", "ptaudit"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "rules" / "__init__.py").write_text("from rules.board import Board\n")
    info = tmp_path / "board_rules-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: board-rules\nVersion: 1.0\n")
    (info / "RECORD").write_text("rules/__init__.py,,\nrules/board.py,,\n")
    done = run("rules", path=[tmp_path])
    assert done.returncode == 2
    assert "the package 'rules' of board-rules has overwritten ptaudit's" in done.stderr
    assert "Traceback" not in done.stderr


def test_in_a_sound_environment_the_command_runs() -> None:
    done = run("rules", path=[ROOT])
    assert (done.returncode, done.stderr) == (0, "")
    assert "VMM-02" in done.stdout

"""What to send back: one block for the shell that yields files which decide the rules."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from analyzer.collect.on_this_host import script
from parsers.kinds import KINDS, kind_of_path


def block(out: str) -> list[str]:
    assert "\nTo decide the rest, collect:\n" in out
    return out.split("\nTo decide the rest, collect:\n")[1].splitlines()


def files(lines: list[str]) -> list[str]:
    """The files that the block writes."""
    return [match[1] for line in lines if (match := re.search(r"> (\w+)(?:    # .*)?$", line))]


def test_dump_alone_lacks_the_host(ptaudit, damaged: Path) -> None:
    lines = block(ptaudit("audit", damaged / "kernel_page_tables").out)
    written = files(lines)
    assert {"iomem", "memory_blocks", "config", "dmesg"} <= set(written)
    assert len(written) == len(set(written))
    assert "kernel_page_tables" not in written
    assert "ptaudit collect --print-script" in lines[-1]


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a shell")
def test_the_block_is_shell(ptaudit, damaged: Path) -> None:
    for source in (damaged / "kernel_page_tables", damaged / "iomem", damaged):
        lines = [line for line in block(ptaudit("audit", source, "--verbose").out) if line.startswith("  ")]
        done = subprocess.run(["sh", "-n"], input="\n".join(lines), text=True, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert sum("cd ptaudit-more" in line for line in lines) <= 1


def test_what_is_there_is_not_asked_for(ptaudit, damaged: Path) -> None:
    lines = block(ptaudit("audit", damaged, "--verbose").out)
    assert files(lines) == []


def test_nothing_undecided_asks_for_nothing(ptaudit, damaged: Path) -> None:
    assert "To decide the rest" not in ptaudit("audit", damaged, "--select", "VMM-02").out


@pytest.mark.parametrize("name", [kind.collected_as for kind in KINDS.values() if kind.command])
def test_the_files_are_understood_and_collected_under_the_same_name(name: str) -> None:
    assert kind_of_path(name) is not None
    assert f"{name};" in script()


def test_fewer_rules_ask_for_less(ptaudit, damaged: Path) -> None:
    lines = block(ptaudit("audit", damaged / "kernel_page_tables", "--select", "SEC-03").out)
    assert files(lines) == ["memory_blocks", "iomem"]
    assert "SEC-03" in "\n".join(lines)

"""What to send back: one block for the shell that yields files which decide the rules."""

from __future__ import annotations

import json
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


@pytest.fixture
def running(sound: Path, tmp_path: Path) -> Path:
    """A capture of a running host, texts alone, that was made before the collector read /proc/kcore."""
    folder = tmp_path / "running"
    shutil.copytree(sound, folder)
    (folder / "manifest").unlink(missing_ok=True)
    return folder


def configured(folder: Path, symbol: str, value: str) -> None:
    """Set or clear a symbol in the captured configuration."""
    path = folder / "config"
    lines = [line for line in path.read_text().splitlines() if f"CONFIG_{symbol}" not in line]
    lines[3:3] = [f"CONFIG_{symbol}=y" if value == "y" else f"# CONFIG_{symbol} is not set"]
    path.write_text("\n".join(lines) + "\n")


def test_a_running_host_is_asked_for_kcore_first_and_for_no_crash_dump(ptaudit, running: Path) -> None:
    configured(running, "PROC_KCORE", "y")
    out = ptaudit("audit", running, "--verbose").out
    assert "/proc/kcore (ptaudit audit --live)" in out.splitlines()[0]
    assert "crash dump" not in out.splitlines()[0]
    notes = [line for line in block(out) if line.startswith("  # ")]
    assert "ptaudit audit --live" in notes[0]
    assert notes[0] == block(out)[0], "before the commands for single files"
    assert "/proc/vmcore" not in "\n".join(notes)
    report = json.loads(ptaudit("audit", running, "--format", "json").out)
    steps = {step for rule in report["rules"] for step in rule["collect"]}
    assert any("ptaudit audit --live" in step for step in steps)
    assert not any("/proc/vmcore" in step for step in steps)


@pytest.mark.parametrize("closed", ["configuration", "lockdown", "manifest"])
def test_where_kcore_is_closed_a_crash_dump_is_asked_for(ptaudit, running: Path, closed: str) -> None:
    configured(running, "PROC_KCORE", "n" if closed == "configuration" else "y")
    if closed == "lockdown":
        (running / "cmdline").write_text("console=ttyAMA0 lockdown=confidentiality\n")
    if closed == "manifest":
        row = "host.core\t9\t0\t0\t/proc/kcore does not exist (CONFIG_PROC_KCORE)"
        (running / "manifest").write_text(f"name\tuptime\tseconds\tbytes\tresult\n{row}\n")
    out = ptaudit("audit", running, "--verbose").out
    assert "a crash dump" in out.splitlines()[0]
    assert "/proc/vmcore" in "\n".join(block(out))


@pytest.mark.parametrize(
    "why",
    [
        "/proc/kcore is masked, as in a container",
        "/proc/kcore needs root with CAP_SYS_RAWIO, which containers lack (Operation not permitted)",
        "/proc/kcore does not exist (CONFIG_PROC_KCORE=n, or the /proc of a container)",
    ],
)
def test_who_was_refused_in_a_container_is_sent_to_the_host(ptaudit, running: Path, why: str) -> None:
    configured(running, "PROC_KCORE", "y")
    for symbol in ("PTDUMP_DEBUGFS", "ARM64_PTDUMP_DEBUGFS"):
        configured(running, symbol, "n")
    (running / "kernel_page_tables").unlink()
    (running / "manifest").write_text(f"name\tuptime\tseconds\tbytes\tresult\nhost.core\t-\t-\t0\t{why}\n")
    verdict = ptaudit("audit", running).out.splitlines()[0]
    assert f"{why}: run ptaudit audit --live, or ptaudit collect, as root on the host itself." in verdict
    assert "reads them from /proc/kcore" not in verdict


def test_lockdown_that_the_collector_met_is_not_a_container(ptaudit, running: Path) -> None:
    configured(running, "PROC_KCORE", "y")
    for symbol in ("PTDUMP_DEBUGFS", "ARM64_PTDUMP_DEBUGFS"):
        configured(running, symbol, "n")
    (running / "kernel_page_tables").unlink()
    why = "/proc/kcore is closed to root with CAP_SYS_RAWIO, as kernel lockdown (confidentiality) does"
    (running / "manifest").write_text(f"name\tuptime\tseconds\tbytes\tresult\nhost.core\t-\t-\t0\t{why}\n")
    verdict = ptaudit("audit", running).out.splitlines()[0]
    assert "lockdown (confidentiality) closes /proc/kcore: take a crash dump" in verdict


def test_a_log_alone_is_not_asked_for_the_memory_of_a_host_that_may_be_dead(ptaudit, damaged: Path) -> None:
    assert "ptaudit audit --live" not in ptaudit("audit", damaged / "dmesg", "--verbose").out

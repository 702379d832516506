"""Crash dumps of the lab: what a scenario that crashes is given."""

from __future__ import annotations

import runpy
import subprocess
from pathlib import Path

import pytest

from fixtures.lab import crash
from fixtures.lab.crash import FORMS, described, equip, machine

LAB = Path(crash.__file__).parent
PLAN = {"command_line": "init_on_free=1", "memory": "512M", "timeout": 600, "script": "pmem"}


@pytest.fixture
def lab(tmp_path):
    """A lab with a kernel, an initramfs and the crash kernel's tools."""
    for name in ("Image", "initrd.gz", "crash-tools.gz"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "share").mkdir()
    return tmp_path


def test_machine_has_memory_for_the_crash_kernel():
    plan = machine(PLAN, "02-one-removed", by_oops=True)
    assert "crashkernel=" in plan["command_line"]
    assert plan["command_line"].startswith("init_on_free=1 ")
    assert plan["crash"] | {"CRASH_APPEND": ""} == {
        "CRASH_AFTER": "02-one-removed",
        "CRASH_BY": "oops",
        "CRASH_APPEND": "",
    }
    assert machine(PLAN, "x", by_oops=False)["crash"]["CRASH_BY"] == "panic"
    assert PLAN["memory"] == "512M"


def test_guest_finds_the_crash_kernel_and_its_tools(lab):
    equip(lab / "share", lab, lab / "Image", lab / "initrd.gz", ["raw", "zlib-31"])
    assert (lab / "share/Image").read_bytes() == b"Image"
    assert (lab / "share/crash-tools.gz").read_bytes() == b"crash-tools.gz"
    initrd = (lab / "share/crash-initrd.gz").read_bytes()
    assert initrd.startswith(b"initrd.gzcrash-tools.gz")
    listed = subprocess.run(
        ["sh", "-c", "gzip -dc | cpio -t --quiet"], input=initrd[23:], capture_output=True, check=True
    )
    assert listed.stdout.split() == [b"init"]
    assert (lab / "share/forms.sh").read_text() == "form raw \nform zlib-31 -c -d 31\n"


def test_tools_that_were_not_prepared_are_said(lab):
    (lab / "crash-tools.gz").unlink()
    with pytest.raises(SystemExit, match=r"prepare\.sh makes it"):
        equip(lab / "share", lab, lab / "Image", lab / "initrd.gz", ["raw"])


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_written_as_it_is_described(lab, form):
    """guest/kdump.sh with programs that say how they were called."""
    out = lab / "out"
    out.mkdir()
    script = (LAB / "guest/kdump.sh").read_text()
    function = script[script.index("# form NAME") : script.index("\nuname -r")]
    calls = f"out={out}\ndump() {{ echo dump $* >&2; }}\ndd() {{ echo dd $* >&2; }}\n"
    subprocess.run(
        ["sh", "-c", f"{calls}{function}\nform {form} {FORMS[form]}\n"], check=True, stdout=subprocess.DEVNULL
    )
    called = (out / f"{form}.log").read_text()
    assert called.startswith(f"dump {FORMS[form]} /proc/vmcore" if FORMS[form] else "dd if=/proc/vmcore")
    assert described(form).endswith(FORMS[form] or "/proc/vmcore")
    assert (out / form).exists() == ("-F" in FORMS[form])


def test_capture_that_was_cut_short_is_kept(tmp_path, monkeypatch):
    """The guest was stopped while it collected: the collector's own directory is still there."""
    monkeypatch.syspath_prepend(str(LAB))
    gather = runpy.run_path(str(LAB / "run.py"))["gather"]
    moment = tmp_path / "share/out/02-one-removed"
    (moment / ".ptaudit.x").mkdir(parents=True)
    (moment / "iomem").write_text("")
    (tmp_path / "kept").mkdir()
    hashes: dict[str, str] = {}
    gather(tmp_path / "kept", tmp_path / "share", hashes)
    assert list(hashes) == ["02-one-removed/iomem"]

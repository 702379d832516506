"""Fleets for tests: copies of captures, and a third-party rule that misbehaves where a bundle's release says so."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.analyzer.conftest import CAPTURES

ROOT = CAPTURES.parents[1]
TABLES = ("bundles", "findings", "undecided")

_RULE = '''
import os, signal, time
from parsers.uname import KernelRelease
from rules.finding import Impact, Severity
from rules.rule import rule

@rule(code="BAD-01", name="misbehaving", severity=Severity.INFO, impact=Impact.INFORMATIONAL, needs=(KernelRelease,))
def misbehaving(release):
    """Misbehaves.

    What it means: nothing.
    How it is detected: by the release.
    When it is not a problem: always.
    What to do: nothing.
    """
    what = release.raw.rpartition("-")[2]
    if what == "hang":
        time.sleep(3600)
    if what == "hog":
        return [bytearray(1 << 24) for _ in range(1 << 16)]
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "parent":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(3600)
    if what == "noise":
        print("not an answer", flush=True)
        os.write(1, b"nor this\\n")
    if what == "slow":
        time.sleep(0.5)
    return []
'''


_STARTED: list[subprocess.Popen[str]] = []


def bundle(folder: Path, *, release: str = "", source: str = "pmem-6.12-vuln/02-one-removed") -> Path:
    """A copy of a capture, of another kernel release if that is given."""
    shutil.copytree(CAPTURES / source, folder)
    if release:
        uname, dmesg = folder / "uname", folder / "dmesg"
        captured = uname.read_text().split()[2]
        uname.write_text(f"Linux host {release} #1 SMP aarch64 GNU/Linux\n")
        dmesg.write_bytes(dmesg.read_bytes().replace(captured.encode(), release.encode()))
    return folder


def misbehaving_rule(folder: Path) -> dict[str, str]:
    """Install the rule in a folder; the environment in which ptaudit finds it."""
    (folder / "misbehaving.py").write_text(_RULE)
    info = folder / "misbehaving-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: misbehaving\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[ptaudit.rules]\nmisbehaving = misbehaving\n")
    return os.environ | {"PYTHONPATH": f"{folder}:{ROOT}"}


def _takes_interrupts() -> None:
    """A shell that runs the tests in the background has them ignore SIGINT, and so what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(*arguments: object, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """``ptaudit fleet`` in its own process, until `end_all`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "analyzer.cli", "fleet", *map(str, arguments)],
        cwd=ROOT, env=env, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=_takes_interrupts,  # noqa: PLW1509  nothing else runs in the tests
    )  # fmt: skip
    _STARTED.append(process)
    return process


def end_all() -> None:
    """End what was started and close its pipes: a pipe that is collected later fails whatever test runs then."""
    while _STARTED:
        process = _STARTED.pop()
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def digests(results: Path) -> dict[str, str]:
    """What must not depend on how the results came to be."""
    names = [*(f"{table}.parquet" for table in TABLES), "summary.html"]
    return {name: hashlib.sha256((results / name).read_bytes()).hexdigest() for name in names}


def servers(environment: dict[str, str]) -> set[int]:
    """Processes that audit for a fleet in that environment."""
    found = set()
    wanted = f"PYTHONPATH={environment['PYTHONPATH']}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command, given = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            except OSError:
                continue
            if b"analyzer.fleet.server" in command and wanted in given:
                found.add(int(entry.name))
    return found


def until(condition, seconds: float = 30.0) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)

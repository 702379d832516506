"""Progress is for people: on a terminal, after two seconds, gone in the end; and Ctrl-C ends everything at once."""

import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from parsers.progress import listen, step
from tests.analyzer.conftest import CAPTURES

ROOT = Path(__file__).parents[2]
SOUND = CAPTURES / "dimm-6.12" / "02-dimm-online"
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
COUNTING = """
import sys, time
from parsers.progress import step
from analyzer.progress import shown_progress
from analyzer.status import status_of

def work(arguments):
    with shown_progress(), step("unpacking \\x1b]0;vmcore", 4 << 20) as progress:
        for _ in range(int(arguments[0])):
            time.sleep(0.1)
            progress.advance(100_000)
    print("the report")

sys.exit(status_of(work))
"""
COMPILED = """
import sys
from analyzer.status import status_of

def work(arguments):
    print("begun", flush=True)
    {code}

sys.exit(status_of(work))
"""
STUCK = {
    "a loop in Python": "while True: pass",
    "sleeping": "import time; time.sleep(60)",
    "comparing in numpy": "import numpy as np; a = np.arange(1 << 24)\n    while True: np.sort(a[::-1])",
    "a compiled library that lets go of the lock": (
        "import zlib; data = zlib.compress(bytes(1 << 30), 1); [zlib.decompress(data) for _ in range(99)]"
    ),
    "a thread": (
        "import zlib; from parsers.vmcore.workers import Workers; data = zlib.compress(bytes(1 << 26), 1); "
        "list(Workers(2).map(lambda _: len(zlib.decompress(data)), range(9999)))"
    ),
}


def on_a_terminal(code, *arguments, interrupt_after=None):
    """What a program writes to a terminal as standard error, what to its standard output, and its status."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs, text=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip
    os.close(theirs)
    shown, begin = b"", time.monotonic()
    while True:
        try:
            data = os.read(ours, 4096)
        except OSError:
            break
        if not data:
            break
        shown += data
        if interrupt_after is not None and b"MB/s" in shown and time.monotonic() - begin > interrupt_after:
            process.send_signal(signal.SIGINT)
            interrupt_after = None
    os.close(ours)
    out, _ = process.communicate(timeout=60)
    return shown.decode("utf-8", "replace"), out, process.returncode


def test_a_step_of_several_seconds_shows_rate_and_time_left():
    shown, out, status = on_a_terminal(COUNTING, "40")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert "unpacking" in plain
    assert re.search(r"\d+% +[\d.]+ MB/s +\d:\d\d:\d\d +\d:\d\d:\d\d", plain)
    assert "\x1b]0;" not in shown
    assert shown.rindex(SHOW) > shown.rindex(HIDE)
    assert (out, status) == ("the report\n", 0)


def test_what_is_done_soon_shows_nothing():
    assert on_a_terminal(COUNTING, "5") == ("", "the report\n", 0)


def test_ctrl_c_takes_the_bar_away():
    shown, out, status = on_a_terminal(COUNTING, "600", interrupt_after=3)
    assert (out, status) == ("", 130)
    assert shown.rindex(SHOW) > shown.rindex(HIDE)
    assert shown.rstrip().endswith("ptaudit: interrupted")


def test_a_pipe_gets_nothing():
    done = subprocess.run([sys.executable, "-c", COUNTING, "30"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("the report\n", "")


@pytest.mark.parametrize("what", STUCK)
def test_ctrl_c_ends_at_once_with_130(what):
    process = subprocess.Popen(
        [sys.executable, "-c", COMPILED.format(code=STUCK[what])], cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    time.sleep(3)
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "ptaudit: interrupted\n")
    assert time.monotonic() - begin < 10  # of a busy machine; it takes one second at most otherwise


class Heard:
    def __init__(self):
        self.steps, self.open = [], 0

    def begin(self, one):
        self.steps.append(one)
        self.open += 1

    def end(self, _):
        self.open -= 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fixtures/vmcore/pmem-6.12-vuln-after.core.zst", ["unpacking", "page tables of level 3", "hashing", "rules"]),
        ("fixtures/captures/pmem-6.12-vuln", ["reading", "kernel_page_tables", "trace"]),
    ],
)
def test_whatever_may_take_long_is_a_step(ptaudit, name, words):
    heard, path = Heard(), ROOT / name
    paths = [path] if path.is_file() else [path / "02-one-removed"]
    with listen(heard):
        ptaudit("audit", *paths)
    said = " ".join(one.what for one in heard.steps)
    assert all(word in said for word in words if word != "trace" or (paths[0] / "trace").exists())
    assert heard.open == 0
    counted = {one.what: (one.done, one.total) for one in heard.steps if one.total}
    assert counted
    assert {what: numbers for what, numbers in counted.items() if numbers[0] != numbers[1]} == {}


def test_a_step_that_fails_ends():
    heard = Heard()

    def fail():
        with listen(heard), step("something"):
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert (len(heard.steps), heard.open) == (1, 0)

"""Kernel logs that are whole, and logs that have lost lines."""

from pathlib import Path

import pytest

from parsers.dmesg import parse_dmesg
from parsers.log_losses import missing_records

FIXTURES = Path(__file__).parents[2] / "fixtures"
LOG = (FIXTURES / "vmcore/pmem-6.12-vuln-after.dmesg").read_bytes()
LINES = LOG.splitlines(keepends=True)
OOPS = (FIXTURES / "oops/pmem-6.12-vuln.txt").read_bytes()


def lost(data):
    return parse_dmesg(data, "dmesg").boot.lost


@pytest.mark.parametrize("end", [b"", OOPS], ids=["", "with an oops"])
def test_a_log_from_the_banner_to_a_running_system_is_whole(end):
    assert lost(LOG + end) == ""


@pytest.mark.parametrize("percent", [10, 25, 50, 75])
def test_a_log_that_ends_before_init_runs_is_not_whole(percent):
    whole = len(LINES) * percent // 100
    assert "lost messages" in lost(b"".join(LINES[:whole]))


@pytest.mark.parametrize(("keep", "of"), [(1, 2), (2, 3), (3, 4)])
def test_a_thinned_log_is_not_whole(keep, of):
    kept = (line for at, line in enumerate(LINES[1:]) if at % of < keep)
    assert lost(b"".join((LINES[0], *kept)))


def test_a_log_without_its_middle_is_not_whole():
    third = len(LINES) // 3
    assert "lost messages" in lost(b"".join(LINES[:third] + LINES[2 * third :]))


def test_a_log_of_which_the_steps_of_a_boot_were_filtered_out_is_not_whole():
    words = (b"hash table entries", b"Brought up", b"SMP: Total", b"CPU: All CPU(s)")
    assert "lost messages" in lost(b"".join(line for line in LINES if not any(word in line for word in words)))


def test_a_log_without_its_head_is_not_whole():
    assert lost(b"".join(LINES[20:])) == "the log does not go back to the start of the boot"


def test_a_last_line_without_end_may_be_cut():
    assert "no end" in lost(LOG[:-5])


@pytest.mark.parametrize(
    "said",
    [
        b"** 214 printk messages dropped **\n",
        b"[    9.100000] systemd-journald[231]: Missed 18 kernel messages\n",
    ],
)
def test_messages_that_were_dropped_are_known_to_be_missing(said):
    assert "dropped" in lost(LOG + said)


@pytest.mark.parametrize("words", [b"x17: ", b"x2 : ", b"] pgd="])
def test_a_report_that_lacks_a_line_is_torn(words):
    torn = b"".join(line for line in OOPS.splitlines(keepends=True) if words not in line)
    assert torn != OOPS
    assert "has lost lines" in lost(LOG + torn)


@pytest.mark.parametrize("first", [b"Mem abort info:", b"Modules linked in:"])
def test_a_report_without_its_first_lines_is_torn(first):
    assert "has lost lines" in lost(LOG + OOPS[OOPS.rindex(b"\n", 0, OOPS.index(first)) + 1 :])


def test_a_report_of_an_abort_that_does_not_say_where_is_torn():
    begin, end = OOPS.index(b"Internal error"), OOPS.index(b"Call trace:")
    cut = OOPS[: OOPS.rindex(b"\n", 0, begin) + 1] + OOPS[OOPS.rindex(b"\n", 0, end) + 1 :]
    assert "has lost lines" in lost(LOG + cut)


def test_the_end_of_a_boot_that_died_is_not_missing():
    early = OOPS.replace(b"PID: 130 Comm: ndctl", b"PID: 1 Comm: swapper/0")
    boot = b"".join(LINES[: next(at for at, line in enumerate(LINES) if b"devtmpfs: initialized" in line)])
    assert lost(boot + early) == ""
    assert lost(boot + OOPS) != ""


def test_records_are_numbered_in_kmsg():
    kept = [f"6,{number},{number}000,-;message {number}\n".encode() for number in (1, 2, 3, 7, 8)]
    assert missing_records(b"".join(kept)) == 3
    assert missing_records(b"".join(kept[:3])) == 0
    assert missing_records(LOG) == 0


def test_every_boot_of_a_log_is_judged_alone():
    log = parse_dmesg(LOG + b"".join(LINES[: len(LINES) // 2]), "console")
    assert [bool(boot.lost) for boot in log.boots] == [False, True]

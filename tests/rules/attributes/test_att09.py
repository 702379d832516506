"""ATT-09: Hibernation would copy a linear map from which memory was removed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rules.attributes.att09_hibernation_copy import hibernation_copy
from rules.engine import Outcome
from tests.rules.attributes.machines import AFFECTED, HALF, HIBERNATION, NOT, PLAIN, invalid, of_release, outcome
from tests.rules.drawn import BLOCK, GIB, MIB, RAM, Drawn, memory_blocks

OFFLINED = "[    1.000000] Offlined Pages 32768\n"
DIMM = RAM + GIB
BOOT_BLOCKS = tuple(range(8, 16))


def hibernating(online=BOOT_BLOCKS, offline=(), **files):
    """A machine that took memory offline, and that can hibernate."""
    iomem = (
        (RAM, DIMM, "System RAM"),
        *((one << 27, one + 1 << 27, "System RAM") for one in (*online, *offline) if one > 15),
    )
    files = {"config": HIBERNATION, "memory_blocks": memory_blocks(online, offline)} | files
    return Drawn(dmesg=OFFLINED, iomem=iomem, files=files)


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        *(("4.6.9", NOT), ("4.7.0", AFFECTED), ("7.1.9", AFFECTED), ("7.2.0", NOT)),
        *(("6.12.111", AFFECTED), ("6.12.112", NOT)),
    ],
)
def test_releases_that_hibernate_with_memory_that_is_gone(tmp_path, release, expected):
    assert of_release(hibernating(), tmp_path, hibernation_copy, release) is expected


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (hibernating(), Outcome.FIRED),
        (hibernating(config=PLAIN), NOT),
        (hibernating(config=""), Outcome.UNDECIDED),
        (hibernating(cmdline="console=ttyAMA0 nohibernate\n"), NOT),
        (hibernating(dmesg=""), Outcome.UNDECIDED),
        # What went offline may be there.
        (hibernating(memory_blocks=""), Outcome.PASSED),
        (hibernating(offline=(16,)), Outcome.PASSED),
        (hibernating(online=(*BOOT_BLOCKS, 16)), Outcome.FIRED),
        (hibernating(online=BOOT_BLOCKS[1:], offline=BOOT_BLOCKS[:1]), Outcome.FIRED),
    ],
)
def test_what_says_that_hibernation_copies_holes(tmp_path, machine, expected):
    assert outcome(machine, tmp_path, "ATT-09") is expected


def test_device_memory_is_not_memory_that_went_offline(tmp_path):
    machine = hibernating()
    machine = replace(
        machine,
        linear=(*machine.linear, (DIMM, DIMM + 128 * MIB, "PMD", BLOCK)),
        iomem=(*machine.iomem, (DIMM, DIMM + 128 * MIB, "dax0.0")),
    )
    assert outcome(machine, tmp_path, "ATT-09") is Outcome.FIRED


@pytest.mark.parametrize(
    ("start", "flags", "expected"),
    [(DIMM, invalid(BLOCK), True), (DIMM, BLOCK, False), (HALF, invalid(BLOCK), False)],
)
def test_invalid_entries_of_absent_memory(tmp_path, start, flags, expected):
    rows = ((RAM, HALF, "PMD", BLOCK), (start, start + 2 * MIB, "PMD", flags))
    machine = replace(hibernating(), linear=rows, dmesg="")
    verdict = machine.verdict(tmp_path, "ATT-09")
    found = [one for finding in verdict.findings for one in finding.hit.pfns.tuples()]
    assert found == [(start >> 12, start + 2 * MIB >> 12) for _ in range(expected)]

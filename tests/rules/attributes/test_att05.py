"""ATT-05: Hot-added RAM is untagged where boot RAM is tagged."""

from __future__ import annotations

import pytest

from rules.engine import Outcome
from tests.rules.attributes.machines import HALF, READ_ONLY, invalid, outcome
from tests.rules.drawn import BLOCK, GIB, RAM, Drawn

TAGGED = "RW NX SHD AF        BLK UXN    MEM/NORMAL-TAGGED"
MTE = "[    0.000000] CPU features: detected: Memory Tagging Extension\n"


@pytest.mark.parametrize(
    ("boot", "rows", "expected"),
    [
        (HALF, ((RAM, HALF, "PMD", TAGGED), (HALF, RAM + GIB, "PMD", BLOCK)), Outcome.FIRED),
        (RAM + GIB, ((RAM, HALF, "PMD", TAGGED), (HALF, RAM + GIB, "PMD", BLOCK)), Outcome.PASSED),
        (HALF, ((RAM, HALF, "PMD", TAGGED), (HALF, RAM + GIB, "PMD", READ_ONLY)), Outcome.PASSED),
        (HALF, ((RAM, HALF, "PMD", TAGGED), (HALF, RAM + GIB, "PMD", invalid(BLOCK))), Outcome.PASSED),
        (HALF, ((RAM, HALF, "PMD", invalid(TAGGED)), (HALF, RAM + GIB, "PMD", BLOCK)), Outcome.NOT_APPLICABLE),
    ],
)
def test_untagged_memory(tmp_path, boot, rows, expected):
    machine = Drawn(linear=rows, boot=((RAM, boot),), dmesg=MTE)
    assert outcome(machine, tmp_path, "ATT-05") is expected

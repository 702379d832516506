"""ATT-01: Kernel memory is writable and executable."""

from __future__ import annotations

import pytest

from rules.engine import Outcome
from tests.rules.attributes.machines import HALF, outcome
from tests.rules.drawn import BLOCK, GIB, RAM, Drawn

WX = "RW x  SHD AF        BLK UXN    MEM/NORMAL"


@pytest.mark.parametrize(
    ("cmdline", "expected"),
    [("", Outcome.FIRED), ("console=ttyAMA0\n", Outcome.FIRED), ("rodata=off\n", Outcome.NOT_APPLICABLE)],
)
def test_writable_and_executable_memory(tmp_path, cmdline, expected):
    """Without a log, which holds the command line too."""
    machine = Drawn(linear=((RAM, HALF, "PMD", BLOCK), (HALF, RAM + GIB, "PMD", WX)), files={"cmdline": cmdline})
    assert outcome(machine, tmp_path, "ATT-01") is expected

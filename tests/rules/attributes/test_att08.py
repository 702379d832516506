"""ATT-08: EFI runtime memory that firmware marks read-only may be writable."""

from __future__ import annotations

import pytest

from rules.attributes.att08_efi_read_only import efi_read_only
from rules.engine import Outcome
from tests.rules.attributes.machines import AFFECTED, EFI, NOT, PLAIN, of_release, outcome
from tests.rules.drawn import Drawn

DIRTY = "[    0.000000] CPU features: detected: Hardware dirty bit management\n"


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        *(("4.5.9", NOT), ("4.6.0", AFFECTED), ("7.1.9", AFFECTED), ("7.2.0", NOT)),
        *(("6.12.116", AFFECTED), ("6.12.117", NOT)),
    ],
)
def test_releases_whose_read_only_efi_memory_is_writable(tmp_path, release, expected):
    machine = Drawn(dmesg=DIRTY, files={"config": EFI})
    assert of_release(machine, tmp_path, efi_read_only, release) is expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, Outcome.FIRED),
        ({"config": PLAIN}, NOT),
        ({"config": ""}, Outcome.UNDECIDED),
        ({"dmesg": ""}, Outcome.UNDECIDED),
        ({"dmesg": "[    1.000000] Offlined Pages 32768\n"}, Outcome.UNDECIDED),
        ({"dmesg": DIRTY}, Outcome.FIRED),
    ],
)
def test_what_says_that_read_only_efi_memory_is_writable(tmp_path, files, expected):
    machine = Drawn(dmesg=DIRTY, files={"config": EFI} | files)
    assert outcome(machine, tmp_path, "ATT-08") is expected

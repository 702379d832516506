"""ATT-07: Kernel mappings with the user bit, or without the access flag or shareability."""

from __future__ import annotations

import pytest

from rules.engine import Outcome
from tests.rules.attributes.machines import DEVICE, HALF, invalid, outcome
from tests.rules.drawn import BLOCK, GIB, MIB, NORMAL, RAM, Drawn


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (NORMAL, []),
        (f"USR {NORMAL}", ["Kernel memory is accessible from user space"]),
        (invalid(f"USR {NORMAL}"), []),
        (NORMAL.replace("SHD", "   "), ["Kernel memory is not shareable"]),
        (DEVICE.replace("SHD", "   "), []),
    ],
)
def test_flags_of_entries_that_translate(tmp_path, flags, expected):
    rows = ((RAM, HALF, "PMD", BLOCK), (HALF, HALF + 2 * MIB, "PTE", flags))
    verdict = Drawn(linear=rows).verdict(tmp_path, "ATT-07")
    assert [one.hit.title for one in verdict.findings] == expected


@pytest.mark.parametrize("other", [DEVICE, invalid(NORMAL)])
def test_no_cacheable_entry_is_shareable(tmp_path, other):
    """With LPA2 the bits are those of an address, whatever those of a device say."""
    rows = ((RAM, HALF, "PMD", BLOCK.replace("SHD", "   ")), (HALF, HALF + 2 * MIB, "PTE", other))
    pages = ((RAM, RAM + GIB, "PMD", BLOCK.replace("SHD", "   ")),)
    assert outcome(Drawn(linear=rows, pages=pages), tmp_path, "ATT-07") is Outcome.PASSED

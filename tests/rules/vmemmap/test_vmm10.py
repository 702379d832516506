"""VMM-10: The vmemmap area maps struct pages of page frames that cannot exist."""

from __future__ import annotations

import pytest

from rules.engine import Outcome
from tests.rules.drawn import BLOCK, MIB, RAM, Drawn
from tests.rules.vmemmap.machines import NVDIMM, addresses, vas

TOP = 1 << 52


@pytest.mark.parametrize(("end", "outcome"), [(TOP, Outcome.PASSED), (TOP + 256 * MIB, Outcome.FIRED)])
def test_struct_pages_at_the_end_of_physical_memory(tmp_path, end, outcome):
    """PHYS_OFFSET lies 1 GiB before it."""
    first = TOP - (NVDIMM - RAM)
    machine = Drawn(
        pages=((RAM, end - TOP + NVDIMM, "PMD", BLOCK),),
        iomem=((first, TOP, "System RAM"),),
        boot=((first, TOP),),
        files={"vmcoreinfo": Drawn().vmcoreinfo(first)},
    )
    verdict = machine.verdict(tmp_path, "VMM-10")
    assert verdict.outcome is outcome
    assert vas(verdict) == [addresses((0, 256)) for _ in range(outcome is Outcome.FIRED)]

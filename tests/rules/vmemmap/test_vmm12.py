"""VMM-12: Struct pages are mapped executable, for user space, or not as Normal memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rules.finding import Severity
from tests.rules.drawn import RAM, Drawn
from tests.rules.vmemmap.machines import NVDIMM


@pytest.mark.parametrize(
    "flags", ["RW NX SHD AF        BLK        MEM/NORMAL", "RW x  SHD AF        BLK UXN    MEM/NORMAL"]
)
def test_struct_pages_that_kernel_or_user_space_may_execute(tmp_path, flags):
    machine = replace(Drawn(), pages=((RAM, NVDIMM, "PMD", flags),))
    (finding,) = machine.verdict(tmp_path, "VMM-12").findings
    assert finding.severity is Severity.HIGH

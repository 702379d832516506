"""SEC-01: A section is marked online and is not present, or has no memmap."""

import pytest

from rules.finding import Severity
from tests.rules.dumps import HAS_MEM_MAP, NOWHERE, ONLINE, PRESENT, proven, the_finding


@pytest.mark.parametrize("flags", [ONLINE, ONLINE | PRESENT, ONLINE | HAS_MEM_MAP])
def test_online_and_not_present(dimm, flags):
    place, _ = dimm.section(NOWHERE)
    codes, verdicts = dimm.caused({place: flags})
    assert codes - {"SEC-02", "SEC-05", "SEC-07", "VMM-02"} == {"SEC-01"}
    assert ("SEC-02" in codes) is bool(flags & PRESENT)
    assert ("SEC-07" in codes) is bool(flags & HAS_MEM_MAP)
    assert proven(verdicts, "SEC-01", Severity.CRITICAL) == [(NOWHERE << 15, NOWHERE + 1 << 15)]
    assert the_finding(verdicts, "SEC-01").hit.evidence[0].address == place

"""SEC-09: Online RAM and device memory share a section."""

from rules.finding import Severity
from tests.rules.dumps import DEVICE, proven, the_finding


def test_ram_and_a_device_in_one_section(dimm):
    codes, verdicts = dimm.caused(dimm.flags(17, give=DEVICE))
    assert codes == {"SEC-09"}
    assert proven(verdicts, "SEC-09", Severity.INFO) == [(17 << 15, 18 << 15)]


def test_device_memory_that_fills_its_section_is_not_marked(pmem):
    """The kernel marks sections that a device shares; this one is known by who claims it."""
    codes, verdicts = pmem.caused(pmem.flags(16, take=DEVICE))
    assert codes == set()
    assert "namespace0.1+dax0.1" in the_finding(verdicts, "VMM-01").hit.title

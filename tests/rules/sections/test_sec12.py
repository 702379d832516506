"""SEC-12: Online memory lies at or above max_pfn."""

from rules.engine import Outcome
from rules.finding import Severity
from tests.rules.dumps import proven


def test_memory_above_max_pfn(dimm, pmem):
    place = dimm.max_pfn()
    codes, verdicts = dimm.caused({place: 0x90000})
    assert codes == {"SEC-12"}
    assert proven(verdicts, "SEC-12", Severity.MEDIUM) == [(0x90000, 0xA0000)]
    codes, _ = pmem.caused({pmem.max_pfn(): 0x50000})  # device memory may lie above
    assert codes == set()
    _, verdicts = dimm.caused(missing=[place & ~0xFFF])
    assert verdicts["SEC-12"].outcome is Outcome.UNDECIDED

"""MOM-01: The pages that a block sets aside for its own struct pages have an impossible number or place."""

from rules.finding import Severity
from tests.rules.dumps import proven, the_finding


def test_an_area_that_begins_elsewhere(dimm):
    codes, verdicts = dimm.caused({dimm.altmap(17, "base_pfn"): 0x88200})
    assert codes == {"MOM-01"}
    assert proven(verdicts, "MOM-01", Severity.CRITICAL) == [(17 << 15, 18 << 15)]


def test_an_area_whose_start_is_unknown(dimm):
    codes, _ = dimm.caused({dimm.altmap(17, "base_pfn"): 0})
    assert codes == set()


def test_an_area_that_leaves_nothing(dimm):
    _, verdicts = dimm.caused({dimm.altmap(17, "free"): 0x8000})
    assert {one.hit.key for one in verdicts["MOM-01"].findings} == {"leaves nothing of the block"}
    finding = the_finding(verdicts, "MOM-01")
    assert finding.hit.pfns.tuples() == [(17 << 15, 18 << 15)]


def test_an_area_that_is_too_small(dimm):
    codes, verdicts = dimm.caused({dimm.altmap(17, "free"): 256})
    assert codes == {"MOM-01", "MOM-02"}
    assert {one.hit.key for one in verdicts["MOM-01"].findings} == {
        "is not a multiple of 512 pages",
        "is too small for the struct pages",
    }

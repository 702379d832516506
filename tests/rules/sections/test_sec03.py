"""SEC-03: Online memory lies outside of its zone, or a zone's bounds and counts cannot be."""

import pytest

from rules.engine import Outcome
from rules.finding import Severity
from tests.rules.captures import DIMM, verdict_in
from tests.rules.dumps import proven, the_finding


def test_a_zone_that_ends_too_early(dimm):
    codes, verdicts = dimm.caused({dimm.zone("Movable", "spanned_pages"): 0x18000})
    assert codes == {"SEC-03"}
    assert proven(verdicts, "SEC-03", Severity.HIGH) == [(0x98000, 0xA0000)]
    assert any("zone Movable: start_pfn 524288" in one.text for one in the_finding(verdicts, "SEC-03").hit.evidence)


def test_a_zone_that_begins_in_nothing(dimm):
    start, spanned = dimm.zone("Movable", "zone_start_pfn"), dimm.zone("Movable", "spanned_pages")
    codes, verdicts = dimm.caused({start: 0x78000, spanned: 0x28000})
    assert codes == {"SEC-03"}
    assert the_finding(verdicts, "SEC-03").hit.key == "ends"


def test_a_zone_that_ends_in_nothing(dimm):
    """By one page: what follows the last page of the span is the start of a section that is not present."""
    codes, verdicts = dimm.caused({dimm.zone("Movable", "spanned_pages"): 0x20001})
    assert codes == {"SEC-03"}
    assert {one.hit.key for one in verdicts["SEC-03"].findings} == {"ends", "node 0"}


@pytest.mark.parametrize(("present", "keys"), [(0, set()), (1, {"ends", "node 0"})])
def test_the_span_of_an_empty_zone_is_ignored(dimm, present, keys):
    zone = {"zone_start_pfn": 0x60000, "spanned_pages": 0x8000, "present_pages": present}
    _, verdicts = dimm.caused({dimm.zone("Normal", name): value for name, value in zone.items()})
    assert {one.hit.key for one in verdicts["SEC-03"].findings} == keys


def test_a_zone_with_more_pages_than_it_spans(dimm):
    _, verdicts = dimm.caused({dimm.zone("Movable", "present_pages"): 0x20001})
    assert {one.hit.key for one in verdicts["SEC-03"].findings} == {"present", "node 0"}


def test_a_node_that_does_not_span_its_zones(dimm):
    """DMA32 is empty and lies where there is no memory, and outside of the node."""
    zone = {"zone_start_pfn": 0x100000, "spanned_pages": 0x8000}
    codes, verdicts = dimm.caused({dimm.zone("Normal", name): value for name, value in zone.items()})
    assert codes == {"SEC-03"}
    finding = the_finding(verdicts, "SEC-03")
    assert (finding.hit.key, finding.hit.pfns.tuples()) == ("node 0", [(0x100000, 0x108000)])


def test_a_node_that_miscounts(dimm):
    codes, verdicts = dimm.caused({dimm.zone("Movable", "present_pages"): 0x1FFFF})
    assert codes == {"SEC-03"}
    assert the_finding(verdicts, "SEC-03").hit.key == "node 0"


def test_a_block_in_the_wrong_zone(dimm):
    """The spans of the two zones overlap nowhere, and block 16 says it is in the lower one."""
    zone = dimm.word(dimm.block(8, "zone"))
    codes, verdicts = dimm.caused({dimm.block(16, "zone"): zone, dimm.zone("DMA", "spanned_pages"): 0x4C000})
    assert codes == {"SEC-03"}
    assert proven(verdicts, "SEC-03", Severity.HIGH) == [(16 << 15, 17 << 15)]


def test_zones_that_are_not_listed_prove_nothing(changed_capture):
    report = changed_capture(DIMM, zoneinfo=lambda data: data[: data.index(b"zone  Movable")])
    assert verdict_in(report, "SEC-03").outcome is Outcome.UNDECIDED
    assert "cut short" in verdict_in(report, "SEC-03").reason


def test_zones_of_the_moment_before_prove_nothing(changed_capture):
    """The blocks say that they are in zone Movable, and the zone is empty."""
    report = changed_capture(
        "two-dimms-one-offline-6.12-4k-80/01-both-there", zoneinfo="pmem-6.12-fixed/02-one-removed"
    )
    assert verdict_in(report, "SEC-03").outcome is Outcome.UNDECIDED
    assert "has no start of zone Movable" in verdict_in(report, "SEC-03").reason

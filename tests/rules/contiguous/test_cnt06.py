"""CNT-06: A mapped address of the linear map or the vmemmap area maps another page than in the earlier dump."""

from __future__ import annotations

from dataclasses import replace

import pytest

from parsers.arm64 import PMD, Attr
from parsers.mapping import Mapping
from rules.contiguous.cnt06_output_change import output_change
from rules.engine import Outcome
from rules.finding import Claim, Severity
from rules.model.memory.regions import LinearMap, Vmemmap
from rules.model.memory.snapshots import Earlier
from tests.cases import case_file
from tests.rules.drawn import LINEAR
from tests.rules.dumps import pfns_of, struct_page_address, the_finding
from tests.rules.traces import trace_verdict
from tests.rules.walked import NOTHING, PFN, facts, judged, linear, row, sections


@pytest.mark.parametrize(
    ("before", "now", "early", "expected"),
    [
        ([linear(0, 16, 0)], [linear(0, 16, 0)], (), []),
        ([linear(0, 16, 0)], [linear(0, 16, 16)], (), [("linear other", Severity.MEDIUM, 0, 16)]),
        ([linear(0, 16, 0)], [linear(0, 16, 16)], (-8,), [("linear boot", Severity.CRITICAL, 0, 16)]),
        ([linear(0, 16, 0)], [linear(0, 8, 0), linear(8, 8, 8)], (), []),  # cut elsewhere
        ([linear(0, 16, 0)], [linear(0, 8, 0), linear(8, 8, 16)], (), [("linear other", Severity.MEDIUM, 8, 16)]),
        ([linear(0, 8, 0), linear(8, 8, 16)], [linear(0, 16, 0)], (), [("linear other", Severity.MEDIUM, 8, 16)]),
        ([linear(0, 16, 0)], [linear(0, 16, 16, attrs=Attr.PRESENT)], (), []),
        ([linear(0, 16, 0, attrs=Attr.PRESENT)], [linear(0, 16, 16)], (), []),
        ([linear(0, 8, 0)], [linear(8, 8, 16)], (), []),
    ],
)
def test_addresses_that_map_another_page_than_before(layout, before, now, early, expected):
    earlier = facts(layout, before)
    known = facts(
        layout,
        now,
        Earlier(earlier.known[LinearMap], earlier.known[Vmemmap]),
        early=sections(*early),
        valid=sections(0),
    )
    found = judged(output_change, known).findings
    start, end = LINEAR, 4096
    assert [
        (one.hit.key, one.severity, (one.hit.vas[0].start - start) // end, (one.hit.vas[0].end - start) // end)
        for one in found
    ] == expected
    claims = {"linear boot": Claim.PROBABLE, "linear other": Claim.SUSPECTED}
    assert all(one.hit.claim is claims[one.hit.key] for one in found)
    assert [one.hit.pfns.tuples() for one in found] == [[(PFN + lo, PFN + hi)] for _, _, lo, hi in expected]


@pytest.mark.parametrize(("before", "now"), [(True, False), (False, True)])
def test_text_dumps_do_not_say_where_addresses_lead(layout, before, now):
    """One of the two is a text dump."""
    regions = []
    for walked in (before, now):
        known = facts(layout, [linear(0, 16, 0)]).known
        mapping = known[Mapping] if walked else replace(known[Mapping], pa=None)
        regions.append((LinearMap.of(mapping, layout), Vmemmap.of(mapping, layout)))
    known = facts(layout, [linear(0, 16, 0)], Earlier(*regions[0]))
    known.known.update({LinearMap: regions[1][0], Vmemmap: regions[1][1]})
    assert judged(output_change, known).outcome is Outcome.UNDECIDED


def test_addresses_without_any_mapping(layout):
    holes = [row(LINEAR, 16, 0, attrs=NOTHING)]
    earlier = facts(layout, holes)
    known = facts(layout, holes, Earlier(earlier.known[LinearMap], earlier.known[Vmemmap]))
    assert judged(output_change, known).outcome is Outcome.PASSED


def test_output_addresses_that_changed_between_two_dumps(pmem):
    boot = pmem.entry(struct_page_address(0x48000), PMD)
    codes, verdicts = pmem.caused({boot: pmem.word(boot) - 0x4FA00000 + 0x48000000}, earlier_vmcore=pmem.dump())
    assert codes == {"CNT-06"}
    finding = the_finding(verdicts, "CNT-06")
    assert (finding.severity, finding.hit.claim, pfns_of(finding)) == (
        Severity.CRITICAL,
        Claim.PROBABLE,
        [(0x48000, 0x50000)],
    )
    hot = pmem.entry(struct_page_address(0x80000), PMD)
    codes, verdicts = pmem.caused({hot: pmem.word(hot) + 0x1000000}, earlier_vmcore=pmem.dump())
    assert codes == {"CNT-06"}
    assert the_finding(verdicts, "CNT-06").severity is Severity.MEDIUM
    assert pmem.caused(earlier_vmcore=pmem.dump())[0] == set()


def test_two_dumps_of_different_boots_are_not_compared(pmem, hvo):
    verdicts = pmem.audit(earlier_vmcore=hvo.dump())
    assert verdicts["CNT-06"].outcome is Outcome.UNDECIDED
    assert "another boot" in verdicts["CNT-06"].reason


def test_the_first_of_the_live_changes_is_quoted(tmp_path):
    text = case_file("CNT-06/fires-trace-alone", "trace").read_text()
    (finding,) = trace_verdict(tmp_path, "CNT-06", text).findings
    assert finding.hit.message.startswith("3 changes, ")
    assert "1.887740: hvo_pte: " in finding.hit.evidence[0].text

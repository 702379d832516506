"""Offlining that the kernel refuses is foreseen from the page tables, and a failed add is seen for what it left."""

from __future__ import annotations

from pathlib import Path

import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from rules.engine import Outcome
from rules.finding import Severity
from tests.cases import case

FIXTURES = Path(__file__).parents[2] / "fixtures"
MOM = FIXTURES / "captures" / "dimm-7.3-4k-mom"


def pfns(path: Path, code: str) -> tuple[int, int]:
    """From the first to the last page that the rule names."""
    report = audit(Request((path,)))
    findings = [one for one in report.findings if one.rule.code == code]
    assert findings, [(one.rule.code, one.reason) for one in report.verdicts if one.rule.code == code]
    found = [pair for one in findings for pair in one.hit.pfns.tuples()]
    return min(lo for lo, _ in found), max(hi for _, hi in found)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (MOM / "02-dimm-online", MOM / "03-half-offline"),
        (case("MOM-14/fires-foreseen"), case("MOM-14/fires-linear-map")),
    ],
)
def test_blocks_that_the_kernel_refused_were_foreseen(before, after):
    """What is refused begins behind the struct pages that the block holds, and ends where it ends."""
    foreseen, refused = pfns(before, "MOM-14"), pfns(after, "MOM-14")
    assert foreseen[0] + 512 == refused[0]
    assert refused[1] <= foreseen[1]


def test_blocks_under_a_leaf_of_a_gigabyte_were_foreseen():
    foreseen = pfns(case("LIN-04/fires-foreseen"), "LIN-04")
    refused = pfns(FIXTURES / "captures" / "dimm-1g-leaves-7.3-4k" / "04-dimm-removed", "LIN-04")
    assert foreseen == refused


def test_sections_of_a_failed_add_belong_to_nobody():
    """The persistent-memory region that they lie in is no owner, and they hold their own struct pages."""
    report = audit(Request((FIXTURES / "vmcore" / "half-added-7.3.core.zst",)))
    (finding,) = (one for one in report.findings if one.severity >= Severity.HIGH)
    assert finding.rule.code == "VMM-14"
    assert finding.hit.pfns.tuples() == [(0x80000, 0x98000)]
    outcomes = {one.rule.code: one.outcome for one in report.verdicts}
    assert outcomes["VMM-09"] is Outcome.UNDECIDED

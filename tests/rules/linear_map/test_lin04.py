"""LIN-04: The kernel refuses to offline memory because a leaf of the linear map would be split."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rules.engine import Outcome
from rules.finding import Claim
from tests.cases import FIXTURES, case
from tests.rules.captures import findings, span_of_findings
from tests.rules.drawn import Drawn

SPLIT = "[    1.000000] [80000000 88000000] splits a leaf entry in linear map\n"


@pytest.mark.parametrize(
    ("release", "log", "outcome", "claim"),
    [
        ("7.0.9", "", Outcome.NOT_APPLICABLE, None),
        ("7.1.0", "", Outcome.PASSED, None),
        ("7.2.9", SPLIT, Outcome.FIRED, Claim.SUSPECTED),
        ("7.3.0", SPLIT, Outcome.FIRED, Claim.PROVEN),
    ],
)
def test_releases_that_check_for_splits_and_check_the_right_range(tmp_path, release, log, outcome, claim):
    verdict = replace(Drawn(), release=release, dmesg=log).verdict(tmp_path, "LIN-04")
    assert verdict.outcome is outcome
    assert [one.hit.claim for one in verdict.findings] == ([claim] if claim else [])


def test_blocks_that_7_3_does_not_offline_are_named() -> None:
    blocks = [(0x80000 + 0x8000 * block, 0x88000 + 0x8000 * block) for block in range(8)]
    (leaf,) = findings("dimm-1g-leaves-7.3-4k/04-dimm-removed", "LIN-04")
    assert (leaf.hit.claim, leaf.hit.pfns.tuples()) == (Claim.PROVEN, [(blocks[0][0], blocks[-1][1])])
    (hosted,) = findings("dimm-7.3-4k-mom/03-half-offline", "MOM-14")
    assert hosted.hit.claim is Claim.PROVEN
    assert hosted.hit.pfns.tuples() == [(start + 0x200, end) for start, end in blocks[:2]]


def test_blocks_under_a_leaf_of_a_gigabyte_were_predicted():
    foreseen = span_of_findings(case("LIN-04/fires-foreseen"), "LIN-04")
    refused = span_of_findings(FIXTURES / "captures" / "dimm-1g-leaves-7.3-4k" / "04-dimm-removed", "LIN-04")
    assert foreseen == refused

"""MOM-14: A memory block cannot be offlined because what it offers begins after its own struct pages."""

from __future__ import annotations

import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from tests.cases import FIXTURES, case
from tests.rules.captures import span_of_findings

MOM = FIXTURES / "captures" / "dimm-7.3-4k-mom"
ONLINE = FIXTURES / "vmcore" / "dimm-7.3-self-hosted-online.core.zst"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (MOM / "02-dimm-online", MOM / "03-half-offline"),
        (case("MOM-14/fires-foreseen"), case("MOM-14/fires-linear-map")),
    ],
)
def test_blocks_that_the_kernel_refused_were_predicted(before, after):
    """What is refused begins after the struct pages that the block holds, and ends where it ends."""
    foreseen, refused = span_of_findings(before, "MOM-14"), span_of_findings(after, "MOM-14")
    assert foreseen[0] + 512 == refused[0]
    assert refused[1] <= foreseen[1]


@pytest.mark.parametrize("more", [(), (MOM / "02-dimm-online" / "dmesg",)], ids=["alone", "with a log"])
def test_blocks_of_a_dump_are_predicted(more):
    """A dump shows which blocks hold their own struct pages: neither a log nor the module's parameter is needed."""
    report = audit(Request((ONLINE, *more)))
    (hit,) = (one.hit for one in report.findings if one.rule.code == "MOM-14")
    assert hit.title == "4 memory block(s) cannot go offline"
    assert hit.pfns.tuples() == [(0x140000, 0x160000)]

"""MOM-12: A page with an uncorrectable error holds the struct pages of its own block."""

import pytest

from parsers.dmesg import parse_dmesg
from rules.engine import Outcome, builtin_rules, run
from rules.finding import Severity
from rules.model.captured import Captured, build_facts
from tests.rules.dumps import proven, without_log


@pytest.mark.parametrize(("pfn", "outcome"), [(0x88010, Outcome.FIRED), (0x88200, Outcome.PASSED)])
def test_poison_in_a_self_hosted_area(dimm, pfn, outcome):
    log = parse_dmesg(b"[    9.000000] Memory failure: 0x%x: recovery action for free page\n" % pfn, "dmesg")
    facts = build_facts(Captured(vmcore=without_log(dimm.facts), dmesg=log))
    verdicts = {one.rule.code: one for one in run(builtin_rules(), facts)}
    assert verdicts["MOM-12"].outcome is outcome
    if outcome is Outcome.FIRED:
        assert proven(verdicts, "MOM-12", Severity.HIGH) == [(pfn, pfn + 1)]

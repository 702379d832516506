"""SEC-06: A valid section has no subsections, or a section that is not valid has some."""

from dataclasses import replace

from rules.engine import Outcome
from rules.finding import Severity
from tests.rules.drawn import LINEAR
from tests.rules.dumps import FREE_PAGE, NOWHERE, PRESENT, facts_of, proven, verdict_about


def test_a_valid_section_without_subsections(dimm):
    codes, verdicts = dimm.caused({dimm.subsections(17): 0})
    assert "SEC-06" in codes
    assert proven(verdicts, "SEC-06", Severity.CRITICAL) == [(17 << 15, 18 << 15)]


def test_subsections_of_no_section(dimm):
    place, usage = dimm.section(NOWHERE)
    codes, verdicts = dimm.caused({place: PRESENT, usage: dimm.word(dimm.section(17)[1])})
    assert codes == {"SEC-06"}
    assert proven(verdicts, "SEC-06", Severity.HIGH) == [(NOWHERE << 15, NOWHERE + 1 << 15)]


def test_an_empty_map_of_no_section(dimm):
    place, usage = dimm.section(NOWHERE)
    codes, _ = dimm.caused({place: PRESENT, usage: LINEAR + FREE_PAGE}, {FREE_PAGE: bytes(4096)})
    assert codes == set()


def test_a_map_of_no_section_that_the_dump_does_not_hold_is_unknown(dimm):
    place, usage = dimm.section(NOWHERE)
    _, verdicts = dimm.caused({place: PRESENT, usage: LINEAR + FREE_PAGE}, missing=[FREE_PAGE])
    assert verdicts["SEC-06"].outcome is Outcome.UNDECIDED


def test_an_unread_map_of_boot_memory_decides_nothing(dimm):
    rows = dimm.facts.sections
    unread = replace(rows, subsections_known=rows.subsections_known & (rows.section_nr != 9))
    assert verdict_about("SEC-06", facts_of(dimm, unread)).outcome is Outcome.PASSED

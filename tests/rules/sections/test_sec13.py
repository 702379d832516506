"""SEC-13: A memory block that is offline stays although its memory was removed."""

from rules.finding import Severity
from tests.rules.dumps import proven


def test_an_offline_block_without_sections_lingers(dimm):
    _, verdicts = dimm.caused({dimm.block(19, "start_section_nr"): 30} | dimm.offline_block(19))
    assert proven(verdicts, "SEC-13", Severity.MEDIUM) == [(30 << 15, 31 << 15)]
    assert {one.hit.key for one in verdicts["SEC-02"].findings} == {"no block"}

"""SEC-07: A valid section has no usage map, or an invalid pointer to one."""

import pytest

from rules.engine import Outcome
from rules.finding import Severity
from tests.rules.drawn import LINEAR, VMEMMAP
from tests.rules.dumps import proven


@pytest.mark.parametrize("usage", [0, 0xDEAD000000000100, 0x6B6B6B6B6B6B6B6B, VMEMMAP, LINEAR - 8, LINEAR + (1 << 47)])
def test_a_valid_section_without_usage(dimm, usage):
    codes, verdicts = dimm.caused({dimm.section(17)[1]: usage})
    assert codes == {"SEC-07"}
    assert proven(verdicts, "SEC-07", Severity.CRITICAL) == [(17 << 15, 18 << 15)]
    assert verdicts["SEC-06"].outcome is (Outcome.UNDECIDED if usage else Outcome.PASSED)


@pytest.mark.parametrize("tag", [0x34, 0xF5, 0xFF])
def test_a_usage_pointer_may_have_a_tag(dimm, tag):
    usage = dimm.section(17)[1]
    codes, verdicts = dimm.caused({usage: dimm.word(usage) & ~(0xFF << 56) | tag << 56})
    assert codes == set()
    assert verdicts["SEC-07"].outcome is Outcome.PASSED


@pytest.mark.parametrize("usage", [LINEAR, LINEAR + (1 << 47) - 8])
def test_a_usage_pointer_at_an_end_of_the_linear_map(dimm, usage):
    codes, _ = dimm.caused({dimm.section(17)[1]: usage})
    assert codes == set()


def test_a_usage_map_that_the_dump_does_not_hold_is_unknown(dimm):
    _, verdicts = dimm.caused(missing=[dimm.subsections(17) & ~0xFFF])
    assert verdicts["SEC-06"].outcome is Outcome.UNDECIDED
    assert verdicts["SEC-07"].outcome is Outcome.PASSED

"""SEC-02: A memory block is listed whose memory is not mapped, has no struct pages, or is in another state."""

from dataclasses import replace

import pytest

from parsers.vmcore.rows import BlockRows, SectionRows
from rules.engine import Outcome
from rules.finding import Claim, Severity
from rules.model.captured import Captured, build_facts
from tests.rules.dumps import ONLINE, facts_of, proven, verdict_about


def test_a_block_is_online_and_its_section_is_not(dimm):
    codes, verdicts = dimm.caused(dimm.flags(18, take=ONLINE))
    assert codes == {"SEC-02"}
    assert proven(verdicts, "SEC-02", Severity.HIGH) == [(18 << 15, 19 << 15)]


def test_a_block_is_offline_and_its_section_is_not(dimm):
    codes, verdicts = dimm.caused(dimm.offline_block(18))
    assert codes == {"SEC-02", "MOM-09"}
    assert proven(verdicts, "SEC-02", Severity.HIGH) == [(18 << 15, 19 << 15)]


def test_a_section_that_is_not_present_does_not_count_in_its_block(dimm):
    """It is SEC-01's, whatever its flag says, and the block has no other section."""
    rows = facts_of(dimm).get(SectionRows)
    gone = rows.section_nr == 18
    for online in (rows.online, rows.online & ~gone):
        changed = facts_of(dimm, replace(rows, present=rows.present & ~gone, online=online))
        assert verdict_about("SEC-02", changed).outcome is Outcome.PASSED


def test_a_section_of_ram_without_a_block(dimm):
    """The block of section 19 stands for a section that does not exist."""
    codes, verdicts = dimm.caused({dimm.block(19, "start_section_nr"): 30})
    assert "SEC-02" in codes
    assert "SEC-13" not in codes
    lone = [one for one in verdicts["SEC-02"].findings if one.hit.key == "no block"]
    assert [one.hit.pfns.tuples() for one in lone] == [[(19 << 15, 20 << 15)]]
    stale = [one.hit for one in verdicts["SEC-02"].findings if "neither struct pages" in one.hit.title]
    assert [(one.claim, one.pfns.tuples()) for one in stale] == [(Claim.PROVEN, [(30 << 15, 31 << 15)])]


def test_an_offline_section_of_ram_without_a_block(dimm):
    _, verdicts = dimm.caused({dimm.block(19, "start_section_nr"): 30} | dimm.flags(19, take=ONLINE))
    lone = [one for one in verdicts["SEC-02"].findings if one.hit.key == "no block"]
    assert [one.hit.pfns.tuples() for one in lone] == [[(19 << 15, 20 << 15)]]


def test_online_memory_without_a_block_that_no_list_names(dimm):
    dump = replace(dimm.dump({dimm.block(9, "start_section_nr"): 30}), iomem=None)
    verdict = verdict_about("SEC-02", build_facts(Captured(vmcore=dump)))
    lone = [one.hit.pfns.tuples() for one in verdict.findings if one.hit.key == "no block"]
    assert lone == [[(9 << 15, 10 << 15)]]


@pytest.mark.parametrize("kind", ["BlockRows", "SectionRows", "SectionTable"])
def test_blocks_are_compared_with_tables_alone_where_structures_are_not_known(dimm, kind):
    assert verdict_about("SEC-02", facts_of(dimm), **{kind: None}).outcome is Outcome.PASSED


def test_a_kernel_without_blocks_has_none_missing(dimm):
    facts = facts_of(dimm)
    blocks = facts.get(BlockRows)
    columns = {name: value[:0] for name, value in vars(blocks).items() if hasattr(value, "__len__")}
    assert verdict_about("SEC-02", facts_of(dimm, replace(blocks, **columns))).outcome is Outcome.PASSED

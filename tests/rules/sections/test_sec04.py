"""SEC-04: System RAM without a memory block, or an online block without System RAM."""

import pytest

from rules.engine import Outcome
from rules.finding import Claim, Severity
from tests.rules.captures import DIMM, VULNERABLE, alarms, verdict_in
from tests.rules.drawn import BLOCK, memory_blocks
from tests.rules.linear_map.machines import with_more


@pytest.mark.parametrize("end", [b"System R", b"9fffff"], ids=["name", "address"])
def test_a_list_of_resources_that_ends_early_proves_no_absence(changed_capture, end):
    """The line of the hot-added memory is half there."""

    def upto(data):
        return data[: data.index(end, data.index(b"80000000-9fffffff : System RAM\n")) + len(end)]

    report = changed_capture(DIMM, iomem=upto)
    assert alarms(report) == set()
    assert verdict_in(report, "SEC-04").outcome is Outcome.UNDECIDED
    assert "cut short" in verdict_in(report, "SEC-04").reason


def test_a_list_that_lost_its_last_line_end_is_whole(changed_capture):
    report = changed_capture(DIMM, iomem=lambda data: data.rstrip(b"\n"))
    assert verdict_in(report, "SEC-04").outcome is Outcome.PASSED


def test_a_list_of_resources_that_begins_with_a_child_lost_its_head(changed_capture):
    report = changed_capture(DIMM, iomem=lambda data: data[data.index(b"  ") :])
    assert "cut short" in verdict_in(report, "SEC-04").reason


def test_a_list_of_resources_that_lost_the_parent_of_a_child_lost_lines(changed_capture):
    report = changed_capture(VULNERABLE, iomem=lambda data: data.replace(b"40000000-4c40ffff : System RAM\n", b""))
    assert "cut short" in verdict_in(report, "SEC-04").reason


BOTH = (8, 9, 10, 11, 12, 13, 14, 15)
"""The blocks of the RAM of a drawn machine."""


@pytest.mark.parametrize(
    ("blocks", "linear", "severity"),
    [
        ((*BOTH, 16), (0, 128), Severity.MEDIUM),
        ((*BOTH, 16), (), Severity.HIGH),
        (BOTH[:-1], (0, 128), Severity.MEDIUM),
    ],
    ids=["a block that is mapped", "a block that is not mapped", "RAM that is mapped"],
)
def test_two_lists_that_disagree_need_the_page_tables_to_say_which_is_wrong(tmp_path, blocks, linear, severity):
    more = ((*linear, "PMD", BLOCK),) if linear else ()
    above = ((256, 512, "Persistent Memory"),)  # the list does not end below the block
    machine = with_more(linear=more, iomem=above, files={"memory_blocks": memory_blocks(blocks)})
    (finding,) = machine.verdict(tmp_path, "SEC-04").findings
    wanted = Claim.PROBABLE if severity is Severity.HIGH else Claim.SUSPECTED
    assert (finding.severity, finding.hit.claim) == (severity, wanted)


def test_ram_that_is_in_no_block_and_not_mapped_is_a_remnant(tmp_path):
    machine = with_more(iomem=((0, 128, "System RAM"),), files={"memory_blocks": memory_blocks(BOTH)})
    (finding,) = machine.verdict(tmp_path, "SEC-04").findings
    assert (finding.severity, finding.hit.claim) == (Severity.HIGH, Claim.PROBABLE)

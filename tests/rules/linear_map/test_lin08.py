"""LIN-08: A block or contiguous run of the linear map covers addresses that are not memory."""

from __future__ import annotations

import pytest

from rules.engine import Outcome
from rules.finding import Claim, Severity
from tests.rules.drawn import BLOCK, GIB, MIB, NORMAL, RAM, Drawn
from tests.rules.linear_map.machines import all_pfns, mib, with_more


def test_blocks_that_reach_past_the_end_of_memory(tmp_path):
    """Two leaves that are partly memory; pages beside the end of memory reach past nothing."""
    linear = ((0, 4, "PMD", BLOCK), (4, 8, "PTE", NORMAL), (8, 10, "PMD", BLOCK))
    machine = with_more(linear=linear, iomem=((0, 3, "pmem0"), (4, 5, "pmem1"), (8, 9.5, "pmem2")))
    verdict = machine.verdict(tmp_path, "LIN-08")
    assert all_pfns(verdict) == [mib((3, 4)), mib((9.5, 10))]


def test_pages_that_reach_past_the_end_of_memory(tmp_path):
    """Blocks elsewhere: what is beyond the end is in pages, and so is what is before it."""
    linear = ((0, 2, "PTE", NORMAL), (2, 4, "PMD", BLOCK))
    machine = with_more(linear=linear, iomem=((0, 1, "pmem0"), (2, 4, "pmem1")))
    assert machine.verdict(tmp_path, "LIN-08").outcome is Outcome.PASSED


@pytest.mark.parametrize(
    ("boot", "severity", "claim"),
    [
        (((RAM, RAM + GIB - MIB),), Severity.HIGH, Claim.PROBABLE),
        (((RAM, RAM + GIB),), Severity.MEDIUM, Claim.SUSPECTED),  # the list has less than there was at boot
        ((), Severity.MEDIUM, Claim.SUSPECTED),
    ],
    ids=["the log has no more", "the log has more", "no log"],
)
def test_one_list_alone_does_not_prove_where_memory_ends(tmp_path, boot, severity, claim):
    iomem = ((RAM, RAM + GIB - MIB, "System RAM"),)
    verdict = Drawn(linear=((RAM, RAM + GIB, "PMD", BLOCK),), iomem=iomem, boot=boot).verdict(tmp_path, "LIN-08")
    assert [(one.severity, one.hit.claim) for one in verdict.findings] == [(severity, claim)]

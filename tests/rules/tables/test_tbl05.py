"""TBL-05: The page tables hold entries that are not a valid encoding, lead nowhere, or lead back."""

from __future__ import annotations

import pytest

from parsers.arm64 import PMD, PTE
from parsers.vmcore.faults import Fault
from rules.engine import Outcome
from rules.finding import Claim, Severity
from rules.tables.tbl05_malformed_entry import malformed_entry
from tests.rules.drawn import BLOCK, GIB, LINEAR, MIB, RAM, Drawn
from tests.rules.dumps import BLOCK_ENTRY, linear_address, struct_page_address, the_finding
from tests.rules.walked import PFN, REACH, a_table, at, judged, with_tables


@pytest.mark.parametrize(
    ("level", "flags", "outcome"),
    [
        ("PUD", BLOCK, Outcome.PASSED),
        ("PGD", BLOCK, Outcome.FIRED),
        ("PGD", f"F {BLOCK}", Outcome.PASSED),
    ],
)
def test_blocks_at_a_level_that_has_none(tmp_path, level, flags, outcome):
    """512 GiB: 512 blocks of level 1, or one of level 0, which 4K pages do not have."""
    end = RAM + 512 * GIB
    machine = Drawn(linear=((RAM, end, level, flags),), iomem=((RAM, end, "System RAM"),), boot=((RAM, end),))
    verdict = machine.verdict(tmp_path, "TBL-05")
    assert verdict.outcome is outcome


@pytest.mark.parametrize(
    ("fault", "pfn", "words"),
    [
        (Fault.RESERVED, at(-8), Fault.RESERVED.value),
        (Fault.RESERVED, PFN + REACH, Fault.RESERVED.value),
        (Fault.MISALIGNED, at(-8), Fault.MISALIGNED.value),
        (Fault.ELSEWHERE, at(-8), Fault.ELSEWHERE.value),
        (Fault.MISSING, PFN + REACH, "no memory can be"),
        (Fault.MISSING, PFN - 1, "no memory can be"),
        (Fault.MISSING, PFN + REACH - 1, None),
        (Fault.MISSING, PFN, None),
    ],
)
def test_entries_that_cannot_be_followed(layout, fault, pfn, words):
    known = with_tables(layout, [a_table(at(-8))], missing=(pfn,), fault=fault)
    found = judged(malformed_entry, known).findings
    assert [words in one.hit.title for one in found] == [True for _ in range(words is not None)]
    assert [(va.start, va.end) for one in found for va in one.hit.vas] == [(LINEAR, LINEAR + 2 * MIB) for _ in found]


def test_entries_that_are_not_a_valid_encoding(pmem):
    """A block in the root, a page with the type of a block, a block whose address is not a block's."""
    for va, level, value in (
        (0xFFFF700000000000, 0, 0x40000701),
        (0xFFFF8000810F4000, PTE, 0x41900701),
        (struct_page_address(0x40000), PMD, BLOCK_ENTRY | 0x4F801000),
    ):
        codes, verdicts = pmem.caused({pmem.entry(va, level): value})
        assert codes - {"VMM-09"} == {"TBL-05"}, hex(va)
        finding = the_finding(verdicts, "TBL-05")
        assert (finding.severity, finding.hit.claim) == (Severity.CRITICAL, Claim.PROVEN)
        assert finding.hit.evidence[0].address == pmem.entry(va, level)


def test_a_table_that_is_its_own_parent(pmem):
    entry = pmem.entry(linear_address(0x8000000000), 0)
    codes, verdicts = pmem.caused({entry: pmem.addresses.root_pa | 3})
    assert codes == {"TBL-05"}
    assert "another level" in the_finding(verdicts, "TBL-05").hit.message


def test_a_table_where_no_memory_can_be(pmem):
    codes, verdicts = pmem.caused({pmem.entry(struct_page_address(0xC0000), PMD): 0x0000F00000000003})
    assert codes == {"TBL-05"}
    assert "no memory can be" in the_finding(verdicts, "TBL-05").hit.title

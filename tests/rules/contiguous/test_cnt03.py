"""CNT-03: Struct pages are mapped with the Contiguous bit."""

from __future__ import annotations

import pytest

from parsers.arm64 import PMD, Attr
from rules.contiguous.cnt03_cont_in_vmemmap import contiguous_in_vmemmap
from rules.engine import Outcome
from tests.rules.drawn import MIB, VMEMMAP
from tests.rules.dumps import BLOCK_ENTRY, CONTIGUOUS, struct_page_address
from tests.rules.walked import MACHINE, NOT_VALID, PFN, VALID, facts, judged, row


@pytest.mark.parametrize(("attrs", "outcome"), [(VALID | Attr.CONT, Outcome.FIRED), (NOT_VALID, Outcome.PASSED)])
def test_contiguous_entries_of_struct_pages_count_when_they_are_valid(layout, attrs, outcome):
    known = facts(layout, [row(VMEMMAP, 16, PFN, attrs=attrs)], **MACHINE)
    assert judged(contiguous_in_vmemmap, known).outcome is outcome


def test_a_contiguous_bit_in_the_vmemmap_area(pmem):
    """All sixteen blocks of a run have it, which is what hot-add never does."""
    entry = pmem.entry(struct_page_address(0x100000), PMD)
    words = {entry + 8 * index: BLOCK_ENTRY | CONTIGUOUS | 0x48000000 + 2 * MIB * index for index in range(16)}
    codes, _ = pmem.caused(words)
    assert codes == {"CNT-03", "VMM-04"}

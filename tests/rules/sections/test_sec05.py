"""SEC-05: The memmap pointer of a valid section is not the vmemmap array."""

from dataclasses import replace

import numpy as np

from parsers.layout import KernelLayout
from parsers.vmcore.rows import SectionRows
from rules.engine import Outcome
from rules.finding import Severity
from tests.rules.dumps import facts_of, proven, verdict_about


def test_a_memmap_pointer_that_points_elsewhere(dimm):
    place, _ = dimm.section(17)
    codes, verdicts = dimm.caused({place: dimm.word(place) + (1 << 24)})
    assert codes == {"SEC-05"}
    assert proven(verdicts, "SEC-05", Severity.CRITICAL) == [(17 << 15, 18 << 15)]


def test_the_memmap_pointer_is_counted_from_pfn_0(dimm):
    """The same kernel with memory from 1 GiB on: the struct page of PFN 0 lies 16 MiB below the array."""
    facts = facts_of(dimm)
    rows, layout = facts.get(SectionRows), facts.get(KernelLayout)
    place = replace(layout.facts["phys_offset"], value=1 << 30)
    moved = replace(rows, section_mem_map=rows.section_mem_map - np.where(rows.has_memmap, np.uint64(1 << 24), 0))
    layout = replace(layout, facts={**layout.facts, "phys_offset": place})
    assert verdict_about("SEC-05", facts_of(dimm, moved, layout)).outcome is Outcome.PASSED


def test_all_memmap_pointers_elsewhere_put_the_layout_in_doubt(dimm):
    words = {}
    for number in dimm.facts.sections.section_nr.tolist():
        place, _ = dimm.section(number)
        words[place] = dimm.word(place) + (1 << 24)
    _, verdicts = dimm.caused(words)
    assert verdicts["SEC-05"].outcome is Outcome.UNDECIDED

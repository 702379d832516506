"""VMM-08: A section that was added whole has empty entries in the table under its struct pages."""

from __future__ import annotations

import re

import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from parsers.arm64 import PMD, PTE
from parsers.ranges import Ranges
from rules.engine import Outcome
from rules.vmemmap.vmm02_lost_struct_pages import lost_struct_pages
from rules.vmemmap.vmm08_populate_skipped import populate_skipped_under_table
from tests.cases import CAPTURES, case_file
from tests.rules.drawn import MIB, VMEMMAP, Drawn
from tests.rules.dumps import FREE_PAGE, PAGE_ENTRY, pfns_of, struct_page_address, the_finding
from tests.rules.patched import table_page
from tests.rules.traces import trace_verdict
from tests.rules.walked import NOTHING, PFN, SECTION, WHOLE, at, facts, judged, places, row, sections, struct_pages


def hole(section, page, pages, *, level=3):
    """Empty entries for the struct pages of some pages of a section."""
    return row(VMEMMAP + (at(section, page) - PFN) * 64, pages // 64, 0, level=level, attrs=NOTHING)


@pytest.mark.parametrize(
    ("rows", "machine", "skipped", "lost"),
    [
        ([hole(0, 64, 128)], WHOLE, [(at(0, 64), at(0, 192))], []),
        ([hole(0, 0, SECTION), hole(1, 0, SECTION)], WHOLE, [(at(0), at(2))], []),
        ([hole(0, 0, SECTION, level=2)], WHOLE, [], [(at(0), at(1))]),
        ([hole(0, 64, 128)], WHOLE | {"early": sections(0)}, [], []),
        ([hole(0, 64, 128)], WHOLE | {"valid": Ranges.one(at(0), at(0, 512))}, [], [(at(0, 64), at(0, 192))]),
        ([struct_pages(at(0), at(-1)), hole(1, 64, 64)], WHOLE, [(at(1, 64), at(1, 128))], []),
    ],
)
def test_struct_pages_that_were_never_populated(layout, rows, machine, skipped, lost):
    known = facts(layout, [*mapped_struct_pages(rows), *rows], **machine)
    assert places(judged(populate_skipped_under_table, known)) == skipped
    assert places(judged(lost_struct_pages, known)) == lost


def test_sections_that_were_never_populated_are_reported_one_by_one(layout):
    machine = {"valid": sections(0, 2), "possible": sections(0, 2), "hotadded": sections(0, 2)}
    known = facts(layout, [hole(0, 64, 64), hole(2, 64, 64)], **machine)
    found = [one.hit.pfns.tuples() for one in judged(populate_skipped_under_table, known).findings]
    assert found == [[(at(0, 64), at(0, 128))], [(at(2, 64), at(2, 128))]]


def mapped_struct_pages(rows):
    """Last-level entries for all struct pages of two sections that ``rows`` do not speak of."""
    spoken = Ranges.pairs((va - VMEMMAP, va - VMEMMAP + pages * 4096) for va, pages, *_ in rows)
    first = (at(0) - PFN) * 64
    every = Ranges.one(first, first + 4 * MIB) - spoken
    return [row(VMEMMAP + lo, (hi - lo) // 4096, at(-8)) for lo, hi in every.tuples()]


def test_what_is_valid_must_be_known_exactly(tmp_path):
    assert Drawn().verdict(tmp_path, "VMM-08").outcome is Outcome.UNDECIDED


def test_large_pages_have_no_blocks_of_struct_pages():
    moment = CAPTURES / "dimm-6.12-64k" / "02-dimm-online"
    (verdict,) = audit(Request((moment,)), only=("VMM-08",)).verdicts
    assert verdict.outcome is Outcome.NOT_APPLICABLE


def test_a_table_that_hot_add_took_for_a_block(dimm):
    entry = dimm.entry(struct_page_address(0x88000), PMD)
    page = PAGE_ENTRY | 0x88000000
    half = table_page({index: page + 4096 * index for index in range(256)})
    codes, verdicts = dimm.caused({entry: FREE_PAGE | 3}, {FREE_PAGE: half})
    assert codes == {"VMM-08", "VMM-07"}
    assert pfns_of(the_finding(verdicts, "VMM-08")) == [(0x8C000, 0x90000)]
    codes, verdicts = dimm.caused({entry: FREE_PAGE | 3}, {FREE_PAGE: table_page({})}, zeros_are_read=True)
    assert codes == {"VMM-08", "TBL-01"}
    assert pfns_of(the_finding(verdicts, "VMM-08")) == [(0x88000, 0x90000)]


def test_a_table_that_a_dump_has_zeros_for_proves_nothing(dimm):
    """A dump that left the page out looks the same; a running kernel says what it read."""
    entry = dimm.entry(struct_page_address(0x88000), PMD)
    codes, verdicts = dimm.caused({entry: FREE_PAGE | 3}, {FREE_PAGE: table_page({})})
    assert codes == set()
    assert verdicts["VMM-08"].outcome is Outcome.UNDECIDED


def test_a_page_of_struct_pages_that_was_never_mapped(mixed):
    codes, verdicts = mixed.caused({mixed.entry(struct_page_address(0x80000), PTE): 0})
    assert codes == {"VMM-08"}
    assert pfns_of(the_finding(verdicts, "VMM-08")) == [(0x80000, 0x80040)]


def changed_case(code, case, pattern, text):
    lines = case_file(f"{code}/{case}", "trace").read_text().splitlines()
    return "".join(f"{re.sub(pattern, text, line)}\n" for line in lines)


@pytest.mark.parametrize(
    ("pmd", "ret", "outcome"),
    [
        ("0xbfff7003", " ret=1", Outcome.FIRED),
        ("0xbfff7003", " ret=0", Outcome.UNDECIDED),
        ("0xbfff7003", "", Outcome.UNDECIDED),
        ("0xbfe00701", " ret=1", Outcome.UNDECIDED),  # a block
        ("0xbfff7002", " ret=1", Outcome.UNDECIDED),  # not valid
        ("", " ret=1", Outcome.UNDECIDED),
    ],
)
def test_a_table_that_is_taken_for_a_block(tmp_path, pmd, ret, outcome):
    text = changed_case("VMM-08", "fires-trace-alone", r" pmd=\w+", f" pmd={pmd}" if pmd else "")
    text = re.sub(r"(<- vmemmap_check_pmd\)) ret=\w+", rf"\1{ret}", text)
    assert trace_verdict(tmp_path, "VMM-08", text).outcome is outcome

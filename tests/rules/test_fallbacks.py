"""What a trace alone predicts: adds and removals to order, and traces of kernels with some lines changed."""

import re
from pathlib import Path

import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from rules.engine import Outcome
from tests.cases import case_file
from tests.rules.traces import Tracer

FIXTURES = Path(__file__).parents[2] / "fixtures" / "rules"
MIB = 1 << 20
BASE = 2 << 30
SECTION = 128
"""MiB of a section with 4K pages."""
BLOCKS = {"whole_sections_only": False}
"""Parts of sections are populated by blocks, as before d4234d131b0a."""
LARGE = {"page_size": 65536, "section": 512 * MIB}


def verdict_of(folder, code, text):
    (folder / "trace").write_text(text)
    (verdict,) = audit(Request((folder,)), only=[code]).verdicts
    assert verdict.outcome in {Outcome.FIRED, Outcome.UNDECIDED}, verdict.reason
    return verdict


def played(kernel, calls):
    """The trace of a kernel that adds and removes ranges of MiB."""
    tracer = Tracer(**kernel)
    for word, start, size in calls:
        {"+": tracer.add, "-": tracer.remove}[word](BASE + start * MIB, size * MIB)
    return tracer


def told(folder, code, tracer):
    """Titles, and page frames in MiB from where the memory begins."""
    unit = MIB // tracer.page_size
    return [
        (one.hit.title, [(lo // unit - BASE // MIB, hi // unit - BASE // MIB) for lo, hi in one.hit.pfns.tuples()])
        for one in verdict_of(folder, code, tracer.text).findings
    ]


# Who shares a leaf of struct pages ------------------------------------------------------------------------------------

ONE = "VMM-01: one PMD block maps the struct pages of part of a section"
SEVERAL = "VMM-01b: one PMD block maps the struct pages of part of a section"
LESS = "VMM-01c: part of a section is removed that was added whole"


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([("+", 0, 64), ("+", 64, 64)], [(SEVERAL, [(0, 128)])]),
        ([("+", 0, 64)], []),  # what the rest of the section is, nobody knows
        ([("+", 0, 32), ("+", 32, 32)], [(SEVERAL, [(0, 64)])]),
        ([("+", 0, 128)], []),
        ([("+", 0, 256)], []),
        ([("+", 0, 128), ("+", 128, 128)], []),
        ([("+", 0, 128), ("-", 0, 128), ("+", 128, 128)], []),
        ([("+", 0, 64), ("-", 0, 64), ("+", 64, 64)], [(ONE, [(64, 128)])]),
        ([("+", 0, 126), ("-", 0, 126), ("+", 126, 2)], [(ONE, [(126, 128)])]),
        ([("+", 0, 64), ("+", 64, 64), ("-", 0, 64)], []),  # the block is gone
        ([("+", 0, 128), ("-", 0, 64)], [(LESS, [(0, 64)])]),
        ([("+", 0, 256), ("-", 0, 128)], []),
    ],
)
def test_blocks_over_parts_of_sections(tmp_path, calls, expected):
    assert told(tmp_path, "VMM-01", played(BLOCKS, calls)) == expected


@pytest.mark.parametrize(
    ("kernel", "calls", "shared"),
    [
        ({}, [("+", 0, 128), ("+", 128, 128)], True),
        ({}, [("+", 0, 256)], False),
        ({}, [("+", 0, 128)], False),
        ({}, [("+", 64, 64), ("+", 128, 64)], False),  # in pages
        (BLOCKS, [("+", 0, 64), ("+", 64, 64)], False),  # of one section
        (BLOCKS, [("+", 0, 120), ("+", 120, 8), ("+", 128, 128), ("-", 128, 128)], False),  # the block is gone
    ],
)
def test_blocks_that_reach_over_the_edge_of_a_section(tmp_path, kernel, calls, shared):
    """struct page has 80 bytes: two sections fill two and a half blocks each."""
    titles = [title for title, _ in told(tmp_path, "VMM-05", played(kernel | {"struct_page": 80}, calls))]
    assert titles == ["One PMD block maps struct pages of two sections"] * shared


@pytest.mark.parametrize(
    ("kernel", "calls", "expected"),
    [
        (LARGE, [("+", 0, 16), ("+", 16, 16)], [(0, 64)]),
        (LARGE, [("+", 0, 16)], []),
        (LARGE, [("+", 0, 64), ("+", 64, 16)], []),
        ({}, [("+", 0, 2), ("+", 2, 2)], []),
    ],
)
def test_pages_of_struct_pages_that_are_shared(tmp_path, kernel, calls, expected):
    found = told(tmp_path, "VMM-06", played(kernel, calls))
    assert [one for _, ranges in found for one in ranges] == expected


def test_the_last_of_those_who_share_did_it(tmp_path):
    tracer = played(BLOCKS, [("+", 0, 64), ("+", 64, 64)])
    (finding,) = verdict_of(tmp_path, "VMM-01", tracer.text).findings
    assert "0x84000000" in finding.hit.cause.what
    assert sum("start=0x80000000" in one.text for one in finding.hit.evidence) == 1


# Whole sections in pages ----------------------------------------------------------------------------------------------


def in_pages(*calls):
    """As on a machine without a free block: the struct pages of whole sections are populated page by page."""
    tracer = played({}, calls)
    tracer.lines = [
        line.replace("mhp_vmm_huge", "mhp_vmm_base").replace("populate_hugepages", "populate_basepages")
        for line in tracer.lines
    ]
    return tracer


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([("+", 0, 128)], [(0, 128)]),
        ([("+", 0, 256)], [(0, 256)]),
        ([("+", 0, 64), ("+", 64, 64)], []),
        ([("+", 0, 64)], []),
        ([("+", 0, 128), ("-", 0, 128)], []),
        ([("+", 0, 128), ("+", 128, 64)], [(0, 128)]),
    ],
)
def test_sections_that_fell_back_to_pages(tmp_path, calls, expected):
    found = told(tmp_path, "VMM-07", in_pages(*calls))
    assert [one for _, ranges in found for one in ranges] == expected
    assert told(tmp_path, "VMM-07", played({}, calls)) == []


def test_pages_of_struct_pages_of_nothing_are_no_fallback(tmp_path):
    """The section was removed, and its struct pages are populated without it."""
    tracer = in_pages(("+", 0, SECTION), ("-", 0, SECTION))
    tracer.populate(*tracer.pages(BASE, SECTION * MIB), 0)
    tracer.lines = [line.replace("huge", "base") for line in tracer.lines]
    assert told(tmp_path, "VMM-07", tracer) == []


# Calls ----------------------------------------------------------------------------------------------------------------


def changed(code, case, pattern, text):
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
    text = changed("VMM-08", "fires-trace-alone", r" pmd=\w+", f" pmd={pmd}" if pmd else "")
    text = re.sub(r"(<- vmemmap_check_pmd\)) ret=\w+", rf"\1{ret}", text)
    assert verdict_of(tmp_path, "VMM-08", text).outcome is outcome


def unmap(flushes, free):
    """An unmapping with so many invalidations."""
    tracer = Tracer()
    what = f"addr=0xffff000080000000 end=0xffff000090000000 free={free} altmap=0x0"
    tracer.event("unmap", "unmap_hotplug_range", what)
    for number in range(flushes):
        tracer.event("tlbi_va1", "unmap_hotplug_range", f"op={0xFF000080000 + number:#x}")
    tracer.event("unmap_ret", "unmap_hotplug_range", "")
    return tracer.text


@pytest.mark.parametrize(
    ("flushes", "free", "outcome"),
    [
        (2, 0, Outcome.FIRED),
        (1, 0, Outcome.UNDECIDED),
        (0, 0, Outcome.UNDECIDED),
        (2, 1, Outcome.UNDECIDED),  # struct pages
    ],
)
def test_a_linear_map_that_is_flushed_entry_by_entry(tmp_path, flushes, free, outcome):
    assert verdict_of(tmp_path, "CNT-04", unmap(flushes, free)).outcome is outcome


def test_the_first_of_the_live_changes_is_quoted(tmp_path):
    text = case_file("CNT-06/fires-trace-alone", "trace").read_text()
    (finding,) = verdict_of(tmp_path, "CNT-06", text).findings
    assert finding.hit.message.startswith("3 changes, ")
    assert "1.887740: hvo_pte: " in finding.hit.evidence[0].text

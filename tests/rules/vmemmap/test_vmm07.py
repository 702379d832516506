"""VMM-07: Hot-added sections have their struct pages in base pages instead of a 2 MiB block."""

from __future__ import annotations

import pytest

from parsers.arm64 import Attr
from rules.engine import Outcome
from rules.vmemmap.vmm07_mixed_granularity import mixed_granularity
from tests.rules.captures import findings, outcome
from tests.rules.drawn import MIB
from tests.rules.traces import TRACED_BASE, played_trace, predicted
from tests.rules.walked import MACHINE, UNKNOWN, VALID, at, facts, judged, sections, struct_pages, units


@pytest.mark.parametrize(
    ("level", "attrs", "changes", "outcome"),
    [
        (3, VALID, {}, Outcome.FIRED),
        (3, VALID | Attr.RDONLY, {}, Outcome.PASSED),  # the HugeTLB optimisation's
        (2, VALID, {}, Outcome.PASSED),
        (2, VALID, {"valid": UNKNOWN}, Outcome.PASSED),
        (3, VALID, {"valid": UNKNOWN, "hotadded": sections(1), "block_units": units(1)}, Outcome.UNDECIDED),
    ],
)
def test_which_struct_pages_in_base_pages_are_a_fallback(layout, level, attrs, changes, outcome):
    known = facts(layout, [struct_pages(at(0), at(0), level=level, attrs=attrs)], **MACHINE | changes)
    assert judged(mixed_granularity, known).outcome is outcome


SECTION_MIB = 128
"""MiB of a section with 4K pages."""


def in_pages(*calls):
    """As on a machine without a free block: the struct pages of whole sections are populated page by page."""
    tracer = played_trace({}, calls)
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
    found = predicted(tmp_path, "VMM-07", in_pages(*calls))
    assert [one for _, ranges in found for one in ranges] == expected
    assert predicted(tmp_path, "VMM-07", played_trace({}, calls)) == []


def test_pages_of_struct_pages_of_nothing_are_not_a_fallback(tmp_path):
    """The section was removed, and its struct pages are populated without it."""
    tracer = in_pages(("+", 0, SECTION_MIB), ("-", 0, SECTION_MIB))
    tracer.populate(*tracer.pages(TRACED_BASE, SECTION_MIB * MIB), 0)
    tracer.lines = [line.replace("huge", "base") for line in tracer.lines]
    assert predicted(tmp_path, "VMM-07", tracer) == []


def test_fallback_to_base_pages_is_counted_by_section() -> None:
    (finding,) = findings("fallback-6.12-4k/02-dimm-online", "VMM-07")
    assert finding.sections == (16, 17, 19, 20, 22)
    assert outcome("fallback-6.12-4k/04-dimm-removed", "VMM-07") is Outcome.PASSED

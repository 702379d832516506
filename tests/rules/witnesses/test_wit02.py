"""WIT-02: The page tables that the kernel printed are not those in the crash dump."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from parsers.arm64 import Attr
from parsers.ranges import Ranges
from rules.engine import Outcome
from rules.model.memory.regions import LinearMap, Vmemmap
from rules.model.memory.snapshots import PrintedTables
from tests.cases import FIXTURES
from tests.rules.witnesses.compare import differing_tables
from tests.rules.witnesses.facts import CORES, facts_of_core, titles, verdict_in, verdict_with


@pytest.mark.parametrize("core", CORES, ids=lambda path: path.name)
def test_printed_and_walked_tables_agree_on_every_byte(core):
    report = facts_of_core(core)
    assert report.facts.get(PrintedTables) is not None
    assert differing_tables(report.facts) == {}
    assert verdict_in(report, "WIT-02").outcome is Outcome.PASSED


def printed_as(facts, **columns):
    """The printed tables with other columns, or read less far."""
    mapping = replace(facts.get(PrintedTables).mapping, **columns)
    layout = facts.get(LinearMap).layout
    return PrintedTables(mapping, LinearMap.of(mapping, layout), Vmemmap.of(mapping, layout))


def walked_as(facts, **columns):
    """The same of the walked tables."""
    mapping = replace(facts.get(LinearMap).mapping, **columns)
    layout = facts.get(LinearMap).layout
    return LinearMap.of(mapping, layout), Vmemmap.of(mapping, layout)


@pytest.mark.parametrize("name", ["linear", "vmemmap"])
def test_a_printed_hole_that_the_dump_does_not_have_is_reported(facts, name):
    printed = facts.get(PrintedTables)
    region = getattr(printed, name)
    last = np.flatnonzero(region.valid)[-1]
    attrs = printed.mapping.attrs.copy()
    attrs[region.rows[last]] = 0
    verdict_in = verdict_with("WIT-02", facts, printed_as(facts, attrs=attrs))
    assert titles(verdict_in) == [f"The {name} area is mapped in the crash dump only"]
    (hit,) = (one.hit for one in verdict_in.findings)
    hole = Ranges.one(int(region.start[last]), int(region.end[last]))
    assert hit.vas == region.va_ranges(hole)
    assert hit.pfns == region.pfns(region.pages(hole))


def test_a_hole_in_the_dump_that_was_not_printed_is_reported(facts):
    linear = facts.get(LinearMap)
    attrs = linear.mapping.attrs.copy()
    attrs[linear.rows[linear.valid][-1]] = 0
    verdict_in = verdict_with("WIT-02", facts, *walked_as(facts, attrs=attrs))
    assert titles(verdict_in) == ["The linear area is mapped in the page-table dump only"]


@pytest.mark.parametrize(("level", "name"), [(2, "blocks"), (3, "pages")])
def test_a_leaf_of_another_size_is_reported(facts, level, name):
    other, other_name = {2: (1, "large blocks"), 3: (2, "blocks")}[level]
    printed = facts.get(PrintedTables)
    rows = printed.linear.rows[printed.linear.valid & (printed.linear.level == level)]
    changed = printed.mapping.level.copy()
    changed[rows[0]] = other
    assert set(titles(verdict_with("WIT-02", facts, printed_as(facts, level=changed)))) == {
        f"The linear area is mapped by {name} in the crash dump only",
        f"The linear area is mapped by {other_name} in the page-table dump only",
    }


def test_what_one_of_them_does_not_show_is_not_compared(facts):
    """The printed dump ends within the struct pages; the walk lacks a table of them."""
    printed, vmemmap = facts.get(PrintedTables), facts.get(Vmemmap)
    for make, mapping in ((printed_as, printed.mapping), (walked_as, vmemmap.mapping)):
        kept = mapping.start < np.uint64(vmemmap.base)
        changed = make(
            facts,
            attrs=np.where(kept, mapping.attrs, 0).astype(np.uint16),
            observed_start=mapping.start[:1],
            observed_last=np.array([vmemmap.base - 1], dtype=np.uint64),
        )
        verdict_in = verdict_with("WIT-02", facts, *(changed if isinstance(changed, tuple) else (changed,)))
        assert titles(verdict_in) == []


TEXT = (0xFFFF800080010000, 0xFFFF800080700000)
"""The kernel's text in the dump; a trampoline follows it."""


def test_text_that_lost_its_right_to_execute_is_reported(facts):
    walked = facts.get(LinearMap).mapping
    verdict_in = verdict_with("WIT-02", facts, *walked_as(facts, attrs=walked.attrs | np.uint16(Attr.PXN)))
    assert titles(verdict_in) == ["The kernel's text is mapped otherwise in the page-table dump and in the crash dump"]
    assert [(one.start, one.end) for one in verdict_in.findings[0].hit.vas] == [TEXT]


def test_text_that_is_not_mapped_at_all_is_reported(facts):
    """Its rows keep their attributes; what is not valid does not translate."""
    walked = facts.get(LinearMap).mapping
    text = (walked.attrs & np.uint16(Attr.PXN)) == 0
    attrs = np.where(text, walked.attrs & ~np.uint16(Attr.VALID), walked.attrs)
    assert len(titles(verdict_with("WIT-02", facts, *walked_as(facts, attrs=attrs)))) == 1


def test_a_page_of_a_module_that_comes_and_goes_is_not_reported(facts):
    mapping = facts.get(PrintedTables).mapping
    behind = (mapping.start >= np.uint64(TEXT[1])) & (mapping.start < np.uint64(facts.get(Vmemmap).base))
    page = np.flatnonzero(behind & mapping.valid & (mapping.last - mapping.start == 4095))[-1]
    attrs = mapping.attrs.copy()
    attrs[page] &= ~np.uint16(Attr.PXN)
    assert titles(verdict_with("WIT-02", facts, printed_as(facts, attrs=attrs))) == []


def test_one_witness_has_nothing_to_be_compared_with():
    report = audit(Request((FIXTURES / "captures" / "dimm-6.12" / "02-dimm-online",)), only=("WIT",))
    assert {verdict_in(report, code).outcome for code in ("WIT-02", "WIT-03")} == {Outcome.NOT_APPLICABLE}

"""WIT-03: The memory that /proc/iomem and sysfs list is not the memory that mem_section holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from parsers.ranges import Ranges
from rules.engine import Outcome
from rules.model.memory.sections import SectionTable
from rules.model.memory.snapshots import ListedSections
from tests.rules.witnesses.compare import differing_lists
from tests.rules.witnesses.facts import CORES, facts_of_core, titles, verdict_in, verdict_with


@pytest.mark.parametrize("core", CORES, ids=lambda path: path.name)
def test_iomem_and_section_table_agree_on_every_page(core):
    report = facts_of_core(core)
    assert report.facts.get(ListedSections) is not None
    assert differing_lists(report.facts) == {}
    outcome = verdict_in(report, "WIT-03")
    assert outcome.outcome is Outcome.UNDECIDED
    assert "sysfs" in outcome.reason


def test_lists_and_sections_that_agree_are_not_reported(facts, known):
    assert verdict_with("WIT-03", facts, known).outcome is Outcome.PASSED


def a_section(sections):
    start = int(sections.valid.shrink(sections.pages_per_section).start[0])
    return Ranges.one(start, start + sections.pages_per_section)


@pytest.mark.parametrize("what", ["valid", "online"])
def test_memory_that_only_one_of_them_has_is_reported(facts, known, what):
    sections = facts.get(SectionTable)
    first = a_section(sections)
    fewer = {what: getattr(sections, what) - first} | (
        {"possible": sections.possible - first} if what == "valid" else {}
    )
    verdict_in = verdict_with("WIT-03", facts, known, replace(sections, **fewer))
    assert titles(verdict_in) == [f"Memory is {what} in the lists only"]
    table = known.table
    listed = {what: getattr(table, what) - first} | ({"possible": table.possible - first} if what == "valid" else {})
    other = verdict_with("WIT-03", facts, ListedSections(replace(table, **listed)))
    assert titles(other) == [f"Memory is {what} in the section table only"]
    for one in (verdict_in, other):
        (finding,) = one.findings
        assert finding.hit.pfns == first & getattr(table, what)


def test_sections_that_the_dump_leaves_open_are_not_reported(facts, known):
    sections = facts.get(SectionTable)
    first = a_section(sections)
    unknown = replace(sections, valid=sections.valid - first, online=sections.online - first)
    assert verdict_with("WIT-03", facts, known, unknown).outcome is Outcome.PASSED


def test_memory_that_the_lists_do_not_exclude_is_not_reported(facts, known):
    table = replace(known.table, valid=known.table.valid - a_section(facts.get(SectionTable)))
    assert verdict_with("WIT-03", facts, ListedSections(table)).outcome is Outcome.PASSED

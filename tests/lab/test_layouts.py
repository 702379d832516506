"""Cores of kernels with other layouts: KASAN's shadow, tagged pointers, struct pages that are shared."""

from __future__ import annotations

from pathlib import Path

import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from rules.finding import Severity
from rules.model.memory.sections import SectionTable

VMCORE = Path(__file__).parents[2] / "fixtures/vmcore"
TAGS, SHARED = (VMCORE / f"{name}.core.zst" for name in ("dimm-7.3-software-tags", "hvo-7.3-kasan-allocated"))


@pytest.fixture(scope="module", params=[TAGS, SHARED], ids=lambda path: path.name)
def audited(request):
    """The core and the report on it."""
    return request.param, audit(Request((request.param,)))


def outcomes(report, *codes):
    return {one.rule.code: str(one.outcome) for one in report.verdicts if one.rule.code in codes}


def test_nothing_but_what_is_there_is_found(audited):
    core, report = audited
    grave = {one.rule.code for one in report.findings if one.severity >= Severity.MEDIUM}
    assert grave == ({"HVO-01"} if core == SHARED else set())
    assert not report.failed
    tables = outcomes(report, "ATT-01", "ATT-03", "CNT-01", "ENV-03", "TBL-05", "VMM-02")
    assert set(tables.values()) == {"passed"}, tables


def test_section_table_is_read_through_tagged_pointers():
    sections = audit(Request((TAGS,))).facts.known[SectionTable]
    assert sections.valid.tuples() == [(0, 0x8000), (0x40000, 0x60000), (0x108000, 0x110000)]
    assert sections.online.tuples() == [(0, 0x8000), (0x40000, 0x60000)]


def test_shared_struct_pages_are_those_of_huge_pages():
    assert outcomes(audit(Request((SHARED,))), "HVO-01", "HVO-02", "HVO-03", "HVO-04") == {
        "HVO-01": "fired", "HVO-02": "passed", "HVO-03": "passed", "HVO-04": "passed",
    }  # fmt: skip

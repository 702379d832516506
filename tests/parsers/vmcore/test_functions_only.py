"""A stock kernel whose symbols are not in the dump (Debian 11's 5.10): what its exported variables lead to."""

from __future__ import annotations

import numpy as np
import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from parsers.iomem import parse_iomem
from parsers.vmcore.dump import Dump
from parsers.vmcore.extract import distill, extract
from parsers.vmcore.opening import open_dump
from rules.finding import Severity
from tests.parsers.vmcore.conftest import FIXTURES

CORE = FIXTURES / "boot-5.10.core.zst"


@pytest.fixture(scope="module")
def facts():
    return extract(CORE)


def test_its_symbols_name_neither_functions_nor_variables():
    dump = Dump(open_dump(CORE))
    assert not dump.has_symbols
    assert dump.symbol("memory_blocks") is None
    assert dump.symbol("iomem_resource") is not None
    assert dump.symbol("contig_page_data") is None


def test_the_resources_are_those_of_proc_iomem(facts):
    text = parse_iomem(CORE.with_name("boot-5.10.iomem").read_bytes(), "iomem")
    assert facts.iomem.name == text.name
    for column in ("start", "last", "depth", "parent"):
        assert np.array_equal(getattr(facts.iomem, column), getattr(text, column)), column


def test_blocks_and_zones_are_those_of_sysfs_and_proc_zoneinfo(facts):
    assert facts.blocks.start_section_nr.tolist() == [0, 1]
    assert facts.blocks.state == ("online", "online")
    rows = (facts.zones.name, facts.zones.start_pfn.tolist(), facts.zones.spanned.tolist())
    assert rows == (("DMA",), [16384], [442368])
    assert facts.zones.max_pfn is None


def test_a_small_core_of_it_holds_all_that_the_search_needs(facts, tmp_path):
    distill(CORE, tmp_path / "small.core")
    again = extract(tmp_path / "small.core")
    assert again.iomem.name == facts.iomem.name
    assert again.blocks.state == facts.blocks.state
    assert again.texts.kernel_release.raw == facts.texts.kernel_release.raw


def test_an_audit_of_its_dump_is_not_blind():
    report = audit(Request((CORE,)))
    assert report.overall.state == "clean"
    assert {one.severity for one in report.findings} == {Severity.INFO}

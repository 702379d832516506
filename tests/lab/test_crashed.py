"""A kernel as Debian released it that lost struct pages and crashed: every evidence of it says the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from parsers.layout import KernelLayout
from rules.finding import Claim, Severity

FIXTURES = Path(__file__).parents[2] / "fixtures"
TEXT = FIXTURES / "crashed/pmem-7.3-16k"
CORE = FIXTURES / "crashed/pmem-7.3-16k.core.zst"
LOST = [(0x20480, 0x20500)]


@pytest.fixture(scope="module")
def crashed():
    return audit(Request((CORE,)))


def grave(report):
    return {one.rule.code: one for one in report.findings if one.severity >= Severity.HIGH}


def test_the_crash_dump_has_the_damage_and_the_oops(crashed):
    found = grave(crashed)
    assert set(found) == {"VMM-02", "OOP-02"}
    assert found["VMM-02"].hit.claim is Claim.PROVEN
    assert found["VMM-02"].hit.pfns.tuples() == LOST
    assert "memunmap_pages+0x144/0x230" in found["OOP-02"].hit.message
    assert "PFN 0x20480" in found["OOP-02"].hit.message


def test_text_that_was_collected_before_the_crash_says_the_same():
    found = grave(audit(Request((TEXT,))))
    assert set(found) == {"VMM-02", "TRC-07"}
    assert all(one.hit.pfns.tuples() == LOST for one in found.values())


def test_text_and_dump_together_are_one_incident(crashed):
    (alone,) = [one for one in crashed.incidents if one.severity >= Severity.HIGH]
    (both,) = [one for one in audit(Request((TEXT, CORE))).incidents if one.severity >= Severity.HIGH]
    assert alone.id == both.id


def test_addresses_of_52_bits_that_run_with_47(crashed):
    layout = crashed.facts.known[KernelLayout]
    assert (layout.page_size, layout.need("va_bits"), layout.need("va_bits_actual")) == (16384, 52, 47)

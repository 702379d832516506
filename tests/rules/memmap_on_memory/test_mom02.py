"""MOM-02: A block that should hold its own struct pages has them in other removable memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from parsers.arm64 import PMD
from parsers.vmcore.rows import BlockRows
from rules.engine import Outcome
from rules.facts import Facts
from rules.finding import Severity
from rules.memmap_on_memory.mom02_foreign_altmap import foreign_altmap
from rules.model.captured import Captured, build_facts
from tests.rules.drawn import MIB, VMEMMAP
from tests.rules.dumps import FREE_PAGE, SELF_HOSTED, proven, struct_page_address, the_finding, verdict_about
from tests.rules.patched import table_page
from tests.rules.walked import MACHINE, SECTION, at, block_rows, facts, judged, sections, struct_pages

HOSTS = {"nr_vmemmap_pages": [0] * 8 + [512, 512, 0]}
"""Of the three blocks after the boot memory, the first two hold their own struct pages."""


@pytest.mark.parametrize(
    ("describes", "stored", "expected"),
    [
        (0, at(0), []),
        (0, at(0, 512), [Severity.CRITICAL]),
        (0, at(0, SECTION - 512), [Severity.CRITICAL]),
        (0, at(1), [Severity.HIGH]),
        (1, at(0, SECTION - 512), [Severity.HIGH]),
        (1, at(2), [Severity.CRITICAL]),  # offline
        (1, at(-8), []),
        (1, at(1), []),
        (-8, at(1, 512), []),
        (-1, at(1, 512), []),
        (2, at(1, 512), []),
        (4, at(1, 512), []),
    ],
)
def test_where_blocks_with_struct_pages_of_their_own_have_them(layout, describes, stored, expected):
    known = facts(layout, [struct_pages(at(describes), stored)], block_rows(**HOSTS), **MACHINE)
    verdict = judged(foreign_altmap, known)
    assert verdict.reason == ""
    assert [one.severity for one in verdict.findings] == expected
    found = [one for finding in verdict.findings for one in finding.hit.pfns.tuples()]
    assert found == [(at(describes), at(describes + 1)) for _ in expected]


def test_struct_pages_in_their_own_block_that_is_gone(layout):
    """They are MOM-03's."""
    machine = MACHINE | {"hotadded": sections(1, 2, 4, 5)}
    known = facts(layout, [struct_pages(at(0), at(0, 512))], block_rows(**HOSTS), **machine)
    assert judged(foreign_altmap, known).outcome is Outcome.PASSED


def test_a_self_hosted_block_is_judged_by_its_own_rules(dimm):
    entry = dimm.entry(struct_page_address(0x88000), PMD)
    for target, code in ((0x90200000, "MOM-02"), (0xB0000000, "MOM-03")):
        codes, _ = dimm.caused({entry: dimm.word(entry) - 0x88000000 + target})
        assert codes == {code}


@pytest.mark.parametrize(
    ("pa", "more", "severity", "words"),
    [
        (0x88200000, (), Severity.CRITICAL, "the allocator owns"),
        (0x88200000, (17,), Severity.CRITICAL, "the allocator owns"),
        (0x80200000, (), Severity.HIGH, "other hot-added memory"),
        (0x90200000, (), Severity.HIGH, "other hot-added memory"),
        (0x90200000, (18,), Severity.CRITICAL, "which is offline"),
    ],
)
def test_struct_pages_of_a_self_hosted_block_in_other_memory(dimm, pa, more, severity, words):
    damage = dimm.struct_pages_at(17, pa)
    for number in more:
        damage |= dimm.offline(number)
    codes, verdicts = dimm.caused(damage)
    assert codes - {"MOM-09"} == {"MOM-02"}
    assert proven(verdicts, "MOM-02", severity) == [(17 << 15, 18 << 15)]
    assert words in the_finding(verdicts, "MOM-02").hit.message


@pytest.mark.parametrize("number", [16, 19])
def test_struct_pages_of_the_first_and_of_the_last_self_hosted_block(dimm, number):
    _, verdicts = dimm.caused(dimm.struct_pages_at(number, 0x90200000))
    assert proven(verdicts, "MOM-02", Severity.HIGH) == [(number << 15, number + 1 << 15)]


@pytest.mark.parametrize("number", [9, 17, 19])
def test_struct_pages_of_a_block_that_holds_none(dimm, number):
    """Before, between and after those that do."""
    dump = dimm.dump(dimm.struct_pages_at(number, 0x90200000))
    facts = build_facts(Captured(vmcore=dump))
    blocks = facts.get(BlockRows)
    known = dict(facts.known)
    known[BlockRows] = replace(
        blocks, nr_vmemmap_pages=np.where(blocks.start_section_nr == number, 0, blocks.nr_vmemmap_pages)
    )
    assert verdict_about("MOM-02", Facts(known, facts.missing)).outcome is Outcome.PASSED


def test_struct_pages_across_an_online_and_an_offline_block(dimm):
    """One run of pages, half in block 18 and half in block 19, which is offline."""
    first = (19 << 27) - MIB
    page = {index: 0xE8000000000703 + first + 4096 * index for index in range(512)}
    entry = dimm.entry(VMEMMAP + 64 * (17 << 15), PMD)
    _, verdicts = dimm.caused({entry: FREE_PAGE | 3} | dimm.offline(19), {FREE_PAGE: table_page(page)})
    found = {(one.severity, tuple(one.hit.pfns.tuples())) for one in verdicts["MOM-02"].findings}
    half = (17 << 15) + (1 << 14)
    assert found == {
        (Severity.HIGH, ((17 << 15, half),)),
        (Severity.CRITICAL, ((half, 18 << 15),)),
    }


def test_self_hosted_struct_pages_in_boot_memory_stay(dimm):
    codes, _ = dimm.caused(dimm.struct_pages_at(17, 0x4F000000))
    assert not codes & set(SELF_HOSTED)

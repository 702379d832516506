"""LIN-01: The linear map still maps page frames of memory that is gone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from parsers.ranges import Ranges as PfnRanges
from rules.engine import Outcome, builtin_rules, run
from rules.facts import Facts
from rules.finding import Claim, Severity
from rules.model.memory.sections import SectionTable
from tests.rules.captures import report_of
from tests.rules.drawn import BLOCK, NORMAL, memory_blocks
from tests.rules.linear_map.machines import all_pfns, at, mib, with_more


def test_leaves_of_every_size_are_kept_by_a_byte_and_gone_without(tmp_path):
    """Blocks and pages side by side: what one keeps does not concern the other."""
    linear = ((0, 2, "PMD", BLOCK), (2, 4, "PTE", NORMAL), (4, 6, "PMD", BLOCK), (6, 8, "PTE", NORMAL))
    verdict = with_more(linear=linear, iomem=((0, 1, "pmem0"), (2, 3, "pmem1"))).verdict(tmp_path, "LIN-01")
    assert all_pfns(verdict) == [mib((3, 8))]
    verdict = with_more(linear=linear, iomem=((3, 4, "pmem0"), (5, 7, "pmem1"))).verdict(tmp_path, "LIN-01")
    assert all_pfns(verdict) == [mib((0, 3)), mib((7, 8))]


@pytest.mark.parametrize(
    ("claim", "outcome"),
    [
        ("  namespace0.0", Outcome.PASSED),  # smaller than a subsection: it has no struct pages, and is claimed
        ("", Outcome.FIRED),
    ],
)
def test_memory_that_a_driver_claims_is_not_gone(tmp_path, claim, outcome):
    iomem = ((0, 16, "Persistent Memory"), *([(0, 1, claim)] if claim else []))
    verdict = with_more(linear=((0, 1, "PTE", NORMAL),), iomem=iomem).verdict(tmp_path, "LIN-01")
    assert verdict.outcome is outcome
    assert [(one.hit.key, one.severity, one.hit.claim) for one in verdict.findings] == [
        ("unclaimed", Severity.MEDIUM, Claim.SUSPECTED) for _ in range(outcome is Outcome.FIRED)
    ]


def test_no_map_memory_is_not_gone(tmp_path):
    """That it is mapped is LIN-07's."""
    report = with_more(linear=((0, 2, "PMD", BLOCK),), iomem=((0, 2, "reserved"),)).audit(tmp_path)
    outcomes = {one.rule.code: one.outcome for one in report.verdicts}
    assert (outcomes["LIN-01"], outcomes["LIN-07"]) == (Outcome.PASSED, Outcome.FIRED)


def test_memory_of_a_container_that_is_ram_again_is_not_gone(tmp_path):
    iomem = ((0, 128, "Soft Reserved"), (0, 128, "  dax0.0"), (0, 128, "    System RAM (kmem)"))
    verdict = with_more(linear=((0, 128, "PMD", BLOCK),), iomem=iomem).verdict(tmp_path, "LIN-01")
    assert verdict.outcome is Outcome.PASSED


def test_an_online_block_that_iomem_does_not_list_is_not_gone(tmp_path):
    blocks = {"memory_blocks": memory_blocks((*range(8, 16), 16))}
    machine = with_more(linear=((0, 256, "PMD", BLOCK),), files=blocks)
    assert all_pfns(machine.verdict(tmp_path, "LIN-01")) == [mib((128, 256))]


def test_ram_whose_section_is_not_valid_is_not_memory_that_no_driver_claims() -> None:
    facts = report_of("dimm-6.12/02-dimm-online").facts
    sections = facts.get(SectionTable)
    assert sections is not None
    less = replace(sections, valid=sections.valid - PfnRanges.one(0x88000, 0x90000))
    rule = next(one for one in builtin_rules() if one.code == "LIN-01")
    (verdict,) = run([rule], Facts({**facts.known, SectionTable: less}, facts.missing))
    assert (verdict.outcome, verdict.findings) == (Outcome.PASSED, ())


def test_memory_with_struct_pages_is_missing_in_the_list_rather_than_gone(tmp_path):
    """Hot-remove takes both; a copy of /proc/iomem loses lines."""
    linear = ((0, 128, "PMD", BLOCK), (128, 256, "PMD", BLOCK))
    machine = with_more(linear=linear)
    first = replace(machine, pages=(*machine.pages, (at(0), at(128), "PMD", BLOCK)))
    verdict = first.verdict(tmp_path, "LIN-01")
    assert [(one.hit.pfns.tuples(), one.severity, one.hit.claim) for one in verdict.findings] == [
        (mib((128, 256)), Severity.HIGH, Claim.PROBABLE),
        (mib((0, 128)), Severity.MEDIUM, Claim.SUSPECTED),
    ]

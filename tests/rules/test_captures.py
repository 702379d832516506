"""What an audit says about kernels that really were in these states (fixtures/captures/README.md)."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from analyzer.audit import Report, audit
from analyzer.sources.read import Request
from parsers.layout import KernelLayout, Precision
from parsers.ranges import Ranges as PfnRanges
from rules.engine import Outcome, builtin_rules, run
from rules.facts import Facts
from rules.finding import Claim, Finding, Severity
from rules.model.memory.sections import SectionTable

CAPTURES = Path(__file__).parents[2] / "fixtures" / "captures"
MOMENTS = sorted(f"{path.parent.name}/{path.name}" for path in CAPTURES.glob("*/*") if path.is_dir())
KASLR = {
    "kaslr-pmem-6.12-4k-a72": 0xFFFFA50080000000,
    "kaslr-dimm-6.12-4k-rodatafull": 0xFFFFE9B100000000,
    "dimm-6.1-4k-kaslr-blocks": 0xFFFFDD5500000000,
}

Ranges = list[tuple[int, int]]
LOST_TWO_OF_THREE: Ranges = [(0x80000, 0x82000), (0x84000, 0x88000)]
"""What the removal of the middle namespace, PFNs 0x82000-0x84000, takes along."""

# Everything of high severity and above; a moment that is not listed has none.
ALARMS: dict[str, list[tuple[str, Severity, Ranges]]] = {
    "pmem-6.12-vuln/01-three-namespaces": [
        ("VMM-01", Severity.HIGH, [(0x80000, 0x88000)]),
        ("TRC-08", Severity.HIGH, [(0x80000, 0x88000)]),
    ],
    "pmem-6.12-vuln/02-one-removed": [
        ("VMM-02", Severity.CRITICAL, LOST_TWO_OF_THREE),
        ("TRC-07", Severity.CRITICAL, LOST_TWO_OF_THREE),
        ("TRC-08", Severity.HIGH, [(0x80000, 0x88000)]),
    ],
    "pmem-5.10-4k/01-namespaces": [("VMM-01", Severity.HIGH, [(0x80000, 0x88000)])],
    "pmem-5.10-4k/02-one-removed": [
        ("VMM-02", Severity.CRITICAL, LOST_TWO_OF_THREE),
        ("TRC-07", Severity.CRITICAL, LOST_TWO_OF_THREE),
    ],
    # The driver died while it removed the third: its resource and linear map stayed.
    "pmem-5.10-4k/03-second-removed": [("VMM-02", Severity.CRITICAL, LOST_TWO_OF_THREE)],
    "pmem-6.12-64k/01-namespaces": [
        ("VMM-06", Severity.HIGH, [(0x8000, 0x8200)]),
        ("VMM-06", Severity.HIGH, [(0x8100, 0x8400)]),
    ],
    "pmem-6.12-64k/02-one-removed": [
        ("VMM-02", Severity.CRITICAL, [(0x8000, 0x8100), (0x8200, 0x8400)]),
        ("TRC-07", Severity.CRITICAL, [(0x8000, 0x8100), (0x8200, 0x8400)]),
        ("VMM-06", Severity.HIGH, [(0x8000, 0x8100), (0x8200, 0x8400)]),
    ],
    "pmem-7.3-64k/01-namespaces": [
        ("VMM-06", Severity.HIGH, [(0x8000, 0x8200)]),
        ("VMM-06", Severity.HIGH, [(0x8100, 0x8400)]),
    ],
    "pmem-7.3-64k/02-one-removed": [
        ("VMM-02", Severity.CRITICAL, [(0x8000, 0x8100), (0x8200, 0x8400)]),
        ("TRC-07", Severity.CRITICAL, [(0x8000, 0x8100), (0x8200, 0x8400)]),
        ("VMM-06", Severity.HIGH, [(0x8000, 0x8100), (0x8200, 0x8400)]),
    ],
    "pmem-6.12-64k-va52/01-namespaces": [
        ("VMM-06", Severity.HIGH, [(0x8000, 0x8200)]),
        ("VMM-06", Severity.HIGH, [(0x8100, 0x8400)]),
    ],
    "pmem-6.12-64k-va52/02-one-removed": [
        ("VMM-02", Severity.CRITICAL, [(0x8000, 0x8100), (0x8200, 0x8400)]),
        ("TRC-07", Severity.CRITICAL, [(0x8000, 0x8100), (0x8200, 0x8400)]),
        ("VMM-06", Severity.HIGH, [(0x8000, 0x8100), (0x8200, 0x8400)]),
    ],
    # 48 MiB then 32 MiB: the second crosses into the next 64 MiB, whose page of struct pages was not populated.
    "pmem-6.12-64k-cross/01-namespaces": [
        ("VMM-02", Severity.CRITICAL, [(0x8400, 0x8500)]),
        ("VMM-06", Severity.HIGH, [(0x8000, 0x8400)]),
    ],
    # 18 MiB each: the edge at PFN 0x20480 lies in the middle of a page that describes 4 MiB.
    "pmem-6.12-16k/01-namespaces": [("VMM-06", Severity.HIGH, [(0x20400, 0x20500)])],
    "pmem-6.12-16k/02-one-removed": [
        ("VMM-02", Severity.CRITICAL, [(0x20480, 0x20500)]),
        ("TRC-07", Severity.CRITICAL, [(0x20480, 0x20500)]),
    ],
    "pmem-6.12-16k-cross/01-namespaces": [
        ("VMM-02", Severity.CRITICAL, [(0x20900, 0x20980)]),
        ("VMM-06", Severity.HIGH, [(0x20400, 0x20500)]),
    ],
    # The block at 0xfffffd7fc2a00000 holds struct pages of both DIMMs, 80 bytes each; the first takes it along.
    "two-dimms-one-offline-6.12-4k-80/01-both-there": [("VMM-05", Severity.HIGH, [(0x86666, 0x8CCCD)])],
    "two-dimms-one-offline-6.12-4k-80/03-one-removed": [("VMM-02", Severity.CRITICAL, [(0x88000, 0x8CCCD)])],
    # Two of four sections were added when memory ran out; nobody took them back.
    "failing-add-6.12-4k/01-add-failed": [("TRC-06", Severity.HIGH, [(0x80000, 0x90000)])],
    "hvo-6.1-4k/01-hvo-allocated": [(code, Severity.HIGH, []) for code in ("HVO-01", "HVO-06", "HVO-07")],
    "hvo-6.1-4k/03-all-freed": [(code, Severity.HIGH, []) for code in ("HVO-01", "HVO-06", "HVO-07")],
}


@cache
def report_of(moment: str) -> Report:
    return audit(Request((CAPTURES / moment,)))


def findings(moment: str, code: str) -> list[Finding]:
    return [one for one in report_of(moment).findings if one.rule.code == code]


def outcome(moment: str, code: str) -> Outcome:
    return next(one.outcome for one in report_of(moment).verdicts if one.rule.code == code)


@pytest.mark.parametrize("moment", MOMENTS)
def test_alarms_are_those_that_the_kernel_earned(moment: str) -> None:
    alarms = [
        (one.rule.code, one.severity, one.hit.pfns.tuples())
        for one in report_of(moment).findings
        if one.severity >= Severity.HIGH
    ]
    assert alarms == ALARMS.get(moment, [])


@pytest.mark.parametrize("moment", MOMENTS)
def test_no_rule_fails(moment: str) -> None:
    assert [one.reason for one in report_of(moment).verdicts if one.outcome is Outcome.ERROR] == []


@pytest.mark.parametrize("moment", MOMENTS)
def test_dump_and_iomem_alone_tell_phys_offset(moment: str) -> None:
    files = ("kernel_page_tables", "iomem")
    layout = audit(Request(tuple(CAPTURES / moment / name for name in files))).facts.get(KernelLayout)
    assert layout is not None
    assert layout.phys_offset == KASLR.get(moment.split("/", maxsplit=1)[0], 0)
    assert layout.facts["phys_offset"].precision is Precision.INFERRED


@pytest.mark.parametrize("moment", MOMENTS)
def test_whole_capture_tells_phys_offset(moment: str) -> None:
    layout = report_of(moment).facts.get(KernelLayout)
    assert layout is not None
    assert layout.phys_offset == KASLR.get(moment.split("/", maxsplit=1)[0], 0)


@pytest.mark.parametrize("moment", MOMENTS)
def test_bare_dump_is_audited(moment: str) -> None:
    report = audit(Request((CAPTURES / moment / "kernel_page_tables",)))
    outcomes = {one.rule.code: one.outcome for one in report.verdicts}
    assert Outcome.ERROR not in outcomes.values()
    assert {outcomes[code] for code in ("ATT-02", "ATT-03", "CNT-01", "TBL-01")} == {Outcome.PASSED}
    lost = any(code == "VMM-02" for code, *_ in ALARMS.get(moment, []))
    assert outcomes["VMM-02"] is (Outcome.FIRED if lost else Outcome.UNDECIDED)
    assert all(one.hit.claim is Claim.SUSPECTED for one in report.findings if one.rule.code == "VMM-02")


def test_block_of_three_namespaces_is_named_as_such() -> None:
    (finding,) = findings("pmem-6.12-vuln/01-three-namespaces", "VMM-01")
    assert finding.sections == (16,)
    assert "VMM-01b" in finding.hit.message
    assert all(name in finding.hit.title for name in ("dax0.0", "dax0.1", "dax0.2"))


def test_evidence_of_lost_struct_pages_is_the_hole() -> None:
    (finding,) = findings("pmem-6.12-vuln/02-one-removed", "VMM-02")
    line = finding.hit.evidence[0]
    assert line.line is not None
    dump = CAPTURES / "pmem-6.12-vuln/02-one-removed/kernel_page_tables"
    assert dump.read_text().splitlines()[line.line - 1] == line.text
    # 0xfffffdffc0000000 + 0x80000 * 64: the hole begins before it and ends after it.
    start, end = (int(word, 16) for word in line.text.split()[0].split("-"))
    assert start <= 0xFFFFFDFFC2000000
    assert end >= 0xFFFFFDFFC2200000


@pytest.mark.parametrize("moment", [one for one in MOMENTS if one.startswith("pmem-6.12-fixed")])
def test_fixed_kernel_is_quiet_about_vmemmap(moment: str) -> None:
    codes = ("VMM-01", "VMM-02", "VMM-03", "VMM-04")
    assert {outcome(moment, code) for code in codes} == {Outcome.PASSED}


@pytest.mark.parametrize("moment", [one for one in MOMENTS if one.startswith(("dimm-6.12/", "dimm-6.12-memmap"))])
def test_dimm_comes_and_goes_without_trace(moment: str) -> None:
    codes = ("TBL-01", "VMM-01", "VMM-02", "VMM-04", "VMM-07", "LIN-01", "LIN-02", "LIN-03", "SEC-02", "SEC-04")
    assert {outcome(moment, code) for code in codes} == {Outcome.PASSED}


def test_leaf_over_many_blocks_is_reported_leaf_by_leaf() -> None:
    pfns = [one.hit.pfns.tuples() for one in findings("pud-6.12-4k/02-dimm-online", "LIN-02")]
    assert pfns == [[(0x80000, 0xC0000)], [(0xC0000, 0x100000)]]


def test_blocks_that_7_3_does_not_offline_are_named() -> None:
    blocks = [(0x80000 + 0x8000 * block, 0x88000 + 0x8000 * block) for block in range(8)]
    (leaf,) = findings("dimm-1g-leaves-7.3-4k/04-dimm-removed", "LIN-04")
    assert (leaf.hit.claim, leaf.hit.pfns.tuples()) == (Claim.PROVEN, [(blocks[0][0], blocks[-1][1])])
    (hosted,) = findings("dimm-7.3-4k-mom/03-half-offline", "MOM-14")
    assert hosted.hit.claim is Claim.PROVEN
    assert hosted.hit.pfns.tuples() == [(start + 0x200, end) for start, end in blocks[:2]]


def test_ram_whose_section_is_not_valid_is_not_memory_that_no_driver_claims() -> None:
    facts = report_of("dimm-6.12/02-dimm-online").facts
    sections = facts.get(SectionTable)
    assert sections is not None
    less = replace(sections, valid=sections.valid - PfnRanges.one(0x88000, 0x90000))
    rule = next(one for one in builtin_rules() if one.code == "LIN-01")
    (verdict,) = run([rule], Facts({**facts.known, SectionTable: less}, facts.missing))
    assert (verdict.outcome, verdict.findings) == (Outcome.PASSED, ())


def test_fallback_to_base_pages_is_counted_by_section() -> None:
    (finding,) = findings("fallback-6.12-4k/02-dimm-online", "VMM-07")
    assert finding.sections == (16, 17, 19, 20, 22)
    assert outcome("fallback-6.12-4k/04-dimm-removed", "VMM-07") is Outcome.PASSED

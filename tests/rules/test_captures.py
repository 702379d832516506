"""What an audit says about kernels that really were in these states (fixtures/captures/README.md)."""

from __future__ import annotations

import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from rules.engine import Outcome
from rules.finding import Claim, Severity
from tests.cases import CAPTURES
from tests.rules.captures import MOMENTS, outcome, report_of

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
    "two-dimms-7.3-4k-80/02-plug": [("VMM-05", Severity.HIGH, [(0x106666, 0x10CCCD)])],
    "two-dimms-7.3-4k-80/03-unplug": [
        ("VMM-02", Severity.CRITICAL, [(0x108000, 0x10CCCD)]),
        ("TRC-07", Severity.CRITICAL, [(0x108000, 0x10CCCD)]),
    ],
    # Two of four sections were added when memory ran out; nobody took them back.
    "failing-add-6.12-4k/01-add-failed": [("TRC-06", Severity.HIGH, [(0x80000, 0x90000)])],
    "hvo-6.1-4k/01-hvo-allocated": [(code, Severity.HIGH, []) for code in ("HVO-01", "HVO-06", "HVO-07")],
    "hvo-6.1-4k/03-all-freed": [(code, Severity.HIGH, []) for code in ("HVO-01", "HVO-06", "HVO-07")],
}


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
def test_bare_dump_is_audited(moment: str) -> None:
    report = audit(Request((CAPTURES / moment / "kernel_page_tables",)))
    outcomes = {one.rule.code: one.outcome for one in report.verdicts}
    assert Outcome.ERROR not in outcomes.values()
    assert {outcomes[code] for code in ("ATT-02", "ATT-03", "CNT-01", "TBL-01")} == {Outcome.PASSED}
    lost = any(code == "VMM-02" for code, *_ in ALARMS.get(moment, []))
    assert outcomes["VMM-02"] is (Outcome.FIRED if lost else Outcome.UNDECIDED)
    assert all(one.hit.claim is Claim.SUSPECTED for one in report.findings if one.rule.code == "VMM-02")


@pytest.mark.parametrize("moment", [one for one in MOMENTS if one.startswith("pmem-6.12-fixed")])
def test_fixed_kernel_is_quiet_about_vmemmap(moment: str) -> None:
    codes = ("VMM-01", "VMM-02", "VMM-03", "VMM-04")
    assert {outcome(moment, code) for code in codes} == {Outcome.PASSED}


@pytest.mark.parametrize("moment", [one for one in MOMENTS if one.startswith(("dimm-6.12/", "dimm-6.12-memmap"))])
def test_dimm_comes_and_goes_without_trace(moment: str) -> None:
    codes = ("TBL-01", "VMM-01", "VMM-02", "VMM-04", "VMM-07", "LIN-01", "LIN-02", "LIN-03", "SEC-02", "SEC-04")
    assert {outcome(moment, code) for code in codes} == {Outcome.PASSED}

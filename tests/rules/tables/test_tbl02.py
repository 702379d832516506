"""TBL-02: A table of the kernel's page tables lies in memory that is gone, is offline, or was hot-added."""

from __future__ import annotations

import pytest

from parsers.arm64 import PMD, PTE
from parsers.vmcore.faults import Fault
from rules.engine import Outcome
from rules.finding import Claim, Severity
from rules.tables.tbl02_table_in_removed_memory import table_in_removed_memory
from tests.rules.drawn import LINEAR
from tests.rules.dumps import linear_address, the_finding
from tests.rules.walked import MACHINE, PFN, REACH, a_table, at, judged, sections, with_tables


@pytest.mark.parametrize(
    ("pfn", "expected"),
    [
        (at(-8), []),
        (at(0), [("pinned", Severity.LOW)]),
        (at(2), [("offline", Severity.HIGH)]),
        (at(4), [("pinned", Severity.LOW)]),
        (at(3), [("gone", Severity.CRITICAL)]),
        (PFN + REACH - 1, [("gone", Severity.CRITICAL)]),
        (PFN + REACH, []),  # no memory can be there: TBL-05
        (PFN - 1, []),
    ],
)
def test_where_tables_lie(layout, pfn, expected):
    for tables, missing in (([a_table(at(-8)), a_table(pfn)], ()), ([a_table(at(-8))], (pfn,))):
        verdict = judged(table_in_removed_memory, with_tables(layout, tables, missing=missing, **MACHINE))
        assert [(one.hit.key, one.severity) for one in verdict.findings] == expected
        assert [(va.start, va.end) for one in verdict.findings for va in one.hit.vas] == [
            (LINEAR, LINEAR + 1) for _ in expected
        ]
        assert [one.hit.pfns.tuples() for one in verdict.findings] == [[(pfn, pfn + 1)] for _ in expected]
        assert bool(verdict.reason) is (missing != () and bool(MACHINE["possible"].contains([pfn])[0]))


def test_a_boot_block_that_is_offline_holds_tables_for_good(layout):
    machine = MACHINE | {"online": sections(0)}
    assert not judged(table_in_removed_memory, with_tables(layout, [a_table(at(-8))], **machine)).findings


@pytest.mark.parametrize(
    ("fault", "missing", "outcome"),
    [
        (Fault.MISSING, (at(-8),), Outcome.UNDECIDED),
        (Fault.MISSING, (), Outcome.PASSED),
        (Fault.RESERVED, (at(-8),), Outcome.PASSED),
    ],
)
def test_tables_that_the_dump_does_not_hold(layout, fault, missing, outcome):
    known = with_tables(layout, [a_table(at(-8))], missing=missing, fault=fault, **MACHINE)
    verdict = judged(table_in_removed_memory, known)
    assert verdict.outcome is outcome


def test_a_table_in_removed_memory(after):
    """The table of a part of the linear map, moved to where the middle namespace was."""
    va, home = linear_address(0x4C400000), 0x82000000
    page = after.raw.memory.read(after.table(va, PTE), 4096)
    entry = after.entry(va, PMD)
    codes, verdicts = after.caused({entry: after.word(entry) & 0xFFF0000000000FFF | home}, {home: page})
    assert codes == {"TBL-02"}
    finding = the_finding(verdicts, "TBL-02")
    assert (finding.severity, finding.hit.claim, finding.hit.key) == (Severity.CRITICAL, Claim.PROVEN, "gone")
    assert f"{home:#x}" in finding.hit.message
    assert finding.hit.pfns.tuples() == [(home >> 12, (home >> 12) + 1)]  # so that `where` of the table names it
    assert entry in {one.address for one in finding.hit.evidence}


def test_a_table_in_removed_memory_that_the_dump_does_not_hold(after):
    entry = after.entry(linear_address(0x4C400000), PMD)
    codes, verdicts = after.caused({entry: after.word(entry) & 0xFFF0000000000FFF | 0x82000000})
    assert codes == {"TBL-02"}
    assert {code for code, one in verdicts.items() if one.outcome is Outcome.PASSED} & {
        *("LIN-03", "LIN-05", "ATT-03", "ATT-07", "CNT-01", "TBL-05"),
    } == set()  # what the table hides is unknown


def test_a_table_in_hot_added_memory(mixed):
    va, home = linear_address(0x5C400000), 0x90000000
    page = mixed.raw.memory.read(mixed.table(va, PTE), 4096)
    entry = mixed.entry(va, PMD)
    codes, verdicts = mixed.caused({entry: mixed.word(entry) & 0xFFF0000000000FFF | home}, {home: page})
    assert codes == {"TBL-02"}
    assert the_finding(verdicts, "TBL-02").severity is Severity.LOW

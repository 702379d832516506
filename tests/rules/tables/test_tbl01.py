"""TBL-01: Empty translation tables are left in the linear map or the vmemmap area."""

from __future__ import annotations

from dataclasses import replace

import pytest

from parsers.arm64 import PMD
from rules.engine import Outcome
from rules.finding import Severity
from tests.rules.drawn import BLOCK, GIB, KIB, MIB, NORMAL, RAM, Drawn
from tests.rules.dumps import FREE_PAGE, struct_page_address, the_finding
from tests.rules.patched import table_page


@pytest.mark.parametrize(
    ("tables", "severity"),
    [(16, Severity.INFO), (17, Severity.LOW)],
)
def test_a_few_empty_tables_are_for_information(tmp_path, tables, severity):
    rows = ((RAM, RAM + GIB, "PUD", BLOCK), (RAM + GIB, RAM + GIB + tables * 2 * MIB, "PTE", ""))
    (finding,) = replace(Drawn(), linear=rows).verdict(tmp_path, "TBL-01").findings
    assert finding.severity is severity


def test_tables_that_are_not_wholly_empty(tmp_path):
    rows = ((RAM, RAM + 2 * MIB - 4 * KIB, "PTE", ""), (RAM + 2 * MIB - 4 * KIB, RAM + 2 * MIB, "PTE", NORMAL))
    verdict = replace(Drawn(), linear=rows).verdict(tmp_path, "TBL-01")
    assert verdict.outcome is Outcome.PASSED


def test_a_leaked_table(pmem):
    entry = pmem.entry(struct_page_address(0xC0000), PMD)
    codes, verdicts = pmem.caused({entry: FREE_PAGE | 3}, {FREE_PAGE: table_page({})})
    assert codes == {"TBL-01"}
    assert the_finding(verdicts, "TBL-01").severity is Severity.INFO

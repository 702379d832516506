"""TBL-06: Tables of one area and level are not restricted alike."""

from __future__ import annotations

import pytest

from parsers.arm64 import PMD
from rules.finding import Severity
from rules.tables.tbl06_attribute_drift import attribute_drift
from tests.rules.drawn import LINEAR, MIB
from tests.rules.dumps import linear_address, the_finding
from tests.rules.walked import a_table, at, judged, with_tables

PXN, UXN = 3 | 1 << 59, 3 | 1 << 60
NO_EXEC = PXN | UXN
SPAN = 2 * MIB
LINEAR_END = 0xFFFF800000000000
LAST = (LINEAR_END - LINEAR) // SPAN - 1


def table_row(number, descriptor=NO_EXEC, **more):
    return a_table(at(-8) + number, va=LINEAR + number * SPAN, descriptor=descriptor, **more)


LACK_PXN, LACK_UXN = "lack PXNTable, which the others have", "lack UXNTable, which the others have"


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ([table_row(0), table_row(1)], []),
        ([table_row(0), table_row(1), table_row(2, UXN)], [(LACK_PXN, 2)]),
        ([table_row(0), table_row(1), table_row(2, PXN)], [(LACK_UXN, 2)]),
        ([table_row(0), table_row(1, UXN)], []),  # as many as lack it
        ([table_row(0, 3), table_row(1, 3)], []),
        ([table_row(0), table_row(1), table_row(2, 0)], []),  # the root has no descriptor
        ([table_row(0), table_row(1), a_table(at(-8), level=2, descriptor=3)], []),  # another level
        ([table_row(0), table_row(1), a_table(at(-8), va=LINEAR_END - SPAN, descriptor=UXN)], [(LACK_PXN, LAST)]),
        ([table_row(0), table_row(1), a_table(at(-8), va=LINEAR_END, descriptor=UXN)], []),
        ([table_row(3), table_row(4), a_table(at(-8), va=LINEAR - SPAN, descriptor=UXN)], []),
        ([table_row(0), table_row(1), table_row(2, NO_EXEC | 1 << 63)], [("NSTable", 2)]),
        ([table_row(0), table_row(1), table_row(2, NO_EXEC | 1 << 61)], [("APTable[0]", 2)]),
        ([table_row(0), table_row(1), table_row(2, NO_EXEC | 1 << 62)], [("APTable[1]", 2)]),
    ],
)
def test_tables_that_are_not_restricted_alike(layout, tables, expected):
    found = judged(attribute_drift, with_tables(layout, tables)).findings
    assert [one.hit.vas[0].start for one in found] == [LINEAR + number * SPAN for _, number in expected]
    for one, (words, _) in zip(found, expected, strict=True):
        assert words in one.hit.title
        assert one.hit.vas[0].end - one.hit.vas[0].start == (SPAN if "lack" in words else 4096)
        assert one.severity is (Severity.INFO if "lack" in words else Severity.MEDIUM)


def test_table_attributes_that_differ(pmem):
    entry = pmem.entry(linear_address(0x4C400000), PMD)
    codes, verdicts = pmem.caused({entry: pmem.word(entry) & ~(1 << 59)})
    assert codes == {"TBL-06"}
    assert the_finding(verdicts, "TBL-06").severity is Severity.INFO
    codes, verdicts = pmem.caused({entry: pmem.word(entry) | 1 << 62})
    assert codes == {"TBL-06"}
    assert the_finding(verdicts, "TBL-06").severity is Severity.MEDIUM

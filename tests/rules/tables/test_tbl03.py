"""TBL-03: A table that hot-remove shares with vmalloc or the fixmap was freed."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from parsers.arm64 import Attr, MemType, granule
from parsers.layout import KernelLayout
from parsers.mapping import Mapping
from rules.engine import Outcome, run
from rules.facts import Facts
from rules.finding import Severity
from rules.model.memory.snapshots import Earlier
from rules.tables.tbl03_shared_edge_table import shared_edge_table
from tests.rules.drawn import GIB, MIB

VALID = Attr.PRESENT | Attr.VALID | Attr.AF
PAGE, BASE = 4096, 0xFFFF800000000000
EDGE = BASE + 0x40201000
"""Where an area begins: in the middle of what tables of levels 1, 2 and 3 translate."""
END = BASE + 0x80301000
"""Where it ends."""


def edges_of(start=EDGE, end=END):
    return SimpleNamespace(
        granule=granule(PAGE),
        va_bits_actual=48,
        linear_start=0xFFFF000000000000,
        linear_end=BASE,
        vmemmap_first=start,
        vmemmap_end=end,
    )


def mapping(*rows, seen=(BASE, BASE + 512 * GIB)):
    """Rows (bytes from ``BASE``, level, whether mapped) and what the source covers."""
    start, end, level, mapped = (list(column) for column in zip(*rows, strict=True))
    first = np.array([BASE + one for one in start], dtype=np.uint64)
    last = np.array([BASE + one - 1 for one in end], dtype=np.uint64)
    return Mapping(
        start=first,
        size=last - first + np.uint64(1),
        level=np.array(level, dtype=np.int8),
        attrs=np.array([VALID if one else 0 for one in mapped], dtype=np.uint16),
        memtype=np.full(len(rows), MemType.NORMAL, dtype=np.uint8),
        observed_start=np.array([seen[0]], dtype=np.uint64),
        observed_last=np.array([seen[1] - 1], dtype=np.uint64),
        source="dump",
        pa=np.zeros(len(rows), dtype=np.uint64),
    )


def edge_verdict(before, now, *, edges=None):
    known = {Mapping: now, KernelLayout: edges or edges_of()}
    if before is not None:
        known[Earlier] = SimpleNamespace(linear=SimpleNamespace(mapping=before), boot=None)
    return run([shared_edge_table], Facts(known))[0]


def tables(verdict):
    """Ranges of the tables that are gone, from ``BASE``."""
    return [(va.start - BASE, va.end - BASE) for one in verdict.findings for va in one.hit.vas]


FIRST = (GIB + 2 * MIB, GIB + 4 * MIB)
"""What the last-level table at the first edge translates; the one at the end begins 1 GiB and 1 MiB later."""
LAST = (2 * GIB + 2 * MIB, 2 * GIB + 4 * MIB)
HERE = mapping((0, FIRST[0], 2, False), (*FIRST, 3, False), (FIRST[1], LAST[0], 2, False), (*LAST, 3, False))
GONE = mapping((0, FIRST[1], 2, False), (FIRST[1], LAST[0], 2, False), (*LAST, 3, False))


def test_a_last_level_table_that_is_gone():
    assert tables(edge_verdict(HERE, GONE)) == [FIRST]
    assert tables(edge_verdict(GONE, HERE)) == []
    assert tables(edge_verdict(HERE, HERE)) == []
    assert edge_verdict(GONE, GONE).outcome is Outcome.PASSED


def test_a_table_of_one_entry_is_there():
    """The first and the last page of what it translates."""
    for lo, hi in ((FIRST[0], FIRST[0] + PAGE), (FIRST[1] - PAGE, FIRST[1])):
        one = mapping((0, lo, 2, False), (lo, hi, 3, False), (hi, 4 * GIB, 2, False))
        assert tables(edge_verdict(HERE, one)) == [LAST]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [(FIRST, [FIRST]), ((FIRST[0] + PAGE, FIRST[1]), []), ((FIRST[0], FIRST[1] - PAGE), []), ((0, FIRST[0]), [])],
)
def test_what_was_not_dumped_is_not_gone(seen, expected):
    now = mapping((0, 4 * GIB, 2, False), seen=(BASE + seen[0], BASE + seen[1]))
    assert tables(edge_verdict(HERE, now)) == expected


def test_of_tables_below_one_another_the_uppermost_is_named():
    now = mapping((0, GIB, 2, False), (GIB, 2 * GIB, 1, False), (2 * GIB, 4 * GIB, 2, False))
    assert tables(edge_verdict(HERE, now)) == [(GIB, 2 * GIB), LAST]
    now = mapping((0, 512 * GIB, 0, False))
    assert tables(edge_verdict(HERE, now)) == [(0, 512 * GIB)]


@pytest.mark.parametrize(
    ("page", "severity"),
    [
        (FIRST[0], Severity.CRITICAL),
        (EDGE - BASE - PAGE, Severity.CRITICAL),
        (EDGE - BASE, Severity.HIGH),
        (FIRST[0] - PAGE, Severity.HIGH),
    ],
)
def test_what_was_mapped_beside_the_first_edge_is_lost(page, severity):
    before = mapping((0, page, 3, False), (page, page + PAGE, 3, True), (page + PAGE, 4 * GIB, 3, False))
    now = mapping((0, FIRST[1], 2, False), (FIRST[1], 4 * GIB, 3, False))
    verdict = edge_verdict(before, now, edges=edges_of(end=BASE + 512 * GIB))
    assert FIRST in tables(verdict)
    assert [one.severity for one in verdict.findings if one.hit.vas[0].end - BASE == FIRST[1]] == [severity]


@pytest.mark.parametrize(
    ("page", "severity"),
    [
        (END - BASE, Severity.CRITICAL),
        (LAST[1] - PAGE, Severity.CRITICAL),
        (END - BASE - PAGE, Severity.HIGH),
        (LAST[1], Severity.HIGH),
    ],
)
def test_what_was_mapped_beside_the_last_edge_is_lost(page, severity):
    before = mapping((0, page, 3, False), (page, page + PAGE, 3, True), (page + PAGE, 4 * GIB, 3, False))
    now = mapping((0, LAST[0], 3, False), (LAST[0], 4 * GIB, 2, False))
    (finding,) = edge_verdict(before, now).findings
    assert tables(edge_verdict(before, now)) == [LAST]
    assert finding.severity is severity


def test_edges_that_no_table_crosses_need_no_look():
    level = edges_of(BASE, BASE + 512 * GIB)
    assert edge_verdict(HERE, GONE, edges=level).outcome is Outcome.NOT_APPLICABLE


def test_one_dump_is_enough_where_all_shared_tables_are_linked():
    assert edge_verdict(None, HERE).outcome is Outcome.PASSED
    assert edge_verdict(None, GONE).outcome is Outcome.UNDECIDED


def test_dumps_that_do_not_cover_a_shared_table_decide_nothing():
    seen = (BASE + FIRST[0] + PAGE, BASE + FIRST[1])
    none = mapping((0, 4 * GIB, 2, False), seen=seen)
    assert edge_verdict(HERE, none).outcome is Outcome.UNDECIDED
    assert edge_verdict(none, GONE).outcome is Outcome.UNDECIDED

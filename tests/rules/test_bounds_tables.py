"""Rules about translation tables at the bounds of what they look at."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from parsers.arm64 import Attr, MemType, granule
from parsers.layout import KernelLayout
from parsers.mapping import Mapping
from parsers.uname import KernelRelease, parse_uname
from rules.engine import Outcome, run
from rules.facts import Facts
from rules.finding import Severity
from rules.model.memory.snapshots import Earlier
from rules.tables.tbl03_shared_edge_table import shared_edge_table
from tests.rules.drawn import BLOCK, GIB, KIB, MIB, NORMAL, RAM, Drawn

VALID = Attr.PRESENT | Attr.VALID | Attr.AF
PAGE, BASE = 4096, 0xFFFF800000000000
EDGE = BASE + 0x40201000
"""Where an area begins: in the middle of what tables of levels 1, 2 and 3 translate."""
END = BASE + 0x80301000
"""Where it ends."""


# TBL-03: tables that an edge goes through -----------------------------------------------------------------------------


def layout(start=EDGE, end=END):
    return SimpleNamespace(
        granule=granule(PAGE),
        va_bits_actual=48,
        linear_start=0xFFFF000000000000,
        linear_end=BASE,
        vmemmap_first=start,
        vmemmap_end=end,
    )


def mapping(*rows, seen=(BASE, BASE + 512 * GIB)):
    """Rows (bytes from ``BASE``, level, whether mapped) and what the source speaks for."""
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


def judged(before, now, *, edges=None, release=None):
    known = {Mapping: now, KernelLayout: edges or layout()}
    if before is not None:
        known[Earlier] = SimpleNamespace(linear=SimpleNamespace(mapping=before), boot=None)
    if release is not None:
        known[KernelRelease] = parse_uname(release.encode(), "uname")
    return run([shared_edge_table], Facts(known))[0]


def tables(verdict):
    """Ranges of the tables that are gone, from ``BASE``."""
    return [(va.start - BASE, va.end - BASE) for one in verdict.findings for va in one.hit.vas]


FIRST = (GIB + 2 * MIB, GIB + 4 * MIB)
"""What the last-level table at the first edge translates; the one at the end begins 1 GiB behind, and 1 MiB later."""
LAST = (2 * GIB + 2 * MIB, 2 * GIB + 4 * MIB)
HERE = mapping((0, FIRST[0], 2, False), (*FIRST, 3, False), (FIRST[1], LAST[0], 2, False), (*LAST, 3, False))
GONE = mapping((0, FIRST[1], 2, False), (FIRST[1], LAST[0], 2, False), (*LAST, 3, False))


def test_a_last_level_table_that_is_gone():
    assert tables(judged(HERE, GONE)) == [FIRST]
    assert tables(judged(GONE, HERE)) == []
    assert tables(judged(HERE, HERE)) == []
    assert judged(GONE, GONE).outcome is Outcome.PASSED


def test_a_table_of_one_entry_is_there():
    """The first and the last page of what it translates."""
    for lo, hi in ((FIRST[0], FIRST[0] + PAGE), (FIRST[1] - PAGE, FIRST[1])):
        one = mapping((0, lo, 2, False), (lo, hi, 3, False), (hi, 4 * GIB, 2, False))
        assert tables(judged(HERE, one)) == [LAST]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [(FIRST, [FIRST]), ((FIRST[0] + PAGE, FIRST[1]), []), ((FIRST[0], FIRST[1] - PAGE), []), ((0, FIRST[0]), [])],
)
def test_what_was_not_dumped_is_not_gone(seen, expected):
    now = mapping((0, 4 * GIB, 2, False), seen=(BASE + seen[0], BASE + seen[1]))
    assert tables(judged(HERE, now)) == expected


def test_of_tables_below_one_another_the_uppermost_is_named():
    now = mapping((0, GIB, 2, False), (GIB, 2 * GIB, 1, False), (2 * GIB, 4 * GIB, 2, False))
    assert tables(judged(HERE, now)) == [(GIB, 2 * GIB), LAST]
    now = mapping((0, 512 * GIB, 0, False))
    assert tables(judged(HERE, now)) == [(0, 512 * GIB)]


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
    verdict = judged(before, now, edges=layout(end=BASE + 512 * GIB))
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
    (finding,) = judged(before, now).findings
    assert tables(judged(before, now)) == [LAST]
    assert finding.severity is severity


def test_edges_of_tables_and_releases_decide_whether_to_look():
    level = layout(BASE, BASE + 512 * GIB)
    assert judged(HERE, GONE, edges=level).outcome is Outcome.NOT_APPLICABLE
    assert judged(None, GONE).outcome is Outcome.UNDECIDED
    assert judged(None, GONE, release="6.12.5").outcome is Outcome.NOT_APPLICABLE


# TBL-01: empty tables -------------------------------------------------------------------------------------------------


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


# TBL-04: tables without their destructor ------------------------------------------------------------------------------

BAD = "[    1.000000] BUG: Bad page state in process kworker/u8:1  pfn:58d40\n[    1.000000] page_type: f2({})\n"
FRAMES = ("free_hotplug_page_range+0xa8/0xd0", "free_empty_tables.constprop.0+0x3d4/0x560")


def bad_page(*, kind="table", before=(), noise=0, frames=FRAMES):
    called = "[    1.000000] Call trace:\n"
    head = called + "".join(f"[    0.500000]  {frame}\n" for frame in before)
    lines = "[    1.000000] page dumped because: nonzero mapcount\n" * noise
    trace = "".join(f"[    1.000000]  {frame}\n" for frame in ("__create_pgd_mapping+0x1/0x2", *frames))
    return (head if before else "") + BAD.format(kind) + lines + called + trace


@pytest.mark.parametrize(
    ("log", "outcome"),
    [
        (bad_page(), Outcome.FIRED),
        (bad_page(frames=("arch_remove_memory+0x94/0xf0",)), Outcome.FIRED),
        (bad_page(kind="buddy"), Outcome.PASSED),
        (bad_page(frames=()), Outcome.PASSED),
        (bad_page(before=FRAMES, frames=()), Outcome.PASSED),
        (bad_page(noise=56, frames=FRAMES[:1]), Outcome.FIRED),  # 59 lines behind the type
        (bad_page(noise=57, frames=FRAMES[:1]), Outcome.PASSED),
    ],
)
def test_a_bad_page_is_one_of_hot_remove_if_its_trace_is(tmp_path, log, outcome):
    verdict = replace(Drawn(), release="6.16.3", dmesg=log).verdict(tmp_path, "TBL-04")
    assert verdict.outcome is outcome
    for finding in verdict.findings:
        assert not any("__create_pgd_mapping" in one.text for one in finding.hit.evidence)


# TBL-05: entries that are no encoding ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "flags", "outcome"),
    [
        ("PUD", BLOCK, Outcome.PASSED),
        ("PGD", BLOCK, Outcome.FIRED),
        ("PGD", f"F {BLOCK}", Outcome.PASSED),
    ],
)
def test_blocks_at_a_level_that_has_none(tmp_path, level, flags, outcome):
    """512 GiB: 512 blocks of level 1, or one of level 0, which 4K pages do not have."""
    end = RAM + 512 * GIB
    machine = Drawn(linear=((RAM, end, level, flags),), iomem=((RAM, end, "System RAM"),), boot=((RAM, end),))
    verdict = machine.verdict(tmp_path, "TBL-05")
    assert verdict.outcome is outcome

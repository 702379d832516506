"""CNT-04: Removing this memory flushes the TLB in the middle of contiguous runs."""

from __future__ import annotations

import pytest

from parsers.arm64 import Attr
from parsers.uname import parse_uname
from rules.contiguous.cnt04_tlb_shatter import contiguous_tlb_shatter
from rules.engine import Outcome
from tests.rules.drawn import LINEAR
from tests.rules.traces import Tracer, trace_verdict
from tests.rules.walked import MACHINE, NOT_VALID, PFN, UNKNOWN, VALID, at, facts, judged, row, sections


@pytest.mark.parametrize(
    ("number", "changes", "outcome"),
    [
        (0, {}, Outcome.FIRED),
        (4, {"hotadded": sections(0)}, Outcome.FIRED),  # a device
        (-1, {}, Outcome.PASSED),
        (-1, {"valid": UNKNOWN}, Outcome.PASSED),
        (6, {"valid": UNKNOWN}, Outcome.UNDECIDED),
        (7, {}, Outcome.PASSED),
        (7, {"devices_known": False}, Outcome.UNDECIDED),
        (-1, {"devices_known": False}, Outcome.PASSED),
    ],
)
def test_whose_contiguous_runs_are_flushed_inside(layout, number, changes, outcome):
    release = parse_uname(b"Linux host 6.12.5 #1 SMP aarch64 GNU/Linux\n", "uname")
    start = LINEAR + (at(number) - PFN) * 4096
    for attrs, expected in ((VALID | Attr.CONT, outcome), (NOT_VALID, Outcome.PASSED), (VALID, Outcome.PASSED)):
        known = facts(layout, [row(start, 16, at(number), attrs=attrs)], release, **MACHINE | changes)
        assert judged(contiguous_tlb_shatter, known).outcome is expected


def unmap(flushes, free):
    """An unmapping with so many invalidations."""
    tracer = Tracer()
    what = f"addr=0xffff000080000000 end=0xffff000090000000 free={free} altmap=0x0"
    tracer.event("unmap", "unmap_hotplug_range", what)
    for number in range(flushes):
        tracer.event("tlbi_va1", "unmap_hotplug_range", f"op={0xFF000080000 + number:#x}")
    tracer.event("unmap_ret", "unmap_hotplug_range", "")
    return tracer.text


@pytest.mark.parametrize(
    ("flushes", "free", "outcome"),
    [
        (2, 0, Outcome.FIRED),
        (1, 0, Outcome.UNDECIDED),
        (0, 0, Outcome.UNDECIDED),
        (2, 1, Outcome.UNDECIDED),  # struct pages
    ],
)
def test_a_linear_map_that_is_flushed_entry_by_entry(tmp_path, flushes, free, outcome):
    assert trace_verdict(tmp_path, "CNT-04", unmap(flushes, free)).outcome is outcome

"""Contiguous runs at their bounds: rows as a walk of the tables makes them, entry by entry."""

from __future__ import annotations

import numpy as np
import pytest

from parsers.arm64 import Attr, MemType
from parsers.layout import KernelLayout
from parsers.mapping import Mapping
from rules.contiguous.cnt01_incomplete_run import incomplete_run
from rules.contiguous.cnt02_run_not_contiguous import run_not_contiguous
from rules.engine import run
from rules.facts import Facts
from rules.model.memory.walk import PageWalk
from tests.rules.drawn import LINEAR, Drawn

PLAIN = Attr.PRESENT | Attr.VALID | Attr.AF | Attr.SHARED | Attr.PXN | Attr.UXN
CONT = PLAIN | Attr.CONT
RUN = 16
"""Pages in a run of 64 KiB; 16 blocks, 8192 pages, make one of 32 MiB."""
PUD, PMD, PTE = 1, 2, 3


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    return Drawn().audit(tmp_path_factory.mktemp("drawn")).facts.get(KernelLayout)


def row(start, end, pa, *, level=PTE, attrs=CONT, memtype=MemType.NORMAL, repeated=False):
    """Pages from the start of the linear map, and the page that the first leads to."""
    return start, end, pa, level, attrs, memtype, repeated


def facts(layout, rows):
    start, end, pa, level, attrs, memtype, repeated = (list(column) for column in zip(*rows, strict=True))
    first = np.array([LINEAR + 4096 * one for one in start], dtype=np.uint64)
    last = np.array([LINEAR + 4096 * one - 1 for one in end], dtype=np.uint64)
    mapping = Mapping(
        start=first,
        size=last - first + np.uint64(1),
        level=np.array(level, dtype=np.int8),
        attrs=np.array(attrs, dtype=np.uint16),
        memtype=np.array(memtype, dtype=np.uint8),
        observed_start=np.array([0], dtype=np.uint64),
        observed_last=np.array([2**64 - 1], dtype=np.uint64),
        source="core",
        pa=np.array([4096 * one for one in pa], dtype=np.uint64),
    )
    walk = PageWalk("core", None, None, np.array(repeated), None, (), lambda _: [])
    return Facts({Mapping: mapping, KernelLayout: layout, PageWalk: walk})


def places(layout, rows, rule):
    """Pages from the start of the linear map that findings name."""
    (verdict,) = run([rule], facts(layout, rows))
    vas = [va for finding in verdict.findings for va in finding.hit.vas]
    return [((va.start - LINEAR) // 4096, (va.end - LINEAR) // 4096) for va in vas]


WHOLE = row(0, RUN, 0)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([WHOLE], []),
        ([row(0, 15, 0)], [(0, 15)]),
        ([row(1, 16, 1)], [(1, 16)]),
        ([row(0, 8, 0), row(8, 16, 24)], []),  # one run of like entries, wherever they lead
        ([row(0, 8, 0), row(9, 16, 9)], [(0, 8), (9, 16)]),
        ([row(0, 8, 0), row(8, 16, 8, attrs=CONT | Attr.RDONLY)], [(0, 8), (8, 16)]),
        ([row(0, 8, 0), row(8, 16, 8, memtype=MemType.NORMAL_NC)], [(0, 8), (8, 16)]),
        ([row(504, 512, 504), row(512, 8704, 512, level=PMD)], [(504, 512), (512, 8704)]),
        ([row(0, 8192, 0, level=PMD), row(8192, 8200, 8192)], [(8192, 8200)]),
        ([row(0, 16, 0, attrs=PLAIN), row(16, 24, 16), row(24, 32, 24, attrs=PLAIN)], [(16, 24)]),
        ([row(0, 8, 0, level=PUD)], []),
    ],
)
def test_runs_that_are_not_whole(layout, rows, expected):
    assert places(layout, rows, incomplete_run) == expected


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([WHOLE], []),
        ([row(0, 16, RUN)], []),
        ([row(0, 16, 1)], [(0, 16)]),
        ([row(0, 16, 0, repeated=True)], [(0, 16)]),
        ([row(0, 16, 1, attrs=PLAIN)], []),
        ([row(0, 8, 0, attrs=PLAIN), row(8, 16, 24, attrs=PLAIN)], []),
        ([row(0, 16, 1, attrs=CONT & ~Attr.VALID)], []),
        ([row(0, 16, 0, level=PUD, repeated=True)], []),
        ([row(0, 8192, RUN, level=PMD)], [(0, 8192)]),
        # Each half goes on where its run would, but they are two runs.
        ([row(0, 8, 0), row(8, 16, 24)], [(0, 8), (8, 16)]),
        ([row(0, 16, 0), row(16, 24, 32), row(24, 48, 8)], [(16, 24), (24, 48)]),
        ([row(0, 16, 0, attrs=PLAIN), row(16, 24, 16), row(24, 32, 40)], [(16, 24), (24, 32)]),
        ([row(0, 16, 0), row(16, 32, 64)], []),
        # What is not whole is CNT-01, wherever it leads.
        ([row(8, 16, 9)], []),
        ([row(8, 16, 9), row(16, 32, 16)], []),
        ([row(0, 16, 0), row(16, 24, 17)], []),
        ([row(8, 12, 8), row(12, 32, 28)], []),
        ([row(0, 8, 0), row(8, 16, 24, attrs=CONT | Attr.RDONLY)], []),
        ([row(0, 24, 0), row(24, 48, 24, attrs=CONT | Attr.RDONLY)], []),
        ([row(0, 16, 0), row(16, 31, 17)], []),
    ],
)
def test_runs_that_lead_to_several_places(layout, rows, expected):
    assert places(layout, rows, run_not_contiguous) == expected

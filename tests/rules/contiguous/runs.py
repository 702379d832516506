"""Contiguous runs at their bounds: rows as a walk of the tables makes them, entry by entry."""

from __future__ import annotations

from parsers.arm64 import PTE, Attr, MemType
from parsers.layout import KernelLayout
from parsers.mapping import Mapping
from rules.engine import run
from rules.facts import Facts
from rules.model.memory.walk import PageWalk
from tests.rules.drawn import LINEAR
from tests.rules.walked import mapping_and_walk

PLAIN = Attr.PRESENT | Attr.VALID | Attr.AF | Attr.SHARED | Attr.PXN | Attr.UXN
CONT = PLAIN | Attr.CONT
RUN = 16
"""Pages in a run of 64 KiB; 16 blocks, 8192 pages, make one of 32 MiB."""


def row(start, end, pa, *, level=PTE, attrs=CONT, memtype=MemType.NORMAL, repeated=False):
    """Pages from the start of the linear map, and the page that the first leads to."""
    return start, end, pa, level, attrs, memtype, repeated


def facts(layout, rows):
    mapping, walk = mapping_and_walk(
        [(LINEAR + 4096 * start, end - start, pa, *more) for start, end, pa, *more in rows]
    )
    return Facts({Mapping: mapping, KernelLayout: layout, PageWalk: walk})


def places(layout, rows, rule):
    """Pages from the start of the linear map that findings name."""
    (verdict,) = run([rule], facts(layout, rows))
    vas = [va for finding in verdict.findings for va in finding.hit.vas]
    return [((va.start - LINEAR) // 4096, (va.end - LINEAR) // 4096) for va in vas]


WHOLE = row(0, RUN, 0)

"""Facts of a crash dump made by hand: what a walk of the tables found, and the sections beside it."""

from __future__ import annotations

import numpy as np

from parsers.arm64 import Attr, MemType
from parsers.layout import Precision
from parsers.mapping import Mapping
from parsers.ranges import EMPTY
from rules.facts import Facts
from rules.model.memory.regions import LinearMap, Vmemmap
from rules.model.memory.sections import NO_UNITS, SectionTable
from rules.model.memory.walk import PageWalk
from tests.rules.drawn import RAM, VMEMMAP

VALID = Attr.PRESENT | Attr.VALID | Attr.AF
PFN = RAM >> 12


def row(va, pages, pfn, *, level=3, attrs=VALID, memtype=MemType.NORMAL, repeated=False):
    """``pages`` of addresses, and the page that the first leads to; ``repeated``: and so do all others."""
    return va, pages, pfn, level, attrs, memtype, repeated


def struct_pages(pfn, stored, *, blocks=1, **more):
    """Blocks of struct pages, each of 32768 pages from ``pfn``, and the page that they are stored in."""
    return row(VMEMMAP + (pfn - PFN) * 64, 512 * blocks, stored, **{"level": 2} | more)


def facts(layout, rows, *more, **sections):
    """Rows in any order, other facts, and the ranges of a section table (without any: no table)."""
    start, pages, pfn, level, attrs, memtype, repeated = (list(one) for one in zip(*sorted(rows), strict=True))
    mapping = Mapping(
        start=np.array(start, dtype=np.uint64),
        size=np.array([4096 * one for one in pages], dtype=np.uint64),
        level=np.array(level, dtype=np.int8),
        attrs=np.array(attrs, dtype=np.uint16),
        memtype=np.array(memtype, dtype=np.uint8),
        observed_start=np.array([0], dtype=np.uint64),
        observed_last=np.array([2**64 - 1], dtype=np.uint64),
        source="core",
        pa=np.array([4096 * one for one in pfn], dtype=np.uint64),
    )
    walk = PageWalk("core", None, None, np.array(repeated), None, (), lambda _: [])
    known = [mapping, layout, LinearMap.of(mapping, layout), Vmemmap.of(mapping, layout), walk, *more]
    if sections:
        known.append(table(layout, **sections))
    return Facts({type(one): one for one in known})


def table(layout, **sections):
    """A section table read from a dump; what is not named is empty."""
    ranges = ("valid", "possible", "ram", "online", "blocks", "nomap", "early", "hotadded", "device")
    columns = dict.fromkeys(ranges, EMPTY) | {"device_units": NO_UNITS, "block_units": NO_UNITS}
    known = {"precision": Precision.EXACT, "blocks_known": True, "devices_known": True}
    return SectionTable(layout=layout, source="core", **columns | known | sections)

"""Facts of a crash dump made by hand: what a walk of the tables found, and the sections beside it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from parsers.arm64 import Attr, MemType
from parsers.layout import Precision
from parsers.mapping import Mapping, TablePages
from parsers.ranges import EMPTY, Ranges
from parsers.vmcore.faults import FAULTS, Fault, TableFaults
from parsers.vmcore.rows import BlockRows
from rules.engine import Outcome, run
from rules.facts import Facts
from rules.model.memory.lists import NO_UNITS, Units
from rules.model.memory.regions import LinearMap, Vmemmap
from rules.model.memory.sections import SectionTable
from rules.model.memory.walk import PageWalk
from tests.rules.drawn import LINEAR, RAM, VMEMMAP

VALID = Attr.PRESENT | Attr.VALID | Attr.AF
PFN = RAM >> 12


def row(va, pages, pfn, *, level=3, attrs=VALID, memtype=MemType.NORMAL, repeated=False):
    """``pages`` of addresses, and the page that the first leads to; ``repeated``: and so do all others."""
    return va, pages, pfn, level, attrs, memtype, repeated


def struct_pages(pfn, stored, *, blocks=1, **more):
    """Blocks of struct pages, each of 32768 pages from ``pfn``, and the page that they are stored in."""
    return row(VMEMMAP + (pfn - PFN) * 64, 512 * blocks, stored, **{"level": 2} | more)


def mapping_and_walk(rows):
    """The mapping of rows in the order of their addresses, and the walk that found it."""
    start, pages, pfn, level, attrs, memtype, repeated = (list(one) for one in zip(*rows, strict=True))
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
    return mapping, PageWalk("core", None, None, np.array(repeated), None, (), lambda _: [])


def facts(layout, rows, *more, **sections):
    """Rows in any order, other facts, and the ranges of a section table (without any: no table)."""
    mapping, walk = mapping_and_walk(sorted(rows))
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


SECTION = 0x8000
DIMM = PFN + 8 * SECTION
"""Behind 1 GiB of boot memory."""


def judged(rule, known):
    (verdict,) = run([rule], known)
    assert verdict.outcome is not Outcome.ERROR, verdict.reason
    return verdict


def sections(*numbers):
    """Page frames of sections after the boot memory."""
    return Ranges.pairs((DIMM + one * SECTION, DIMM + (one + 1) * SECTION) for one in numbers)


def units(*numbers, name="memory"):
    start = DIMM + np.array(numbers, dtype=np.int64) * SECTION
    return Units(start, start + SECTION, tuple(f"{name}{one}" for one in numbers), (None,) * len(numbers), "core")


BOOT = Ranges.one(PFN, DIMM)
MACHINE = {
    "possible": BOOT | sections(0, 1, 2, 4, 5),
    "early": BOOT,
    "hotadded": sections(0, 1, 2, 4, 5),
    "blocks": BOOT | sections(0, 1, 2),
    "online": BOOT | sections(0, 1),
    "device": sections(4, 5),
    "block_units": units(0, 1, 2),
    "device_units": units(4, 5, name="dax"),
}
"""Blocks 0 and 1 are online, 2 is offline; 3 is nothing, 4 and 5 are devices."""


def block_rows(**changes):
    numbers = np.array([(PFN >> 15) + one for one in range(11)], dtype=np.uint64)
    columns = {"nid": [0] * 11, "nr_vmemmap_pages": [0] * 11} | changes
    return BlockRows(
        start_section_nr=numbers,
        state=("online",) * 11,
        nid=np.array(columns["nid"], dtype=np.int64),
        zone=("",) * 11,
        has_altmap=np.zeros(11, dtype=np.bool_),
        altmap_base_pfn=np.zeros(11, dtype=np.uint64),
        nr_vmemmap_pages=np.array(columns["nr_vmemmap_pages"], dtype=np.uint64),
        group=np.zeros(11, dtype=np.uint64),
        address=np.zeros(11, dtype=np.uint64),
        sections_per_block=1,
    )


def at(section, page=0):
    """A page of a section after the boot memory; of the boot memory where it is below zero."""
    return DIMM + section * SECTION + page


NOTHING = Attr(0)
WHOLE = {"valid": sections(0, 1), "possible": sections(0, 1), "hotadded": sections(0, 1)}


def places(verdict):
    return [one for finding in verdict.findings for one in finding.hit.pfns.tuples()]


def linear(page, pages, pfn, **more):
    return row(LINEAR + page * 4096, pages, PFN + pfn, **more)


REACH = 1 << 35
"""Pages that a linear map of 47 bits has addresses for."""


def with_tables(layout, tables, *, missing=(), fault=Fault.MISSING, **sections):
    """Facts with tables (page, level, address, descriptor), and entries for tables that cannot be followed."""
    known = facts(layout, [linear(0, 16, 0)], **sections or WHOLE)
    pfn, level, va, descriptor = (list(one) for one in zip(*tables, strict=True))
    count = len(missing)
    pages = TablePages(
        pa=np.array([one << 12 for one in pfn], dtype=np.uint64),
        level=np.array(level, dtype=np.int8),
        va=np.array(va, dtype=np.uint64),
        used=np.ones(len(pfn), dtype=np.uint32),
        parent_pa=np.array([(PFN << 12) + 8 * one for one in range(len(pfn))], dtype=np.uint64),
    )
    faults = TableFaults(
        kind=np.full(count, FAULTS.index(fault), dtype=np.uint8),
        entry_pa=np.zeros(count, dtype=np.uint64),
        level=np.full(count, 2, dtype=np.int8),
        va=np.full(count, LINEAR, dtype=np.uint64),
        descriptor=np.zeros(count, dtype=np.uint64),
        table_pa=np.array([one << 12 for one in missing], dtype=np.uint64),
        total=count,
    )
    known.known[PageWalk] = replace(
        known.known[PageWalk], tables=pages, table_descriptor=np.array(descriptor, dtype=np.uint64), faults=faults
    )
    return known


def a_table(pfn, *, level=3, va=LINEAR, descriptor=3):
    return pfn, level, va, descriptor


NOT_VALID = Attr.PRESENT | Attr.AF | Attr.CONT
UNKNOWN = BOOT | sections(0, 1, 2, 4, 5, 6)
"""What is valid: of section 6 nobody knows since when."""

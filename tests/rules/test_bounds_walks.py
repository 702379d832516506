"""Rules that need a walk of the tables, at the bounds of what they look at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from parsers.arm64 import Attr
from parsers.iomem import parse_iomem
from parsers.layout import KernelLayout, Precision
from parsers.mapping import Mapping, TablePages
from parsers.ranges import Ranges
from parsers.uname import parse_uname
from parsers.vmcore.faults import FAULTS, Fault, TableFaults
from parsers.vmcore.rows import BlockRows
from rules.contiguous.cnt03_cont_in_vmemmap import contiguous_in_vmemmap
from rules.contiguous.cnt04_tlb_shatter import contiguous_tlb_shatter
from rules.contiguous.cnt06_output_change import output_change
from rules.engine import Outcome, run
from rules.finding import Claim, Severity
from rules.linear_map.lin05_wrong_offset import wrong_linear_offset
from rules.memmap_on_memory.mom02_foreign_altmap import foreign_altmap
from rules.model.memory.regions import LinearMap, Vmemmap
from rules.model.memory.resources import Resources
from rules.model.memory.sections import Units
from rules.model.memory.snapshots import Earlier
from rules.model.memory.walk import PageWalk
from rules.tables.tbl02_table_in_removed_memory import table_in_removed_memory
from rules.tables.tbl05_malformed_entry import malformed_entry
from rules.tables.tbl06_attribute_drift import attribute_drift
from rules.vmemmap.vmm02_lost_struct_pages import lost_struct_pages
from rules.vmemmap.vmm07_mixed_granularity import mixed_granularity
from rules.vmemmap.vmm08_populate_skipped import populate_skipped_under_table
from rules.vmemmap.vmm09_backing_elsewhere import backing_elsewhere
from rules.vmemmap.vmm11_vmemmap_alias import vmemmap_alias
from rules.vmemmap.vmm14_half_added import half_added
from tests.rules.drawn import LINEAR, MIB, VMEMMAP, Drawn
from tests.rules.walked import PFN, VALID, facts, row, struct_pages

CAPTURES = Path(__file__).parents[2] / "fixtures" / "captures"
SECTION = 0x8000
DIMM = PFN + 8 * SECTION
"""Behind 1 GiB of boot memory."""


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    return Drawn().audit(tmp_path_factory.mktemp("drawn")).facts.get(KernelLayout)


def judged(rule, known):
    (verdict,) = run([rule], known)
    assert verdict.outcome is not Outcome.ERROR, verdict.reason
    return verdict


def sections(*numbers):
    """Page frames of sections behind the boot memory."""
    return Ranges.pairs((DIMM + one * SECTION, DIMM + (one + 1) * SECTION) for one in numbers)


# VMM-09: where struct pages are stored --------------------------------------------------------------------------------


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
    """A page of a section behind the boot memory; of the boot memory where it is below zero."""
    return DIMM + section * SECTION + page


@pytest.mark.parametrize(
    ("describes", "stored", "expected"),
    [
        (0, at(-1), []),
        (0, at(0), []),  # its own, as a namespace with map=dev
        (0, at(0, SECTION - 512), []),
        (0, at(1), [("pinned", Severity.LOW)]),
        (0, at(2), [("offline", Severity.CRITICAL)]),
        (0, at(3), [("gone", Severity.CRITICAL)]),
        (0, at(6), [("gone", Severity.CRITICAL)]),
        (0, at(4), [("device", Severity.HIGH)]),
        (2, at(2), []),
        (4, at(4), []),
        (4, at(5), [("device", Severity.HIGH)]),
        (4, at(0), [("pinned", Severity.LOW)]),
        (-1, at(0), [("pinned", Severity.LOW)]),
        (-8, at(-8), []),
    ],
)
def test_where_struct_pages_are_stored(layout, describes, stored, expected):
    verdict = judged(backing_elsewhere, facts(layout, [struct_pages(at(describes), stored)], **MACHINE))
    assert [(one.hit.key, one.severity) for one in verdict.findings] == expected
    found = [one for finding in verdict.findings for one in finding.hit.pfns.tuples()]
    assert found == [(at(describes), at(describes + 1)) for _ in expected]
    assert verdict.reason == ""


HOSTS = {"nr_vmemmap_pages": [0] * 8 + [512, 512, 0]}
"""Of the three blocks behind the boot memory, the first two hold their own struct pages."""


@pytest.mark.parametrize(
    ("describes", "stored", "expected"),
    [
        (0, at(0), []),
        (0, at(0, 512), [Severity.CRITICAL]),
        (0, at(0, SECTION - 512), [Severity.CRITICAL]),
        (0, at(1), [Severity.HIGH]),
        (1, at(0, SECTION - 512), [Severity.HIGH]),
        (1, at(2), [Severity.CRITICAL]),  # offline
        (1, at(-8), []),
        (1, at(1), []),
        (-8, at(1, 512), []),
        (-1, at(1, 512), []),
        (2, at(1, 512), []),
        (4, at(1, 512), []),
    ],
)
def test_where_blocks_with_struct_pages_of_their_own_have_them(layout, describes, stored, expected):
    known = facts(layout, [struct_pages(at(describes), stored)], block_rows(**HOSTS), **MACHINE)
    verdict = judged(foreign_altmap, known)
    assert verdict.reason == ""
    assert [one.severity for one in verdict.findings] == expected
    found = [one for finding in verdict.findings for one in finding.hit.pfns.tuples()]
    assert found == [(at(describes), at(describes + 1)) for _ in expected]


def test_struct_pages_in_their_own_block_that_is_gone(layout):
    """They are MOM-03's."""
    machine = MACHINE | {"hotadded": sections(1, 2, 4, 5)}
    known = facts(layout, [struct_pages(at(0), at(0, 512))], block_rows(**HOSTS), **machine)
    assert judged(foreign_altmap, known).outcome is Outcome.PASSED


def test_what_lies_in_several_units_is_judged_by_each(layout):
    """The last 256 of 512 pages are in the next block, which is offline."""
    verdict = judged(backing_elsewhere, facts(layout, [struct_pages(at(1), at(2, -256))], **MACHINE))
    assert [one.hit.pfns.tuples() for one in verdict.findings] == [[(at(1, SECTION // 2), at(2))]]
    rows = [struct_pages(at(0), at(1, -1024), blocks=2)]
    verdict = judged(backing_elsewhere, facts(layout, rows, **MACHINE))
    assert [one.hit.pfns.tuples() for one in verdict.findings] == [[(at(1), at(2))]]


@pytest.mark.parametrize(
    ("describes", "nid", "expected"),
    [
        (0, [0] * 8 + [1, 1, 1], ["node"]),
        (0, [1] * 8 + [1, 1, 1], []),
        (0, [-1] * 8 + [1, 1, 1], []),
        (0, [0] * 8 + [-1, 1, 1], []),
        (0, [1] * 8 + [0, 0, 0], ["node"]),
        (4, [0] * 8 + [1, 1, 1], []),  # nobody knows the node of a device
        (-2, [0] * 6 + [1] * 2 + [1, 1, 1], []),  # boot memory
    ],
)
def test_struct_pages_on_another_node(layout, describes, nid, expected):
    known = facts(layout, [struct_pages(at(describes), at(-8))], block_rows(nid=nid), **MACHINE)
    assert [one.hit.key for one in judged(backing_elsewhere, known).findings] == expected


def test_memory_of_a_unit_that_is_gone_is_gone_and_nothing_else(layout):
    machine = MACHINE | {"possible": BOOT | sections(0, 2)}
    known = facts(layout, [struct_pages(at(0), at(1))], block_rows(nid=[0] * 9 + [1, 1]), **machine)
    assert [one.hit.key for one in judged(backing_elsewhere, known).findings] == ["gone"]


def test_memory_of_no_block_is_on_no_node(layout):
    known = facts(layout, [struct_pages(at(0), at(4))], block_rows(nid=[1] * 11), **MACHINE)
    assert [one.hit.key for one in judged(backing_elsewhere, known).findings] == ["device"]


def test_memory_right_behind_a_unit_is_not_its_own(layout):
    machine = MACHINE | {"possible": BOOT | sections(0, 1, 2, 4, 5, 6)}
    known = facts(layout, [struct_pages(at(1), at(6))], **machine)
    assert judged(backing_elsewhere, known).outcome is Outcome.PASSED


def test_blocks_that_hold_their_own_struct_pages_are_left_to_their_rules(layout):
    own = [0] * 8 + [512, 0, 0]
    rows = [struct_pages(at(0), at(2)), struct_pages(at(1), at(2, 512))]
    known = facts(layout, rows, block_rows(nr_vmemmap_pages=own), **MACHINE)
    assert [one.hit.pfns.tuples() for one in judged(backing_elsewhere, known).findings] == [[(at(1), at(2))]]


@pytest.mark.parametrize(("stored", "outcome"), [(at(1), Outcome.UNDECIDED), (at(-1), Outcome.PASSED)])
def test_hot_added_memory_of_no_known_unit(layout, stored, outcome):
    machine = MACHINE | {"block_units": units(), "device_units": units()}
    assert judged(backing_elsewhere, facts(layout, [struct_pages(at(0), stored)], **machine)).outcome is outcome


# VMM-08, VMM-02: what was never populated, and what was torn out ------------------------------------------------------

NOTHING = Attr(0)
WHOLE = {"valid": sections(0, 1), "possible": sections(0, 1), "hotadded": sections(0, 1)}


def hole(section, page, pages, *, level=3):
    """Empty entries for the struct pages of some pages of a section."""
    return row(VMEMMAP + (at(section, page) - PFN) * 64, pages // 64, 0, level=level, attrs=NOTHING)


@pytest.mark.parametrize(
    ("rows", "machine", "skipped", "lost"),
    [
        ([hole(0, 64, 128)], WHOLE, [(at(0, 64), at(0, 192))], []),
        ([hole(0, 0, SECTION), hole(1, 0, SECTION)], WHOLE, [(at(0), at(2))], []),
        ([hole(0, 0, SECTION, level=2)], WHOLE, [], [(at(0), at(1))]),
        ([hole(0, 64, 128)], WHOLE | {"early": sections(0)}, [], []),
        ([hole(0, 64, 128)], WHOLE | {"valid": Ranges.one(at(0), at(0, 512))}, [], [(at(0, 64), at(0, 192))]),
        ([struct_pages(at(0), at(-1)), hole(1, 64, 64)], WHOLE, [(at(1, 64), at(1, 128))], []),
    ],
)
def test_struct_pages_that_were_never_populated(layout, rows, machine, skipped, lost):
    known = facts(layout, [*mapped_struct_pages(rows), *rows], **machine)
    assert places(judged(populate_skipped_under_table, known)) == skipped
    assert places(judged(lost_struct_pages, known)) == lost


def test_sections_that_were_never_populated_are_told_one_by_one(layout):
    machine = {"valid": sections(0, 2), "possible": sections(0, 2), "hotadded": sections(0, 2)}
    known = facts(layout, [hole(0, 64, 64), hole(2, 64, 64)], **machine)
    found = [one.hit.pfns.tuples() for one in judged(populate_skipped_under_table, known).findings]
    assert found == [[(at(0, 64), at(0, 128))], [(at(2, 64), at(2, 128))]]


def mapped_struct_pages(rows):
    """Last-level entries for all struct pages of two sections that ``rows`` do not speak of."""
    spoken = Ranges.pairs((va - VMEMMAP, va - VMEMMAP + pages * 4096) for va, pages, *_ in rows)
    first = (at(0) - PFN) * 64
    every = Ranges.one(first, first + 4 * MIB) - spoken
    return [row(VMEMMAP + lo, (hi - lo) // 4096, at(-8)) for lo, hi in every.tuples()]


def places(verdict):
    return [one for finding in verdict.findings for one in finding.hit.pfns.tuples()]


def test_what_is_valid_must_be_known_exactly(tmp_path):
    assert Drawn().verdict(tmp_path, "VMM-08").outcome is Outcome.UNDECIDED


def test_large_pages_have_no_blocks_of_struct_pages():
    moment = CAPTURES / "dimm-6.12-64k" / "02-dimm-online"
    (verdict,) = audit(Request((moment,)), only=("VMM-08",)).verdicts
    assert verdict.outcome is Outcome.NOT_APPLICABLE


# VMM-11: struct pages that are not one's own --------------------------------------------------------------------------

FIRST, SECOND = struct_pages(at(0), at(-8)), struct_pages(at(1), at(-8))
BOTH = [(at(0), at(2))]


@pytest.mark.parametrize(
    ("rows", "release", "device", "expected"),
    [
        ([FIRST, SECOND], "6.12.5", (), BOTH),
        ([FIRST, SECOND], None, (0, 1), BOTH),
        ([FIRST, struct_pages(at(1), at(-7))], "6.12.5", (), []),
        ([FIRST, struct_pages(at(1), at(-8), attrs=VALID | Attr.RDONLY)], "6.12.5", (), []),
        ([FIRST, SECOND], "6.1.100", (0, 1), []),
        ([FIRST, SECOND], "6.1.100", (0,), BOTH),
        ([FIRST, SECOND], "6.1.100", None, BOTH),
        ([FIRST, SECOND], "6.12.5", (0, 1), BOTH),
        # What is stored right before or behind is not shared.
        ([FIRST, SECOND, struct_pages(at(2), at(-8, 512)), struct_pages(at(3), at(-8, -512))], "6.12.5", (), BOTH),
        ([FIRST, struct_pages(at(1), at(-8, 256))], "6.12.5", (), [(at(0, SECTION // 2), at(1, SECTION // 2))]),
    ],
)
def test_struct_pages_that_share_a_page(layout, rows, release, device, expected):
    more = [] if release is None else [parse_uname(release.encode(), "uname")]
    known = facts(layout, rows, *more, **({} if device is None else {"device": sections(*device)}))
    assert places(judged(vmemmap_alias, known)) == expected


# VMM-14: what a failed hot-add left -----------------------------------------------------------------------------------


def resources(*ranges):
    every = Ranges.pairs((lo << 12, hi << 12) for lo, hi in ranges)
    return Resources.of(
        parse_iomem(b"".join(b"%08x-%08x : something\n" % (lo, hi - 1) for lo, hi in every.tuples()) or IOMEM, "iomem")
    )


IOMEM = b"40000000-7fffffff : System RAM\n"
LINEAR_RAM = row(LINEAR, 0x40000, PFN, level=1)


@pytest.mark.parametrize(
    ("changes", "listed", "linear", "expected"),
    [
        ({}, (), (), [(at(0), at(2))]),
        ({"blocks": sections(0)}, (), (), [(at(1), at(2))]),
        ({"online": sections(1)}, (), (), [(at(0), at(1))]),
        ({"hotadded": sections(1)}, (), (), [(at(1), at(2))]),
        ({"hotadded": sections(0, 2)}, (), (), [(at(0), at(1)), (at(2), at(3))]),
        ({}, ((at(0), at(1)),), (), [(at(1), at(2))]),
        ({}, (), (row(LINEAR + (at(1) - PFN) * 4096, SECTION, at(1), level=2),), [(at(0), at(1))]),
        ({}, (), (row(LINEAR + (at(0) - PFN) * 4096, 512, at(0), level=2),), [(at(0, 512), at(2))]),
        ({"blocks_known": False}, (), (), Outcome.UNDECIDED),
        ({"precision": Precision.DERIVED}, (), (), Outcome.UNDECIDED),
    ],
)
def test_sections_that_nobody_owns(layout, changes, listed, linear, expected):
    known = facts(layout, [LINEAR_RAM, *linear], resources(*listed), **WHOLE | changes)
    verdict = judged(half_added, known)
    assert (verdict.outcome if isinstance(expected, Outcome) else places(verdict)) == expected
    assert len(verdict.findings) == (0 if isinstance(expected, Outcome) else len(expected))


@pytest.mark.parametrize(
    ("names", "owned"),
    [
        (("Persistent Memory",), False),
        (("Persistent Memory", "namespace0.0"), False),
        (("CXL Window 0", "region0", "dax0.0"), False),
        (("PCI Bus 0000:00", "0000:01:00.0"), False),
        (("amdgpu device memory",), True),
        (("System RAM (kmem)",), True),
    ],
)
def test_a_window_of_firmware_owns_no_sections(layout, names, owned):
    """Nor does what a driver claimed in it; device-private memory, which is not mapped, has a resource of its own."""
    lines = [
        b"%s%08x-%08x : %s\n" % (b"  " * depth, at(0) << 12, (at(2) << 12) - 1, name.encode())
        for depth, name in enumerate(names)
    ]
    listed = Resources.of(parse_iomem(b"".join(lines), "iomem"))
    verdict = judged(half_added, facts(layout, [LINEAR_RAM], listed, **WHOLE))
    assert places(verdict) == ([] if owned else [(at(0), at(2))])


# LIN-05: where the linear map leads -----------------------------------------------------------------------------------


def linear(page, pages, pfn, **more):
    return row(LINEAR + page * 4096, pages, PFN + pfn, **more)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([linear(0, 16, 0), linear(16, 16, 16)], []),
        ([linear(0, 16, 0), linear(16, 16, 32)], [(PFN + 16, PFN + 32)]),
        ([linear(0, 16, 0), linear(16, 16, 32, attrs=Attr.PRESENT)], []),
        ([linear(0, 16, 0), linear(16, 16, 16, repeated=True)], [(PFN + 16, PFN + 32)]),
        ([linear(0, 16, 0), linear(16, 16, 16, repeated=True, attrs=Attr.PRESENT)], []),
    ],
)
def test_where_linear_addresses_lead(layout, rows, expected):
    assert places(judged(wrong_linear_offset, facts(layout, rows))) == expected


def test_repeated_entries_are_told_by_the_walk_alone(layout):
    known = facts(layout, [linear(0, 16, 0), linear(16, 16, 16, repeated=True)])
    del known.known[PageWalk]
    assert judged(wrong_linear_offset, known).outcome is Outcome.PASSED


# CNT-06: output addresses that changed --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "now", "early", "expected"),
    [
        ([linear(0, 16, 0)], [linear(0, 16, 0)], (), []),
        ([linear(0, 16, 0)], [linear(0, 16, 16)], (), [("linear other", Severity.MEDIUM, 0, 16)]),
        ([linear(0, 16, 0)], [linear(0, 16, 16)], (-8,), [("linear boot", Severity.CRITICAL, 0, 16)]),
        ([linear(0, 16, 0)], [linear(0, 8, 0), linear(8, 8, 8)], (), []),  # cut elsewhere
        ([linear(0, 16, 0)], [linear(0, 8, 0), linear(8, 8, 16)], (), [("linear other", Severity.MEDIUM, 8, 16)]),
        ([linear(0, 8, 0), linear(8, 8, 16)], [linear(0, 16, 0)], (), [("linear other", Severity.MEDIUM, 8, 16)]),
        ([linear(0, 16, 0)], [linear(0, 16, 16, attrs=Attr.PRESENT)], (), []),
        ([linear(0, 16, 0, attrs=Attr.PRESENT)], [linear(0, 16, 16)], (), []),
        ([linear(0, 8, 0)], [linear(8, 8, 16)], (), []),
    ],
)
def test_addresses_that_lead_elsewhere_than_before(layout, before, now, early, expected):
    earlier = facts(layout, before)
    known = facts(
        layout,
        now,
        Earlier(earlier.known[LinearMap], earlier.known[Vmemmap]),
        early=sections(*early),
        valid=sections(0),
    )
    found = judged(output_change, known).findings
    start, end = LINEAR, 4096
    assert [
        (one.hit.key, one.severity, (one.hit.vas[0].start - start) // end, (one.hit.vas[0].end - start) // end)
        for one in found
    ] == expected
    claims = {"linear boot": Claim.PROBABLE, "linear other": Claim.SUSPECTED}
    assert all(one.hit.claim is claims[one.hit.key] for one in found)
    assert [one.hit.pfns.tuples() for one in found] == [[(PFN + lo, PFN + hi)] for _, _, lo, hi in expected]


@pytest.mark.parametrize(("before", "now"), [(True, False), (False, True)])
def test_text_dumps_do_not_say_where_addresses_lead(layout, before, now):
    """One of the two is a text dump."""
    regions = []
    for walked in (before, now):
        known = facts(layout, [linear(0, 16, 0)]).known
        mapping = known[Mapping] if walked else replace(known[Mapping], pa=None)
        regions.append((LinearMap.of(mapping, layout), Vmemmap.of(mapping, layout)))
    known = facts(layout, [linear(0, 16, 0)], Earlier(*regions[0]))
    known.known.update({LinearMap: regions[1][0], Vmemmap: regions[1][1]})
    assert judged(output_change, known).outcome is Outcome.UNDECIDED


def test_addresses_of_which_nothing_is_mapped(layout):
    holes = [row(LINEAR, 16, 0, attrs=NOTHING)]
    earlier = facts(layout, holes)
    known = facts(layout, holes, Earlier(earlier.known[LinearMap], earlier.known[Vmemmap]))
    assert judged(output_change, known).outcome is Outcome.PASSED


# TBL-02, TBL-06: tables -----------------------------------------------------------------------------------------------

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


@pytest.mark.parametrize(
    ("fault", "pfn", "words"),
    [
        (Fault.RESERVED, at(-8), Fault.RESERVED.value),
        (Fault.RESERVED, PFN + REACH, Fault.RESERVED.value),
        (Fault.MISALIGNED, at(-8), Fault.MISALIGNED.value),
        (Fault.ELSEWHERE, at(-8), Fault.ELSEWHERE.value),
        (Fault.MISSING, PFN + REACH, "no memory can be"),
        (Fault.MISSING, PFN - 1, "no memory can be"),
        (Fault.MISSING, PFN + REACH - 1, None),
        (Fault.MISSING, PFN, None),
    ],
)
def test_entries_that_cannot_be_followed(layout, fault, pfn, words):
    known = with_tables(layout, [a_table(at(-8))], missing=(pfn,), fault=fault)
    found = judged(malformed_entry, known).findings
    assert [words in one.hit.title for one in found] == [True for _ in range(words is not None)]
    assert [(va.start, va.end) for one in found for va in one.hit.vas] == [(LINEAR, LINEAR + 2 * MIB) for _ in found]


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


# CNT-03, CNT-04: contiguous runs --------------------------------------------------------------------------------------

NOT_VALID = Attr.PRESENT | Attr.AF | Attr.CONT
UNKNOWN = BOOT | sections(0, 1, 2, 4, 5, 6)
"""What is valid: of section 6 nobody knows since when."""


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


@pytest.mark.parametrize(("attrs", "outcome"), [(VALID | Attr.CONT, Outcome.FIRED), (NOT_VALID, Outcome.PASSED)])
def test_contiguous_entries_of_struct_pages_count_when_they_are_valid(layout, attrs, outcome):
    known = facts(layout, [row(VMEMMAP, 16, PFN, attrs=attrs)], **MACHINE)
    assert judged(contiguous_in_vmemmap, known).outcome is outcome


# VMM-07: struct pages in base pages -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "attrs", "changes", "outcome"),
    [
        (3, VALID, {}, Outcome.FIRED),
        (3, VALID | Attr.RDONLY, {}, Outcome.PASSED),  # the HugeTLB optimisation's
        (2, VALID, {}, Outcome.PASSED),
        (2, VALID, {"valid": UNKNOWN}, Outcome.PASSED),
        (3, VALID, {"valid": UNKNOWN, "hotadded": sections(1), "block_units": units(1)}, Outcome.UNDECIDED),
    ],
)
def test_which_struct_pages_in_base_pages_are_a_fallback(layout, level, attrs, changes, outcome):
    known = facts(layout, [struct_pages(at(0), at(0), level=level, attrs=attrs)], **MACHINE | changes)
    assert judged(mixed_granularity, known).outcome is outcome

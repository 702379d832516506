"""Rules that need a walk of the tables, at the bounds of what they look at."""

from __future__ import annotations

import numpy as np
import pytest

from parsers.layout import KernelLayout
from parsers.ranges import Ranges
from parsers.vmcore.rows import BlockRows
from rules.engine import Outcome, run
from rules.finding import Severity
from rules.model.sections import Units
from rules.vmemmap.vmm09_backing_elsewhere import backing_elsewhere
from tests.rules.drawn import Drawn
from tests.rules.walked import PFN, facts, struct_pages

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
    "hotadded": sections(0, 1, 2),
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
        (4, [0] * 8 + [1, 1, 1], []),  # nobody knows the node of a device
        (-2, [0] * 6 + [1] * 2 + [1, 1, 1], []),  # boot memory
    ],
)
def test_struct_pages_on_another_node(layout, describes, nid, expected):
    known = facts(layout, [struct_pages(at(describes), at(-8))], block_rows(nid=nid), **MACHINE)
    assert [one.hit.key for one in judged(backing_elsewhere, known).findings] == expected


def test_blocks_that_hold_their_own_struct_pages_are_left_to_their_rules(layout):
    own = [0] * 8 + [512, 0, 0]
    rows = [struct_pages(at(0), at(2)), struct_pages(at(1), at(2, 512))]
    known = facts(layout, rows, block_rows(nr_vmemmap_pages=own), **MACHINE)
    assert [one.hit.pfns.tuples() for one in judged(backing_elsewhere, known).findings] == [[(at(1), at(2))]]


@pytest.mark.parametrize(("stored", "outcome"), [(at(1), Outcome.UNDECIDED), (at(-1), Outcome.PASSED)])
def test_hot_added_memory_of_no_known_unit(layout, stored, outcome):
    machine = MACHINE | {"block_units": units(), "device_units": units()}
    assert judged(backing_elsewhere, facts(layout, [struct_pages(at(0), stored)], **machine)).outcome is outcome

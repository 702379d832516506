"""VMM-09: Struct pages are stored in memory that is gone, offline, removable by itself, or on another node."""

from __future__ import annotations

import pytest

from parsers.arm64 import PMD
from rules.engine import Outcome
from rules.finding import Claim, Severity
from rules.vmemmap.vmm09_backing_elsewhere import backing_elsewhere
from tests.rules.drawn import LINEAR
from tests.rules.dumps import BLOCK_ENTRY, pfns_of, struct_page_address, the_finding
from tests.rules.walked import BOOT, MACHINE, SECTION, at, block_rows, facts, judged, sections, struct_pages, units


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


def test_memory_right_after_a_unit_is_not_its_own(layout):
    machine = MACHINE | {"possible": BOOT | sections(0, 1, 2, 4, 5, 6)}
    known = facts(layout, [struct_pages(at(1), at(6))], **machine)
    assert judged(backing_elsewhere, known).outcome is Outcome.PASSED


@pytest.mark.parametrize(("after", "keys"), [((4,), []), ((4, 5), ["device"])])
def test_struct_pages_after_the_end_of_a_device_describe_nothing_until_something_is_there(layout, after, keys):
    """A 16K page of struct pages describes 4 MiB, and a namespace that holds its own can end in the middle of it."""
    ranges = sections(*after)
    machine = MACHINE | {
        "possible": BOOT | sections(0, 1, 2) | ranges, "hotadded": sections(0, 1, 2) | ranges, "device": ranges,
        "device_units": units(*after, name="dax"),
    }  # fmt: skip
    known = facts(layout, [struct_pages(at(4), at(4), blocks=2)], **machine)
    assert [one.hit.key for one in judged(backing_elsewhere, known).findings] == keys


def test_blocks_that_hold_their_own_struct_pages_are_left_to_their_rules(layout):
    own = [0] * 8 + [512, 0, 0]
    rows = [struct_pages(at(0), at(2)), struct_pages(at(1), at(2, 512))]
    known = facts(layout, rows, block_rows(nr_vmemmap_pages=own), **MACHINE)
    assert [one.hit.pfns.tuples() for one in judged(backing_elsewhere, known).findings] == [[(at(1), at(2))]]


@pytest.mark.parametrize(("stored", "outcome"), [(at(1), Outcome.UNDECIDED), (at(-1), Outcome.PASSED)])
def test_hot_added_memory_of_no_known_unit(layout, stored, outcome):
    machine = MACHINE | {"block_units": units(), "device_units": units()}
    assert judged(backing_elsewhere, facts(layout, [struct_pages(at(0), stored)], **machine)).outcome is outcome


NID = 16
"""Offset in struct memory_block of 6.12."""


def test_struct_pages_in_removed_memory(pmem, after):
    entry = pmem.entry(struct_page_address(0x80000), PMD)
    codes, verdicts = pmem.caused({entry: pmem.word(entry) - 0x42000000 + 0x90000000})
    assert codes == {"VMM-09"}
    finding = the_finding(verdicts, "VMM-09")
    assert (finding.severity, finding.hit.claim, finding.hit.key) == (Severity.CRITICAL, Claim.PROVEN, "gone")
    assert "0x90000000-0x90200000" in finding.hit.message
    # The middle subsections of the device are what was removed.
    boot = after.entry(struct_page_address(0x48000), PMD)
    codes, verdicts = after.caused({boot: after.word(boot) - 0x4FA00000 + 0x82000000})
    assert codes == {"VMM-09"}
    assert the_finding(verdicts, "VMM-09").severity is Severity.CRITICAL


def test_struct_pages_in_another_hot_added_block(mixed):
    boot = mixed.entry(struct_page_address(0x48000), PMD)
    codes, verdicts = mixed.caused({boot: BLOCK_ENTRY | 0x90200000})
    assert codes == {"VMM-09"}
    finding = the_finding(verdicts, "VMM-09")
    assert (finding.severity, finding.hit.key, pfns_of(finding)) == (Severity.LOW, "pinned", [(0x48000, 0x50000)])


def test_struct_pages_in_another_device_range(after):
    """The block of boot struct pages moved into the first namespace."""
    boot = after.entry(struct_page_address(0x48000), PMD)
    codes, verdicts = after.caused({boot: after.word(boot) - 0x4FA00000 + 0x80000000})
    assert codes == {"VMM-09"}
    assert (the_finding(verdicts, "VMM-09").hit.key, the_finding(verdicts, "VMM-09").severity) == (
        "device",
        Severity.HIGH,
    )


def test_struct_pages_in_an_offline_block(mixed):
    """Sections have an ONLINE flag (bit 2); without it the block's own state disagrees, which SEC-02 tells."""
    sections = mixed.dump().sections
    row = sections.section_nr.tolist().index(18)
    boot = mixed.entry(struct_page_address(0x48000), PMD)
    offline = {int(sections.pa[row]): int(sections.section_mem_map[row]) & ~4}
    codes, verdicts = mixed.caused(offline | {boot: BLOCK_ENTRY | 0x90200000})
    assert codes - {"SEC-02"} == {"VMM-09"}
    finding = the_finding(verdicts, "VMM-09")
    assert (finding.severity, finding.hit.key) == (Severity.CRITICAL, "offline")


def test_struct_pages_of_a_dump_on_another_node(mixed):
    """The block that they lie in says node 1."""
    blocks = mixed.dump().blocks
    nid = int(blocks.address[blocks.start_section_nr.tolist().index(23)]) - LINEAR + NID
    words = {
        nid: mixed.word(nid) & ~0xFFFFFFFF | 1,
        mixed.entry(struct_page_address(0x90000), PMD): BLOCK_ENTRY | 0xB8000000,
    }
    _, verdicts = mixed.caused(words)
    assert {(one.hit.key, one.severity) for one in verdicts["VMM-09"].findings} == {
        ("pinned", Severity.LOW),
        ("node", Severity.LOW),
    }

"""MOM-08: what the struct pages of self-hosted pages say, on a real dump and with damage written into it."""

import struct

import numpy as np
import pytest

from parsers.vmcore import self_hosted
from parsers.vmcore.dump import Dump
from parsers.vmcore.explain import explain
from parsers.vmcore.page_flags import FlagsLayout, page_kinds
from parsers.vmcore.rows import PageKind
from rules.engine import Outcome
from rules.finding import Claim, Severity
from tests.rules.patched import Machine

VMEMMAP = 0xFFFFFDFFC0000000
FIRST, HELD = 0x80000, 512
"""The first self-hosted page of the DIMM, and how many a block has."""
PER_BLOCK, BLOCKS = 0x8000, 4
FLAGS, MAPCOUNT = 0, 48
"""Offsets in struct page of 6.12; the references follow ``_mapcount`` in the same word."""
PLAIN = 0xFFFFFFFF
BUDDY, OFFLINE, TABLE = 0xF0000000, 0xF1000000, 0xF2000000
SELF_HOSTED, RESERVED = 1 << 10, 1 << 13
NODE_SHIFT, ZONE_SHIFT, MOVABLE, NORMAL = 60, 57, 3, 2
STATE = 8
"""Offset in struct memory_block of 6.12.117, where the states are an enum: offline is 2, going offline 1."""


@pytest.fixture(scope="module")
def dimm():
    return Machine("dimm-6.12-memmap-on-memory-online.core.zst")


def place(machine, va):
    return explain(machine.raw.memory, machine.addresses, va)[-1].output


def field(machine, pfn, offset):
    """Physical address of a word of the struct page of a PFN."""
    return place(machine, VMEMMAP + 64 * pfn + offset)


def mom08(machine, words=(), **more):
    return machine.audit(words, **more)["MOM-08"]


def only(verdict):
    (finding,) = verdict.findings
    return finding


def test_what_the_kernel_makes_of_self_hosted_pages_is_read(dimm):
    rows = dimm.dump().self_hosted
    wanted = [FIRST + block * PER_BLOCK + page for block in range(BLOCKS) for page in range(HELD)]
    assert rows.pfn.tolist() == wanted
    assert rows.va.tolist() == [VMEMMAP + 64 * pfn for pfn in wanted]
    assert rows.unread.size == 0
    assert {rows.zone_names[zone] for zone in rows.zone.tolist()} == {"Movable"}
    assert (rows.rest_zone == MOVABLE).all()
    for column, value in (("node", 0), ("rest_node", 0), ("marked", 1), ("reserved", 0), ("refcount", 1)):
        assert (getattr(rows, column) == value).all(), column
    assert (rows.kind == PageKind.PLAIN).all()
    assert mom08(dimm).outcome is Outcome.PASSED


@pytest.mark.parametrize(
    ("offset", "change", "severity", "said"),
    [
        (MAPCOUNT, lambda _: BUDDY | 1 << 32, Severity.CRITICAL, "The page allocator owns struct pages"),
        (MAPCOUNT, lambda _: BUDDY | 5, Severity.CRITICAL, "The page allocator owns struct pages"),
        (MAPCOUNT, lambda _: OFFLINE | 1 << 32, Severity.HIGH, "Struct pages are stored in pages of another use"),
        (MAPCOUNT, lambda _: TABLE | 1 << 32, Severity.HIGH, "Struct pages are stored in pages of another use"),
        (MAPCOUNT, lambda _: 0 | 2 << 32, Severity.HIGH, "Struct pages are stored in pages of another use"),
        (MAPCOUNT, lambda _: PLAIN, Severity.HIGH, "Nothing holds the pages of struct pages"),
        (FLAGS, lambda word: word ^ 1 << NODE_SHIFT, Severity.HIGH, "Self-hosted pages are in another node"),
        (FLAGS, lambda word: word ^ 1 << ZONE_SHIFT, Severity.HIGH, "Self-hosted pages are in another zone"),
        (FLAGS, lambda word: word & ~SELF_HOSTED, Severity.MEDIUM, "Self-hosted pages are not marked"),
    ],
)
def test_one_damaged_struct_page(dimm, offset, change, severity, said):
    pfn = FIRST + PER_BLOCK + 17
    at = field(dimm, pfn, offset)
    codes, verdicts = dimm.caused({at: change(dimm.word(at))})
    assert codes == {"MOM-08"}
    finding = only(verdicts["MOM-08"])
    assert finding.severity is severity
    assert finding.hit.claim is Claim.PROVEN
    assert finding.hit.title == f"{said} in 1 self-hosted memory block"
    assert finding.hit.pfns.tuples() == [(pfn, pfn + 1)]
    assert finding.hit.evidence[0].address == VMEMMAP + 64 * pfn


def test_more_references_are_not_damage(dimm):
    at = field(dimm, FIRST, MAPCOUNT)
    assert mom08(dimm, {at: PLAIN | 3 << 32}).outcome is Outcome.PASSED


def test_all_pages_reserved_is_how_it_was_before_6_11_and_some_is_damage(dimm):
    pages = [FIRST + page for page in range(HELD)]
    words = {at: dimm.word(at) | RESERVED for at in (field(dimm, pfn, FLAGS) for pfn in pages)}
    assert mom08(dimm, words).outcome is Outcome.PASSED
    del words[field(dimm, pages[5], FLAGS)]
    finding = only(mom08(dimm, words))
    assert (finding.severity, finding.hit.pfns.tuples()) == (Severity.MEDIUM, [(pages[5], pages[5] + 1)])


def test_without_the_rest_of_the_block_its_zone_is_that_of_the_memory_block(dimm):
    rest = place(dimm, VMEMMAP + 64 * (FIRST + HELD))
    assert mom08(dimm, missing=[rest]).outcome is Outcome.PASSED
    at = field(dimm, FIRST, FLAGS)
    moved = dimm.word(at) & ~(7 << ZONE_SHIFT) | NORMAL << ZONE_SHIFT
    finding = only(mom08(dimm, {at: moved}, missing=[rest]))
    assert finding.hit.title.startswith("Self-hosted pages are in another zone")


def test_pages_that_the_dump_lacks_leave_it_undecided(dimm):
    gone = field(dimm, FIRST + 2 * PER_BLOCK, FLAGS)
    verdict = mom08(dimm, missing=[gone])
    assert verdict.outcome is Outcome.UNDECIDED
    assert "64 self-hosted pages" in verdict.reason
    assert verdict.collect
    entry = dimm.table(VMEMMAP + 64 * FIRST, 2)
    assert mom08(dimm, missing=[entry]).outcome is Outcome.UNDECIDED


def test_damage_counts_although_other_pages_are_missing(dimm):
    gone, bad = field(dimm, FIRST, FLAGS), field(dimm, FIRST + PER_BLOCK, MAPCOUNT)
    assert mom08(dimm, {bad: BUDDY}, missing=[gone]).outcome is Outcome.FIRED


@pytest.mark.parametrize(("state", "outcome"), [(2, Outcome.NOT_APPLICABLE), (1, Outcome.UNDECIDED)])
def test_blocks_that_are_not_online_are_left_open(dimm, state, outcome):
    blocks = dimm.dump().blocks
    hosts = np.flatnonzero(blocks.nr_vmemmap_pages)
    words = {}
    for address in blocks.address[hosts].tolist():
        at = Dump(dimm.raw).physical(np.array([address + STATE], dtype=np.uint64))[0].item()
        words[at] = state
    bad = field(dimm, FIRST, MAPCOUNT)
    assert mom08(dimm, words | {bad: BUDDY}).outcome is outcome


def test_no_block_holds_its_own_struct_pages():
    assert mom08(Machine("dimm-6.12-mixed-online.core.zst")).outcome is Outcome.NOT_APPLICABLE


def test_of_very_many_the_first_and_last_of_each_block_are_read(dimm, monkeypatch):
    monkeypatch.setattr(self_hosted, "_MAX_PAGES", 100)
    rows = dimm.dump().self_hosted
    first = [FIRST + block * PER_BLOCK for block in range(BLOCKS)]
    assert rows.pfn.tolist() == [pfn for one in first for pfn in (one, one + HELD - 1)]
    assert mom08(dimm).outcome is Outcome.PASSED


class Types:
    """The types of a kernel with these enumerators and entries of a zonelist."""

    def __init__(self, zones, entries, names=()):
        self.zones, self.entries, self.names = zones, entries, {name: row for row, name in enumerate(names)}

    def enumerator(self, name):
        return self.zones if name == "__MAX_NR_ZONES" else self.names.get(name)

    def member(self, _type, _path):
        return type("Found", (), {"count": self.entries})


@pytest.mark.parametrize(
    ("zones", "nodes", "bits"), [(3, 1, (0, 2)), (4, 4, (2, 2)), (5, 16, (4, 3)), (5, 64, (6, 3)), (2, 2, (1, 1))]
)
def test_bits_of_node_and_zone_follow_from_the_configuration(zones, nodes, bits):
    layout = FlagsLayout.of(Types(zones, zones * nodes + 1))
    assert (layout.node_bits, layout.zone_bits) == bits
    flags = np.array([((nodes - 1) << (64 - bits[0]) if bits[0] else 0) | (zones - 1) << (64 - sum(bits))], np.uint64)
    assert (layout.node(flags).item(), layout.zone(flags).item()) == (nodes - 1, zones - 1)


@pytest.mark.parametrize("types", [Types(None, 81), Types(5, None), Types(5, 80), Types(9, 82)])
def test_types_that_do_not_say_where_node_and_zone_are(types):
    with pytest.raises(LookupError):
        FlagsLayout.of(types)


def test_types_of_pages_before_and_since_they_are_a_byte(dimm):
    old = type("Info", (), {"number": lambda _, name: {"BUDDY": -129, "OFFLINE": -257}[name.split("_")[1]]})
    values = struct.unpack("<4I", struct.pack("<4i", -129, -257, -1, 3))
    kinds = page_kinds(type("Of", (), {"vmcoreinfo": old()}), np.array(values, dtype=np.uint64))
    assert kinds.tolist() == [PageKind.BUDDY, PageKind.OFFLINE, PageKind.PLAIN, PageKind.MAPPED]
    values = np.array([BUDDY | 7, OFFLINE, TABLE, PLAIN, 0], dtype=np.uint64)
    kinds = page_kinds(Dump(dimm.raw), values)
    assert kinds.tolist() == [PageKind.BUDDY, PageKind.OFFLINE, PageKind.OTHER, PageKind.PLAIN, PageKind.MAPPED]

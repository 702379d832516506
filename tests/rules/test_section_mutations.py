"""Damage written into sections, blocks, zones and self-hosted struct pages of a dump, and the rule that finds it."""

from dataclasses import replace

import numpy as np
import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from parsers.arm64 import PMD, PTE
from parsers.cmdline import parse_cmdline
from parsers.dmesg import parse_dmesg
from parsers.layout import KernelLayout
from parsers.memmap_on_memory import parse_memmap_on_memory
from parsers.vmcore.dump import Dump
from parsers.vmcore.rows import BlockRows, HugetlbRows, SectionRows
from rules.engine import Outcome, builtin_rules, run
from rules.facts import Facts
from rules.finding import Claim, Severity
from rules.model.captured import Captured, build_facts
from tests.cases import case
from tests.rules.patched import Machine, table_page

MIB = 1 << 20
LINEAR, VMEMMAP = 0xFFFF000000000000, 0xFFFFFDFFC0000000
FREE_PAGE = 0x41100000
"""Memory of the machine that the small cores leave out."""
PRESENT, HAS_MEM_MAP, ONLINE, EARLY, DEVICE = 1, 2, 4, 8, 16
MEM_SECTION = 16
NOWHERE = 24
"""A section in which the machine has nothing."""
FROM_DUMPS = ("SEC-01", "SEC-05", "SEC-06", "SEC-07", "SEC-09", "SEC-12", "SEC-13")
SELF_HOSTED = ("MOM-01", "MOM-02", "MOM-03", "MOM-09")


class Sections(Machine):
    """A machine with names for what is damaged here: physical addresses of members of kernel structures."""

    def __init__(self, name):
        super().__init__(name)
        self.tells = Dump(self.raw)
        self.facts = self.dump()

    def section(self, number):
        """The words of ``mem_section[number]``: section_mem_map and usage."""
        rows = self.facts.sections
        first = int(rows.pa[rows.section_nr.tolist().index(16)])
        return first + (number - 16) * MEM_SECTION, first + (number - 16) * MEM_SECTION + 8

    def flags(self, number, *, give=0, take=0):
        """A change of the flags of a section."""
        place, _ = self.section(number)
        return {place: (self.word(place) | give) & ~take}

    def subsections(self, number):
        """The word of a section's subsection map."""
        rows = self.facts.sections
        usage = int(rows.usage[rows.section_nr.tolist().index(number)])
        return usage - LINEAR + self.tells.offset("mem_section_usage", "subsection_map")

    def block(self, number, member):
        """A member of ``struct memory_block``."""
        blocks = self.facts.blocks
        address = int(blocks.address[blocks.start_section_nr.tolist().index(number)])
        return address - LINEAR + self.tells.offset("memory_block", member)

    def altmap(self, number, member):
        """A member of the altmap of a block."""
        return self.word(self.block(number, "altmap")) - LINEAR + self.tells.offset("vmem_altmap", member)

    def zone(self, name, member):
        """A member of a zone of node 0."""
        tells = self.tells
        node, zones = tells.number(tells.global_at("node_data"), 8), tells.member("pglist_data", "node_zones")
        for zone in range(node + zones.offset, node + zones.offset + zones.size, zones.size // zones.count):
            if tells.string(tells.field(zone, "zone", "name")).decode() == name:
                return zone + tells.offset("zone", member) - LINEAR
        raise AssertionError(name)

    def offline_block(self, number):
        """A block that says it is offline."""
        place = self.block(number, "state")
        return {place: self.word(place) & ~0xFFFFFFFF | self.tells.enumerator("MEM_OFFLINE")}

    def offline(self, number):
        """A block and its section, offline."""
        return self.offline_block(number) | self.flags(number, take=ONLINE)

    def struct_pages_at(self, number, pa):
        """The struct pages of a section moved to another place."""
        entry = self.entry(VMEMMAP + 64 * (number << 15), PMD)
        return {entry: self.word(entry) - (number << 27) + pa}

    def max_pfn(self):
        """The kernel's variable."""
        return (self.tells.symbol("max_pfn") - self.addresses.kimage_voffset) % (1 << 64)


@pytest.fixture(scope="module")
def dimm():
    return Sections("dimm-6.12-memmap-on-memory-online.core.zst")


@pytest.fixture(scope="module")
def hvo():
    return Sections("hvo-6.1-allocated.core.zst")


@pytest.fixture(scope="module")
def pmem():
    return Sections("pmem-6.12-vuln-before.core.zst")


def the_finding(verdicts, code):
    (finding,) = verdicts[code].findings
    assert finding.hit.evidence
    return finding


def proven(verdicts, code, severity):
    finding = the_finding(verdicts, code)
    assert (finding.hit.claim, finding.severity) == (Claim.PROVEN, severity)
    return finding.hit.pfns.tuples()


# Sections -------------------------------------------------------------------------------------------------------------


def test_nothing_is_wrong_with_the_machines(dimm, pmem):
    for machine in (dimm, pmem):
        verdicts = machine.audit()
        for code in (*FROM_DUMPS, *SELF_HOSTED, "SEC-02", "SEC-03", "SEC-08"):
            assert verdicts[code].outcome in {Outcome.PASSED, Outcome.NOT_APPLICABLE}, code
    assert {dimm.audit()[code].outcome for code in SELF_HOSTED} == {Outcome.PASSED}


def judged(code, facts, **without):
    """The verdict of one rule about facts, some of them left out."""
    known = {kind: fact for kind, fact in facts.known.items() if kind.__name__ not in without}
    (verdict,) = run([rule for rule in builtin_rules() if rule.code == code], Facts(known, facts.missing))
    return verdict


def without_log(dump):
    """A crash dump whose log is not read."""
    return replace(dump, texts=replace(dump.texts, dmesg=None, log=None))


def facts_of(machine, *changed, **captured):
    """What is known of a machine, some facts exchanged."""
    facts = build_facts(Captured(vmcore=machine.facts, **captured))
    return Facts(dict(facts.known) | {type(one): one for one in changed}, facts.missing)


@pytest.mark.parametrize("flags", [ONLINE, ONLINE | PRESENT, ONLINE | HAS_MEM_MAP])
def test_online_and_not_there(dimm, flags):
    place, _ = dimm.section(NOWHERE)
    codes, verdicts = dimm.caused({place: flags})
    assert codes - {"SEC-02", "SEC-05", "SEC-07", "VMM-02"} == {"SEC-01"}
    assert ("SEC-02" in codes) is bool(flags & PRESENT)
    assert ("SEC-07" in codes) is bool(flags & HAS_MEM_MAP)
    assert proven(verdicts, "SEC-01", Severity.CRITICAL) == [(NOWHERE << 15, NOWHERE + 1 << 15)]
    assert the_finding(verdicts, "SEC-01").hit.evidence[0].address == place


def test_a_block_is_online_and_its_section_is_not(dimm):
    codes, verdicts = dimm.caused(dimm.flags(18, take=ONLINE))
    assert codes == {"SEC-02"}
    assert proven(verdicts, "SEC-02", Severity.HIGH) == [(18 << 15, 19 << 15)]


def test_a_block_is_offline_and_its_section_is_not(dimm):
    codes, verdicts = dimm.caused(dimm.offline_block(18))
    assert codes == {"SEC-02", "MOM-09"}
    assert proven(verdicts, "SEC-02", Severity.HIGH) == [(18 << 15, 19 << 15)]


def test_a_section_that_is_not_present_is_no_part_of_its_block(dimm):
    """It is SEC-01's, whatever its flag says, and the block has no other section."""
    rows = facts_of(dimm).get(SectionRows)
    gone = rows.section_nr == 18
    for online in (rows.online, rows.online & ~gone):
        changed = facts_of(dimm, replace(rows, present=rows.present & ~gone, online=online))
        assert judged("SEC-02", changed).outcome is Outcome.PASSED


def test_a_section_of_ram_without_a_block(dimm):
    """The block of section 19 stands for a section that does not exist."""
    codes, verdicts = dimm.caused({dimm.block(19, "start_section_nr"): 30})
    assert "SEC-02" in codes
    assert "SEC-13" not in codes
    lone = [one for one in verdicts["SEC-02"].findings if one.hit.key == "no block"]
    assert [one.hit.pfns.tuples() for one in lone] == [[(19 << 15, 20 << 15)]]
    stale = [one.hit for one in verdicts["SEC-02"].findings if "neither struct pages" in one.hit.title]
    assert [(one.claim, one.pfns.tuples()) for one in stale] == [(Claim.PROVEN, [(30 << 15, 31 << 15)])]


def test_an_offline_section_of_ram_without_a_block(dimm):
    _, verdicts = dimm.caused({dimm.block(19, "start_section_nr"): 30} | dimm.flags(19, take=ONLINE))
    lone = [one for one in verdicts["SEC-02"].findings if one.hit.key == "no block"]
    assert [one.hit.pfns.tuples() for one in lone] == [[(19 << 15, 20 << 15)]]


def test_online_memory_without_a_block_of_which_no_list_tells(dimm):
    dump = replace(dimm.dump({dimm.block(9, "start_section_nr"): 30}), iomem=None)
    verdict = judged("SEC-02", build_facts(Captured(vmcore=dump)))
    lone = [one.hit.pfns.tuples() for one in verdict.findings if one.hit.key == "no block"]
    assert lone == [[(9 << 15, 10 << 15)]]


@pytest.mark.parametrize("kind", ["BlockRows", "SectionRows", "SectionTable"])
def test_blocks_are_compared_with_tables_alone_where_structures_are_not_known(dimm, kind):
    assert judged("SEC-02", facts_of(dimm), **{kind: None}).outcome is Outcome.PASSED


def test_a_kernel_without_blocks_has_none_missing(dimm):
    facts = facts_of(dimm)
    blocks = facts.get(BlockRows)
    columns = {name: value[:0] for name, value in vars(blocks).items() if hasattr(value, "__len__")}
    assert judged("SEC-02", facts_of(dimm, replace(blocks, **columns))).outcome is Outcome.PASSED


def test_an_offline_block_without_sections_lingers(dimm):
    _, verdicts = dimm.caused({dimm.block(19, "start_section_nr"): 30} | dimm.offline_block(19))
    assert proven(verdicts, "SEC-13", Severity.MEDIUM) == [(30 << 15, 31 << 15)]
    assert {one.hit.key for one in verdicts["SEC-02"].findings} == {"no block"}


def test_a_zone_that_ends_too_early(dimm):
    codes, verdicts = dimm.caused({dimm.zone("Movable", "spanned_pages"): 0x18000})
    assert codes == {"SEC-03"}
    assert proven(verdicts, "SEC-03", Severity.HIGH) == [(0x98000, 0xA0000)]
    assert any("zone Movable: start_pfn 524288" in one.text for one in the_finding(verdicts, "SEC-03").hit.evidence)


def test_a_zone_that_begins_in_nothing(dimm):
    start, spanned = dimm.zone("Movable", "zone_start_pfn"), dimm.zone("Movable", "spanned_pages")
    codes, verdicts = dimm.caused({start: 0x78000, spanned: 0x28000})
    assert codes == {"SEC-03"}
    assert the_finding(verdicts, "SEC-03").hit.key == "ends"


def test_a_zone_that_ends_in_nothing(dimm):
    """By one page: what follows the last page of the span is the start of a section that is not there."""
    codes, verdicts = dimm.caused({dimm.zone("Movable", "spanned_pages"): 0x20001})
    assert codes == {"SEC-03"}
    assert {one.hit.key for one in verdicts["SEC-03"].findings} == {"ends", "node 0"}


@pytest.mark.parametrize(("present", "keys"), [(0, set()), (1, {"ends", "node 0"})])
def test_the_span_of_an_empty_zone_says_nothing(dimm, present, keys):
    zone = {"zone_start_pfn": 0x60000, "spanned_pages": 0x8000, "present_pages": present}
    _, verdicts = dimm.caused({dimm.zone("Normal", name): value for name, value in zone.items()})
    assert {one.hit.key for one in verdicts["SEC-03"].findings} == keys


def test_a_zone_with_more_pages_than_it_spans(dimm):
    _, verdicts = dimm.caused({dimm.zone("Movable", "present_pages"): 0x20001})
    assert {one.hit.key for one in verdicts["SEC-03"].findings} == {"present", "node 0"}


def test_a_node_that_does_not_span_its_zones(dimm):
    """DMA32 is empty and lies where there is no memory, and outside of the node."""
    zone = {"zone_start_pfn": 0x100000, "spanned_pages": 0x8000}
    codes, verdicts = dimm.caused({dimm.zone("Normal", name): value for name, value in zone.items()})
    assert codes == {"SEC-03"}
    finding = the_finding(verdicts, "SEC-03")
    assert (finding.hit.key, finding.hit.pfns.tuples()) == ("node 0", [(0x100000, 0x108000)])


def test_a_node_that_miscounts(dimm):
    codes, verdicts = dimm.caused({dimm.zone("Movable", "present_pages"): 0x1FFFF})
    assert codes == {"SEC-03"}
    assert the_finding(verdicts, "SEC-03").hit.key == "node 0"


def test_a_block_in_the_wrong_zone(dimm):
    """The spans of the two zones overlap nowhere, and block 16 says it is in the lower one."""
    zone = dimm.word(dimm.block(8, "zone"))
    codes, verdicts = dimm.caused({dimm.block(16, "zone"): zone, dimm.zone("DMA", "spanned_pages"): 0x4C000})
    assert codes == {"SEC-03"}
    assert proven(verdicts, "SEC-03", Severity.HIGH) == [(16 << 15, 17 << 15)]


def test_a_memmap_pointer_that_leads_elsewhere(dimm):
    place, _ = dimm.section(17)
    codes, verdicts = dimm.caused({place: dimm.word(place) + (1 << 24)})
    assert codes == {"SEC-05"}
    assert proven(verdicts, "SEC-05", Severity.CRITICAL) == [(17 << 15, 18 << 15)]


def test_the_memmap_pointer_is_counted_from_pfn_0(dimm):
    """The same kernel with memory from 1 GiB on: the struct page of PFN 0 lies 16 MiB below the array."""
    facts = facts_of(dimm)
    rows, layout = facts.get(SectionRows), facts.get(KernelLayout)
    place = replace(layout.facts["phys_offset"], value=1 << 30)
    moved = replace(rows, section_mem_map=rows.section_mem_map - np.where(rows.has_memmap, np.uint64(1 << 24), 0))
    layout = replace(layout, facts={**layout.facts, "phys_offset": place})
    assert judged("SEC-05", facts_of(dimm, moved, layout)).outcome is Outcome.PASSED


def test_all_memmap_pointers_elsewhere_put_the_layout_in_doubt(dimm):
    words = {}
    for number in dimm.facts.sections.section_nr.tolist():
        place, _ = dimm.section(number)
        words[place] = dimm.word(place) + (1 << 24)
    _, verdicts = dimm.caused(words)
    assert verdicts["SEC-05"].outcome is Outcome.UNDECIDED


def test_a_valid_section_without_subsections(dimm):
    codes, verdicts = dimm.caused({dimm.subsections(17): 0})
    assert "SEC-06" in codes
    assert proven(verdicts, "SEC-06", Severity.CRITICAL) == [(17 << 15, 18 << 15)]


def test_subsections_of_no_section(dimm):
    place, usage = dimm.section(NOWHERE)
    codes, verdicts = dimm.caused({place: PRESENT, usage: dimm.word(dimm.section(17)[1])})
    assert codes == {"SEC-06"}
    assert proven(verdicts, "SEC-06", Severity.HIGH) == [(NOWHERE << 15, NOWHERE + 1 << 15)]


def test_an_empty_map_of_no_section(dimm):
    place, usage = dimm.section(NOWHERE)
    codes, _ = dimm.caused({place: PRESENT, usage: LINEAR + FREE_PAGE}, {FREE_PAGE: bytes(4096)})
    assert codes == set()


def test_a_map_of_no_section_that_the_dump_does_not_hold_is_unknown(dimm):
    place, usage = dimm.section(NOWHERE)
    _, verdicts = dimm.caused({place: PRESENT, usage: LINEAR + FREE_PAGE}, missing=[FREE_PAGE])
    assert verdicts["SEC-06"].outcome is Outcome.UNDECIDED


def test_boot_memory_is_valid_whatever_the_map_says(dimm):
    codes, _ = dimm.caused({dimm.subsections(9): 0})
    assert codes == set()


@pytest.mark.parametrize("usage", [0, 0xDEAD000000000100, 0x6B6B6B6B6B6B6B6B, VMEMMAP, LINEAR - 8, LINEAR + (1 << 47)])
def test_a_valid_section_without_usage(dimm, usage):
    codes, verdicts = dimm.caused({dimm.section(17)[1]: usage})
    assert codes == {"SEC-07"}
    assert proven(verdicts, "SEC-07", Severity.CRITICAL) == [(17 << 15, 18 << 15)]
    assert verdicts["SEC-06"].outcome is (Outcome.UNDECIDED if usage else Outcome.PASSED)


@pytest.mark.parametrize("tag", [0x34, 0xF5, 0xFF])
def test_a_usage_pointer_may_have_a_tag(dimm, tag):
    usage = dimm.section(17)[1]
    codes, verdicts = dimm.caused({usage: dimm.word(usage) & ~(0xFF << 56) | tag << 56})
    assert codes == set()
    assert verdicts["SEC-07"].outcome is Outcome.PASSED


@pytest.mark.parametrize("usage", [LINEAR, LINEAR + (1 << 47) - 8])
def test_a_usage_pointer_at_an_end_of_the_linear_map(dimm, usage):
    codes, _ = dimm.caused({dimm.section(17)[1]: usage})
    assert codes == set()


def test_a_usage_map_that_the_dump_does_not_hold_is_unknown(dimm):
    _, verdicts = dimm.caused(missing=[dimm.subsections(17) & ~0xFFF])
    assert verdicts["SEC-06"].outcome is Outcome.UNDECIDED
    assert verdicts["SEC-07"].outcome is Outcome.PASSED


def test_an_unread_map_of_boot_memory_decides_nothing(dimm):
    rows = dimm.facts.sections
    unread = replace(rows, subsections_known=rows.subsections_known & (rows.section_nr != 9))
    assert judged("SEC-06", facts_of(dimm, unread)).outcome is Outcome.PASSED


def test_boot_memory_that_lost_its_mark(dimm):
    codes, verdicts = dimm.caused(dimm.flags(9, take=EARLY))
    assert "SEC-08" in codes
    assert proven(verdicts, "SEC-08", Severity.HIGH) == [(9 << 15, 10 << 15)]


def test_boot_memory_that_lost_all_its_marks(dimm):
    rows = facts_of(dimm).get(SectionRows)
    lost = rows.section_nr == 9
    changed = replace(rows, present=rows.present & ~lost, early=rows.early & ~lost)
    (finding,) = judged("SEC-08", facts_of(dimm, changed)).findings
    assert finding.hit.pfns.tuples() == [(9 << 15, 10 << 15)]


def test_sections_without_their_table_say_nothing_of_boot_memory(dimm):
    log = boot_log((0x40000000, 0x80000000))
    assert judged("SEC-08", facts_of(dimm, log)).outcome is Outcome.FIRED
    for left_out in ("SectionTable", "SectionRows"):
        assert judged("SEC-08", facts_of(dimm, log), **{left_out: None}).outcome is Outcome.PASSED


def boot_log(last):
    return parse_dmesg(
        b"[    0.000000] Linux version 6.12.117 (root@vm) #1 SMP\n[    0.000000] Early memory node ranges\n"
        b"[    0.000000]   node   0: [mem 0x%016x-0x%016x]\n" % last,
        "dmesg",
    )


@pytest.mark.parametrize(
    ("memory", "sections"),
    [
        ((0x40000000, 0x7FFFFFFF), []),  # ends where the DIMM begins
        ((0x40000000, 0x80000000), [(16 << 15, 17 << 15)]),
        ((NOWHERE << 27, (NOWHERE + 1 << 27) - 1), []),  # not present
    ],
)
def test_the_log_tells_which_sections_are_boot_memory(dimm, memory, sections):
    verdict = judged("SEC-08", facts_of(dimm, boot_log(memory)))
    assert [lo for one in verdict.findings for lo in one.hit.pfns.tuples()] == sections


def test_kernels_that_do_not_mark_sections(dimm):
    """Without the flag (before 5.12, before 5.3) nothing follows from it."""
    facts = facts_of(dimm)
    rows = facts.get(SectionRows)
    flags = {"SECTION_MARKED_PRESENT": 1, "SECTION_HAS_MEM_MAP": 2, "SECTION_IS_ONLINE": 4}
    unmarked = replace(rows, flags=flags, early=np.zeros(len(rows), dtype=np.bool_))
    changed = facts_of(dimm, unmarked, boot_log((0x40000000, 0x5FFFFFFF)))
    assert judged("SEC-08", changed).outcome is Outcome.PASSED
    assert judged("SEC-09", changed).outcome is Outcome.NOT_APPLICABLE


def test_ram_and_a_device_in_one_section(dimm):
    codes, verdicts = dimm.caused(dimm.flags(17, give=DEVICE))
    assert codes == {"SEC-09"}
    assert proven(verdicts, "SEC-09", Severity.INFO) == [(17 << 15, 18 << 15)]


def test_device_memory_that_fills_its_section_is_not_marked(pmem):
    """The kernel marks sections that a device shares; this one is known by who claims it."""
    codes, verdicts = pmem.caused(pmem.flags(16, take=DEVICE))
    assert codes == set()
    assert "namespace0.1+dax0.1" in the_finding(verdicts, "VMM-01").hit.title


def test_memory_above_max_pfn(dimm, pmem):
    place = dimm.max_pfn()
    codes, verdicts = dimm.caused({place: 0x90000})
    assert codes == {"SEC-12"}
    assert proven(verdicts, "SEC-12", Severity.MEDIUM) == [(0x90000, 0xA0000)]
    codes, _ = pmem.caused({pmem.max_pfn(): 0x50000})  # device memory may lie above
    assert codes == set()
    _, verdicts = dimm.caused(missing=[place & ~0xFFF])
    assert verdicts["SEC-12"].outcome is Outcome.UNDECIDED


# Self-hosted struct pages ---------------------------------------------------------------------------------------------


def test_an_area_that_begins_elsewhere(dimm):
    codes, verdicts = dimm.caused({dimm.altmap(17, "base_pfn"): 0x88200})
    assert codes == {"MOM-01"}
    assert proven(verdicts, "MOM-01", Severity.CRITICAL) == [(17 << 15, 18 << 15)]


def test_an_area_of_which_the_start_is_not_told(dimm):
    codes, _ = dimm.caused({dimm.altmap(17, "base_pfn"): 0})
    assert codes == set()


def test_an_area_that_leaves_nothing(dimm):
    _, verdicts = dimm.caused({dimm.altmap(17, "free"): 0x8000})
    assert {one.hit.key for one in verdicts["MOM-01"].findings} == {"leaves nothing of the block"}
    finding = the_finding(verdicts, "MOM-01")
    assert finding.hit.pfns.tuples() == [(17 << 15, 18 << 15)]


def test_an_area_that_is_too_small(dimm):
    codes, verdicts = dimm.caused({dimm.altmap(17, "free"): 256})
    assert codes == {"MOM-01", "MOM-02"}
    assert {one.hit.key for one in verdicts["MOM-01"].findings} == {
        "is not a multiple of 512 pages",
        "is too small for the struct pages",
    }


@pytest.mark.parametrize(
    ("pa", "more", "severity", "words"),
    [
        (0x88200000, (), Severity.CRITICAL, "the allocator owns"),
        (0x88200000, (17,), Severity.CRITICAL, "the allocator owns"),
        (0x80200000, (), Severity.HIGH, "other hot-added memory"),
        (0x90200000, (), Severity.HIGH, "other hot-added memory"),
        (0x90200000, (18,), Severity.CRITICAL, "which is offline"),
    ],
)
def test_struct_pages_of_a_self_hosted_block_in_other_memory(dimm, pa, more, severity, words):
    damage = dimm.struct_pages_at(17, pa)
    for number in more:
        damage |= dimm.offline(number)
    codes, verdicts = dimm.caused(damage)
    assert codes - {"MOM-09"} == {"MOM-02"}
    assert proven(verdicts, "MOM-02", severity) == [(17 << 15, 18 << 15)]
    assert words in the_finding(verdicts, "MOM-02").hit.message


@pytest.mark.parametrize("number", [16, 19])
def test_struct_pages_of_the_first_and_of_the_last_self_hosted_block(dimm, number):
    _, verdicts = dimm.caused(dimm.struct_pages_at(number, 0x90200000))
    assert proven(verdicts, "MOM-02", Severity.HIGH) == [(number << 15, number + 1 << 15)]


@pytest.mark.parametrize("number", [9, 17, 19])
def test_struct_pages_of_a_block_that_holds_none(dimm, number):
    """Before, between and behind those that do."""
    dump = dimm.dump(dimm.struct_pages_at(number, 0x90200000))
    facts = build_facts(Captured(vmcore=dump))
    blocks = facts.get(BlockRows)
    known = dict(facts.known)
    known[BlockRows] = replace(
        blocks, nr_vmemmap_pages=np.where(blocks.start_section_nr == number, 0, blocks.nr_vmemmap_pages)
    )
    assert judged("MOM-02", Facts(known, facts.missing)).outcome is Outcome.PASSED


def test_struct_pages_across_an_online_and_an_offline_block(dimm):
    """One run of pages, half in block 18 and half in block 19, which is offline."""
    first = (19 << 27) - MIB
    page = {index: 0xE8000000000703 + first + 4096 * index for index in range(512)}
    entry = dimm.entry(VMEMMAP + 64 * (17 << 15), PMD)
    _, verdicts = dimm.caused({entry: FREE_PAGE | 3} | dimm.offline(19), {FREE_PAGE: table_page(page)})
    found = {(one.severity, tuple(one.hit.pfns.tuples())) for one in verdicts["MOM-02"].findings}
    half = (17 << 15) + (1 << 14)
    assert found == {
        (Severity.HIGH, ((17 << 15, half),)),
        (Severity.CRITICAL, ((half, 18 << 15),)),
    }


def test_struct_pages_of_a_self_hosted_block_in_removed_memory(dimm):
    codes, verdicts = dimm.caused(dimm.struct_pages_at(17, 0xB0000000))
    assert codes == {"MOM-03"}
    assert proven(verdicts, "MOM-03", Severity.CRITICAL) == [(17 << 15, 18 << 15)]


def test_self_hosted_struct_pages_in_boot_memory_stay(dimm):
    codes, _ = dimm.caused(dimm.struct_pages_at(17, 0x4F000000))
    assert not codes & set(SELF_HOSTED)


def test_an_offline_block_that_holds_its_own_struct_pages(dimm):
    codes, verdicts = dimm.caused(dimm.offline(18))
    assert codes == {"MOM-09"}
    assert proven(verdicts, "MOM-09", Severity.INFO) == [(18 << 15, 19 << 15)]


@pytest.mark.parametrize(("pfn", "outcome"), [(0x88010, Outcome.FIRED), (0x88200, Outcome.PASSED)])
def test_poison_in_a_self_hosted_area(dimm, pfn, outcome):
    log = parse_dmesg(b"[    9.000000] Memory failure: 0x%x: recovery action for free page\n" % pfn, "dmesg")
    facts = build_facts(Captured(vmcore=without_log(dimm.facts), dmesg=log))
    verdicts = {one.rule.code: one for one in run(builtin_rules(), facts)}
    assert verdicts["MOM-12"].outcome is outcome
    if outcome is Outcome.FIRED:
        assert proven(verdicts, "MOM-12", Severity.HIGH) == [(pfn, pfn + 1)]


# Self-hosted struct pages and huge pages ------------------------------------------------------------------------------


@pytest.mark.parametrize(("switch", "outcome"), [(True, Outcome.FIRED), (False, Outcome.PASSED), (None, Outcome.FIRED)])
def test_the_switch_in_the_dump_comes_before_the_command_line(hvo, switch, outcome):
    """The command line switches it on."""
    parameter = parse_memmap_on_memory(b"Y\n", "memmap_on_memory")
    line = parse_cmdline(b"hugetlb_free_vmemmap=on\n", "cmdline")
    pools = facts_of(hvo).get(HugetlbRows)
    facts = facts_of(hvo, replace(pools, vmemmap_optimized=switch), memmap_on_memory=parameter, command_line=line)
    assert judged("MOM-11", facts).outcome is outcome


# Poison ---------------------------------------------------------------------------------------------------------------


def poisoned(machine, pfn):
    log = parse_dmesg(b"[    9.000000] Memory failure: 0x%x: recovery action for free page\n" % pfn, "dmesg")
    facts = build_facts(Captured(vmcore=without_log(machine.facts), dmesg=log))
    verdict = judged("ENV-02", facts)
    return [(one.hit.key, one.severity, one.hit.claim, one.hit.pfns.tuples()) for one in verdict.findings]


def test_poison_in_what_holds_struct_pages(dimm):
    first = dimm.word(dimm.entry(VMEMMAP + 64 * 0x48000, PMD)) & 0xFFFFFFFFF000
    for pfn in (first >> 12, (first >> 12) + 511):
        assert poisoned(dimm, pfn) == [("backing", Severity.CRITICAL, Claim.PROVEN, [(pfn, pfn + 1)])]
    assert poisoned(dimm, 0x41100) == []


def test_poison_where_no_walk_is_known_backs_nothing(dimm):
    first = dimm.word(dimm.entry(VMEMMAP + 64 * 0x48000, PMD)) & 0xFFFFFFFFF000
    log = parse_dmesg(b"[    9.000000] Memory failure: 0x%x: recovery action for free page\n" % (first >> 12), "dmesg")
    facts = build_facts(Captured(vmcore=without_log(dimm.facts), dmesg=log))
    assert judged("ENV-02", facts).outcome is Outcome.FIRED
    for left_out in ("Vmemmap", "PageWalk"):
        assert judged("ENV-02", facts, **{left_out: None}).outcome is Outcome.PASSED


def test_poison_in_hot_added_memory(dimm):
    assert poisoned(dimm, 0x88300) == [("removable", Severity.MEDIUM, Claim.PROBABLE, [(0x88300, 0x88301)])]


def test_tails_of_a_huge_page_are_all_in_one_page(hvo):
    """The pages behind it were given away: poison there is nobody's struct page."""
    tail = hvo.word(hvo.entry(0xFFFFFC0001051000, PTE)) & 0xFFFFFFFFF000
    assert poisoned(hvo, tail >> 12)[0][0] == "backing"
    assert poisoned(hvo, (tail >> 12) + 1) == []


@pytest.mark.parametrize("code", [*FROM_DUMPS, *SELF_HOSTED])
def test_no_rule_of_a_dump_passes_without_one(code):
    (verdict,) = audit(Request((case("SEC-02/quiet-offline"),)), only=[code]).verdicts
    assert verdict.outcome is Outcome.UNDECIDED
    assert verdict.collect == ("a crash dump (/proc/vmcore, or dump-guest-memory from the hypervisor)",)

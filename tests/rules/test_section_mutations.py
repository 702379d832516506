"""Damage written into sections, blocks, zones and self-hosted struct pages of a dump, and the rule that finds it."""

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("drgn", reason="drgn has wheels for x86-64 only")

from analyzer.audit import audit
from analyzer.sources.read import Request
from parsers.arm64 import PMD
from parsers.dmesg import parse_dmesg
from parsers.vmcore.dump import Dump
from rules.engine import Outcome, builtin_rules, run
from rules.finding import Claim, Severity
from rules.model.captured import Captured
from rules.model.captured import facts_of as facts_of_captured
from tests.rules.patched import Machine

LINEAR, VMEMMAP = 0xFFFF000000000000, 0xFFFFFDFFC0000000
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
        for zone in self.tells.prog["node_data"][0].node_zones:
            if zone.name.string_().decode() == name:
                return getattr(zone, member).address_ - LINEAR
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


def test_online_and_not_there(dimm):
    place, _ = dimm.section(NOWHERE)
    codes, verdicts = dimm.caused({place: ONLINE})
    assert codes == {"SEC-01"}
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


def test_a_section_of_ram_without_a_block(dimm):
    """The block of section 19 stands for a section that does not exist."""
    codes, verdicts = dimm.caused({dimm.block(19, "start_section_nr"): 30})
    assert "SEC-02" in codes
    lone = [one for one in verdicts["SEC-02"].findings if one.hit.key == "no block"]
    assert [one.hit.pfns.tuples() for one in lone] == [[(19 << 15, 20 << 15)]]


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


@pytest.mark.parametrize("usage", [0, 0xDEAD000000000100, 0x6B6B6B6B6B6B6B6B, VMEMMAP])
def test_a_valid_section_without_usage(dimm, usage):
    codes, verdicts = dimm.caused({dimm.section(17)[1]: usage})
    assert codes == {"SEC-07"}
    assert proven(verdicts, "SEC-07", Severity.CRITICAL) == [(17 << 15, 18 << 15)]


def test_a_usage_map_that_the_dump_does_not_hold_is_unknown(dimm):
    _, verdicts = dimm.caused(missing=[dimm.subsections(17) & ~0xFFF])
    assert verdicts["SEC-06"].outcome is Outcome.UNDECIDED
    assert verdicts["SEC-07"].outcome is Outcome.PASSED


def test_boot_memory_that_lost_its_mark(dimm):
    codes, verdicts = dimm.caused(dimm.flags(9, take=EARLY))
    assert "SEC-08" in codes
    assert proven(verdicts, "SEC-08", Severity.HIGH) == [(9 << 15, 10 << 15)]


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


def test_an_area_that_is_too_small(dimm):
    codes, verdicts = dimm.caused({dimm.altmap(17, "free"): 256})
    assert codes == {"MOM-01", "MOM-02"}
    assert {one.hit.key for one in verdicts["MOM-01"].findings} == {
        "is no multiple of 512 pages",
        "is too small for the struct pages",
    }


@pytest.mark.parametrize(
    ("pa", "more", "severity", "words"),
    [
        (0x88200000, (), Severity.CRITICAL, "the allocator owns"),
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
    facts = facts_of_captured(Captured(vmcore=replace(dimm.facts, dmesg=None), dmesg=log))
    verdicts = {one.rule.code: one for one in run(builtin_rules(), facts)}
    assert verdicts["MOM-12"].outcome is outcome
    if outcome is Outcome.FIRED:
        assert proven(verdicts, "MOM-12", Severity.HIGH) == [(pfn, pfn + 1)]


@pytest.mark.parametrize("code", [*FROM_DUMPS, *SELF_HOSTED])
def test_no_rule_of_a_dump_passes_without_one(code):
    case = Path(__file__).parents[2] / "fixtures" / "rules" / "SEC-02" / "quiet-offline"
    (verdict,) = audit(Request((case,)), only=[code]).verdicts
    assert verdict.outcome is Outcome.UNDECIDED
    assert verdict.collect == ("a crash dump (/proc/vmcore, or dump-guest-memory from the hypervisor)",)

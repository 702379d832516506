"""Damage in sections, blocks, zones and page tables of a crash dump, and the rule that finds it."""

from dataclasses import replace

from parsers.arm64 import PMD
from parsers.vmcore.dump import Dump
from rules.engine import builtin_rules, run
from rules.facts import Facts
from rules.finding import Claim
from rules.model.captured import Captured, build_facts
from tests.rules.drawn import LINEAR, VMEMMAP
from tests.rules.patched import Machine

FREE_PAGE = 0x41100000
"""Memory of the machine that the small cores leave out: room for tables."""
CONTIGUOUS, READ_ONLY = 1 << 52, 1 << 7
BLOCK_ENTRY, PAGE_ENTRY = 0x68000000000701, 0xE8000000000703
"""PAGE_KERNEL in a block and in a page: Normal, writable, shareable, accessed, not executable."""


def linear_address(pa):
    return LINEAR + pa


def struct_page_address(pfn):
    return VMEMMAP + 64 * pfn


def the_finding(verdicts, code):
    (finding,) = verdicts[code].findings
    assert finding.hit.evidence
    return finding


def pfns_of(finding):
    return finding.hit.pfns.tuples()


HVO_VMEMMAP, HEAD, TAILS = 0xFFFFFC0000000000, 0xFFFFFC0001050000, 0xFFFFFC0001051000
PRESENT, HAS_MEM_MAP, ONLINE, EARLY, DEVICE = 1, 2, 4, 8, 16
MEM_SECTION = 16
NOWHERE = 24
"""A section in which the machine has nothing."""
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


def proven(verdicts, code, severity):
    finding = the_finding(verdicts, code)
    assert (finding.hit.claim, finding.severity) == (Claim.PROVEN, severity)
    return finding.hit.pfns.tuples()


def verdict_about(code, facts, **without):
    """The verdict of one rule about facts, some of them left out."""
    known = {kind: fact for kind, fact in facts.known.items() if kind.__name__ not in without}
    (verdict,) = run([rule for rule in builtin_rules() if rule.code == code], Facts(known, facts.missing))
    return verdict


def without_log(dump):
    """A crash dump whose log is not read."""
    return replace(dump, texts=replace(dump.texts, dmesg=None, log=None))


def facts_of(machine, *changed, **captured):
    """What is known of a machine, some facts replaced."""
    facts = build_facts(Captured(vmcore=machine.facts, **captured))
    return Facts(dict(facts.known) | {type(one): one for one in changed}, facts.missing)

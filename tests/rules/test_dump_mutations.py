"""Damage written into a crash dump is found by the rule that should find it, and by no other."""

import pytest

pytest.importorskip("drgn", reason="drgn has wheels for x86-64 only")

from parsers.arm64 import PMD, PTE
from rules.finding import Claim, Severity
from tests.rules.patched import Machine, table_page

MIB = 1 << 20
LINEAR, VMEMMAP = 0xFFFF000000000000, 0xFFFFFDFFC0000000
FREE_PAGE = 0x41100000
"""Memory of the machine that the small cores leave out: room for tables."""
CONTIGUOUS, READ_ONLY = 1 << 52, 1 << 7
NID = 16
"""Offset in struct memory_block of 6.12."""
BLOCK, PAGE = 0x68000000000701, 0xE8000000000703
"""PAGE_KERNEL in a block and in a page: Normal, writable, shareable, accessed, not executable."""


@pytest.fixture(scope="module")
def pmem():
    return Machine("pmem-6.12-vuln-before.core.zst")


@pytest.fixture(scope="module")
def after():
    return Machine("pmem-6.12-vuln-after.core.zst")


@pytest.fixture(scope="module")
def mixed():
    return Machine("dimm-6.12-mixed-online.core.zst")


@pytest.fixture(scope="module")
def hvo():
    return Machine("hvo-6.1-allocated.core.zst")


@pytest.fixture(scope="module")
def dimm():
    return Machine("dimm-6.12-memmap-on-memory-online.core.zst")


def linear(pa):
    return LINEAR + pa


def struct_page(pfn):
    return VMEMMAP + 64 * pfn


def the_finding(verdicts, code):
    (finding,) = verdicts[code].findings
    return finding


def pfns(finding):
    return finding.hit.pfns.tuples()


# Struct pages --------------------------------------------------------------------------------------------------------


def test_a_cleared_block_of_hot_added_struct_pages(dimm):
    codes, verdicts = dimm.caused({dimm.entry(struct_page(0x88000), PMD): 0})
    assert codes == {"VMM-02"}
    finding = the_finding(verdicts, "VMM-02")
    assert (finding.hit.claim, finding.severity, pfns(finding)) == (
        Claim.PROVEN,
        Severity.CRITICAL,
        [(0x88000, 0x90000)],
    )


def test_a_cleared_block_of_boot_struct_pages(pmem):
    codes, verdicts = pmem.caused({pmem.entry(struct_page(0x40000), PMD): 0})
    assert codes == {"VMM-13"}
    assert pfns(the_finding(verdicts, "VMM-13")) == [(0x40000, 0x48000)]


def test_a_table_that_hot_add_took_for_a_block(dimm):
    entry = dimm.entry(struct_page(0x88000), PMD)
    page = PAGE | 0x88000000
    half = table_page({index: page + 4096 * index for index in range(256)})
    codes, verdicts = dimm.caused({entry: FREE_PAGE | 3}, {FREE_PAGE: half})
    assert codes == {"VMM-08", "VMM-07"}
    assert pfns(the_finding(verdicts, "VMM-08")) == [(0x8C000, 0x90000)]
    codes, verdicts = dimm.caused({entry: FREE_PAGE | 3}, {FREE_PAGE: table_page({})})
    assert codes == {"VMM-08", "TBL-01"}
    assert pfns(the_finding(verdicts, "VMM-08")) == [(0x88000, 0x90000)]


def test_struct_pages_in_removed_memory(pmem, after):
    entry = pmem.entry(struct_page(0x80000), PMD)
    codes, verdicts = pmem.caused({entry: pmem.word(entry) - 0x42000000 + 0x90000000})
    assert codes == {"VMM-09"}
    finding = the_finding(verdicts, "VMM-09")
    assert (finding.severity, finding.hit.claim, finding.hit.key) == (Severity.CRITICAL, Claim.PROVEN, "gone")
    assert "0x90000000-0x90200000" in finding.hit.message
    # The middle subsections of the device are what was removed.
    boot = after.entry(struct_page(0x48000), PMD)
    codes, verdicts = after.caused({boot: after.word(boot) - 0x4FA00000 + 0x82000000})
    assert codes == {"VMM-09"}
    assert the_finding(verdicts, "VMM-09").severity is Severity.CRITICAL


def test_struct_pages_in_another_hot_added_block(mixed):
    boot = mixed.entry(struct_page(0x48000), PMD)
    codes, verdicts = mixed.caused({boot: BLOCK | 0x90200000})
    assert codes == {"VMM-09"}
    finding = the_finding(verdicts, "VMM-09")
    assert (finding.severity, finding.hit.key, pfns(finding)) == (Severity.LOW, "pinned", [(0x48000, 0x50000)])


def test_struct_pages_in_another_device_range(after):
    """The block of boot struct pages moved into the first namespace."""
    boot = after.entry(struct_page(0x48000), PMD)
    codes, verdicts = after.caused({boot: after.word(boot) - 0x4FA00000 + 0x80000000})
    assert codes == {"VMM-09"}
    assert (the_finding(verdicts, "VMM-09").hit.key, the_finding(verdicts, "VMM-09").severity) == (
        "device",
        Severity.HIGH,
    )


def test_two_sections_with_one_block_of_struct_pages(dimm):
    boot, other = dimm.entry(struct_page(0x40000), PMD), dimm.entry(struct_page(0x48000), PMD)
    codes, verdicts = dimm.caused({other: dimm.word(boot)})
    assert codes == {"VMM-11"}
    finding = the_finding(verdicts, "VMM-11")
    assert (finding.hit.claim, finding.severity) == (Claim.PROVEN, Severity.CRITICAL)
    assert pfns(finding) == [(0x40000, 0x50000)]


def test_neighbouring_pages_of_struct_pages_alike(dimm):
    """Equal entries one after another are one row of the walk."""
    entry = dimm.entry(struct_page(0x88000), PMD)
    page = PAGE | 0x88000000
    words = {index: page + 4096 * (index & ~1) for index in range(512)}
    codes, verdicts = dimm.caused({entry: FREE_PAGE | 3}, {FREE_PAGE: table_page(words)})
    assert codes == {"VMM-11", "VMM-07"}
    assert len(verdicts["VMM-11"].findings) == 64


def test_struct_pages_in_an_offline_block(mixed):
    """Sections have an ONLINE flag (bit 2); without it the block's own state disagrees, which SEC-02 tells."""
    sections = mixed.dump().sections
    row = sections.section_nr.tolist().index(18)
    boot = mixed.entry(struct_page(0x48000), PMD)
    offline = {int(sections.pa[row]): int(sections.section_mem_map[row]) & ~4}
    codes, verdicts = mixed.caused(offline | {boot: BLOCK | 0x90200000})
    assert codes - {"SEC-02"} == {"VMM-09"}
    finding = the_finding(verdicts, "VMM-09")
    assert (finding.severity, finding.hit.key) == (Severity.CRITICAL, "offline")


def test_struct_pages_on_another_node(mixed):
    """The block that they lie in says node 1."""
    blocks = mixed.dump().blocks
    nid = int(blocks.address[blocks.start_section_nr.tolist().index(23)]) - LINEAR + NID
    words = {nid: mixed.word(nid) & ~0xFFFFFFFF | 1, mixed.entry(struct_page(0x90000), PMD): BLOCK | 0xB8000000}
    _, verdicts = mixed.caused(words)
    assert {(one.hit.key, one.severity) for one in verdicts["VMM-09"].findings} == {
        ("pinned", Severity.LOW),
        ("node", Severity.LOW),
    }


def test_a_self_hosted_block_is_judged_by_its_own_rules(dimm):
    entry = dimm.entry(struct_page(0x88000), PMD)
    for target, code in ((0x90200000, "MOM-02"), (0xB0000000, "MOM-03")):
        codes, _ = dimm.caused({entry: dimm.word(entry) - 0x88000000 + target})
        assert codes == {code}


def test_a_page_of_struct_pages_that_nobody_mapped(mixed):
    codes, verdicts = mixed.caused({mixed.entry(struct_page(0x80000), PTE): 0})
    assert codes == {"VMM-08"}
    assert pfns(the_finding(verdicts, "VMM-08")) == [(0x80000, 0x80040)]


def test_a_section_that_a_failed_hot_add_left(mixed):
    """A copy of a hot-added section where nothing is: present, with struct pages, and owned by nobody."""
    sections = mixed.dump().sections
    row = sections.section_nr.tolist().index(16)
    place, word = int(sections.pa[row]), int(sections.section_mem_map[row])
    words = {place + 16 * 16: word & ~4, place + 16 * 16 + 8: int(sections.usage[row])}
    words[mixed.entry(struct_page(0x100000), PMD)] = BLOCK | 0x42000000
    codes, verdicts = mixed.caused(words)
    assert codes - {"SEC-02"} == {"VMM-14"}
    assert pfns(the_finding(verdicts, "VMM-14")) == [(0x100000, 0x108000)]

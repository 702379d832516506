"""Damage written into a crash dump is found by the rule that should find it, and by no other."""

import time
from dataclasses import replace

import pytest

from parsers.arm64 import PMD, PTE, PUD
from parsers.vmcore.dump import Dump
from rules.engine import Outcome, builtin_rules, run
from rules.finding import Claim, Severity
from rules.model.captured import Captured, build_facts
from tests.rules.patched import Machine, fired, table_page

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
    words[mixed.entry(struct_page(0x100000), PMD)] = BLOCK | 0x50000000
    codes, verdicts = mixed.caused(words)
    assert codes - {"SEC-02"} == {"VMM-14"}
    assert pfns(the_finding(verdicts, "VMM-14")) == [(0x100000, 0x108000)]


def test_without_resources_nothing_is_said_of_what_they_name(pmem):
    """A kernel without symbols or types tells no iomem and no memory blocks."""
    dump = replace(pmem.dump(), iomem=None, blocks=None)
    verdicts = {one.rule.code: one for one in run(builtin_rules(), build_facts(Captured(vmcore=dump)))}
    for code in ("VMM-01", "LIN-01", "LIN-03", "VMM-14"):
        assert verdicts[code].outcome is Outcome.UNDECIDED, code
    assert fired(verdicts).keys() <= {"ENV-01"}


# Tables --------------------------------------------------------------------------------------------------------------


def test_a_leaked_table(pmem):
    entry = pmem.entry(struct_page(0xC0000), PMD)
    codes, verdicts = pmem.caused({entry: FREE_PAGE | 3}, {FREE_PAGE: table_page({})})
    assert codes == {"TBL-01"}
    assert the_finding(verdicts, "TBL-01").severity is Severity.INFO


def test_a_table_in_removed_memory(after):
    """The table of a part of the linear map, moved to where the middle namespace was."""
    va, home = linear(0x4C400000), 0x82000000
    page = after.raw.memory.read(after.table(va, PTE), 4096)
    entry = after.entry(va, PMD)
    codes, verdicts = after.caused({entry: after.word(entry) & 0xFFF0000000000FFF | home}, {home: page})
    assert codes == {"TBL-02"}
    finding = the_finding(verdicts, "TBL-02")
    assert (finding.severity, finding.hit.claim, finding.hit.key) == (Severity.CRITICAL, Claim.PROVEN, "gone")
    assert f"{home:#x}" in finding.hit.message
    assert finding.hit.pfns.tuples() == [(home >> 12, (home >> 12) + 1)]  # so that `where` of the table names it
    assert entry in {one.address for one in finding.hit.evidence}


def test_a_table_in_removed_memory_that_the_dump_does_not_hold(after):
    entry = after.entry(linear(0x4C400000), PMD)
    codes, verdicts = after.caused({entry: after.word(entry) & 0xFFF0000000000FFF | 0x82000000})
    assert codes == {"TBL-02"}
    assert {code for code, one in verdicts.items() if one.outcome is Outcome.PASSED} & {
        *("LIN-03", "LIN-05", "ATT-03", "ATT-07", "CNT-01", "TBL-05"),
    } == set()  # what the table hides is unknown


def test_a_table_in_hot_added_memory(mixed):
    va, home = linear(0x5C400000), 0x90000000
    page = mixed.raw.memory.read(mixed.table(va, PTE), 4096)
    entry = mixed.entry(va, PMD)
    codes, verdicts = mixed.caused({entry: mixed.word(entry) & 0xFFF0000000000FFF | home}, {home: page})
    assert codes == {"TBL-02"}
    assert the_finding(verdicts, "TBL-02").severity is Severity.LOW


def test_entries_that_are_no_encoding(pmem):
    """A block in the root, a page with the type of a block, a block of which the address is no block's."""
    for va, level, value in (
        (0xFFFF700000000000, 0, 0x40000701),
        (0xFFFF8000810F4000, PTE, 0x41900701),
        (struct_page(0x40000), PMD, BLOCK | 0x4F801000),
    ):
        codes, verdicts = pmem.caused({pmem.entry(va, level): value})
        assert codes - {"VMM-09"} == {"TBL-05"}, hex(va)
        finding = the_finding(verdicts, "TBL-05")
        assert (finding.severity, finding.hit.claim) == (Severity.CRITICAL, Claim.PROVEN)
        assert finding.hit.evidence[0].address == pmem.entry(va, level)


def test_a_table_that_is_its_own_parent(pmem):
    entry = pmem.entry(linear(0x8000000000), 0)
    codes, verdicts = pmem.caused({entry: pmem.addresses.root_pa | 3})
    assert codes == {"TBL-05"}
    assert "another level" in the_finding(verdicts, "TBL-05").hit.message


def test_a_table_where_no_memory_can_be(pmem):
    codes, verdicts = pmem.caused({pmem.entry(struct_page(0xC0000), PMD): 0x0000F00000000003})
    assert codes == {"TBL-05"}
    assert "no memory can be" in the_finding(verdicts, "TBL-05").hit.title


def test_table_attributes_that_differ(pmem):
    entry = pmem.entry(linear(0x4C400000), PMD)
    codes, verdicts = pmem.caused({entry: pmem.word(entry) & ~(1 << 59)})
    assert codes == {"TBL-06"}
    assert the_finding(verdicts, "TBL-06").severity is Severity.INFO
    codes, verdicts = pmem.caused({entry: pmem.word(entry) | 1 << 62})
    assert codes == {"TBL-06"}
    assert the_finding(verdicts, "TBL-06").severity is Severity.MEDIUM


# Contiguous runs, attributes, the linear map -------------------------------------------------------------------------


def test_a_cleared_block_of_the_linear_map(pmem):
    codes, verdicts = pmem.caused({pmem.entry(linear(0x4D000000), PMD): 0})
    assert codes == {"LIN-03"}
    assert pfns(the_finding(verdicts, "LIN-03")) == [(0x4D000, 0x4D200)]


def test_linear_entries_that_lead_to_one_page(pmem):
    """The first of them is right."""
    here, there = pmem.entry(linear(0x4D000000), PMD), pmem.entry(linear(0x4D200000), PMD)
    codes, verdicts = pmem.caused({there: pmem.word(here)})
    assert codes == {"LIN-05"}
    assert the_finding(verdicts, "LIN-05").severity is Severity.CRITICAL


def test_a_lone_contiguous_bit(pmem):
    entry = pmem.entry(linear(0x4D000000), PMD)
    codes, _ = pmem.caused({entry: pmem.word(entry) | CONTIGUOUS})
    assert codes == {"CNT-01"}
    page = pmem.entry(0xFFFF8000810B1000, PTE)
    codes, _ = pmem.caused({page: pmem.word(page) | CONTIGUOUS})
    assert codes == {"CNT-01"}


def test_a_contiguous_bit_in_the_vmemmap_area(pmem):
    """All sixteen blocks of a run have it, which is what hot-add never does."""
    entry = pmem.entry(struct_page(0x100000), PMD)
    words = {entry + 8 * index: BLOCK | CONTIGUOUS | 0x48000000 + 2 * MIB * index for index in range(16)}
    codes, _ = pmem.caused(words)
    assert codes == {"CNT-03", "VMM-04"}


def test_a_contiguous_run_with_pages_in_another_order(pmem):
    """Two neighbours of the kernel image swapped: all entries are valid and alike."""
    one, two = pmem.entry(0xFFFF800080610000, PTE), pmem.entry(0xFFFF800080611000, PTE)
    codes, verdicts = pmem.caused({one: pmem.word(two), two: pmem.word(one)})
    assert codes == {"CNT-02"}
    finding = verdicts["CNT-02"].findings[0]
    assert (finding.severity, finding.hit.claim) == (Severity.CRITICAL, Claim.PROVEN)


def test_a_contiguous_run_to_an_address_that_is_not_aligned(pmem):
    first = pmem.entry(0xFFFF800080610000, PTE)
    words = {first + 8 * index: pmem.word(first + 8 * index) + 4096 for index in range(16)}
    codes, _ = pmem.caused(words)
    assert codes == {"CNT-02"}


def test_output_addresses_that_changed_between_two_dumps(pmem):
    boot = pmem.entry(struct_page(0x48000), PMD)
    codes, verdicts = pmem.caused({boot: pmem.word(boot) - 0x4FA00000 + 0x48000000}, earlier_vmcore=pmem.dump())
    assert codes == {"CNT-06"}
    finding = the_finding(verdicts, "CNT-06")
    assert (finding.severity, finding.hit.claim, pfns(finding)) == (
        Severity.CRITICAL,
        Claim.PROBABLE,
        [(0x48000, 0x50000)],
    )
    hot = pmem.entry(struct_page(0x80000), PMD)
    codes, verdicts = pmem.caused({hot: pmem.word(hot) + 0x1000000}, earlier_vmcore=pmem.dump())
    assert codes == {"CNT-06"}
    assert the_finding(verdicts, "CNT-06").severity is Severity.MEDIUM
    assert pmem.caused(earlier_vmcore=pmem.dump())[0] == set()


def test_two_dumps_of_different_boots_are_not_compared(pmem, hvo):
    verdicts = pmem.audit(earlier_vmcore=hvo.dump())
    assert verdicts["CNT-06"].outcome is Outcome.UNDECIDED
    assert "another boot" in verdicts["CNT-06"].reason


def test_a_device_mapping_of_ram(pmem):
    entry = pmem.entry(0xFFFF80008121C000, PTE)  # ioremap of a register page at 0x9020000
    codes, verdicts = pmem.caused({entry: pmem.word(entry) - 0x9020000 + 0x45000000})
    assert codes == {"ATT-04"}
    finding = the_finding(verdicts, "ATT-04")
    assert (finding.severity, finding.hit.claim, pfns(finding)) == (
        Severity.CRITICAL,
        Claim.PROVEN,
        [(0x45000, 0x45001)],
    )


def test_an_invalid_block_of_the_linear_map(pmem):
    entry = pmem.entry(linear(0x4D000000), PMD)
    words = {entry: pmem.word(entry) & ~1}
    codes, verdicts = pmem.caused(words)
    assert codes == {"ATT-10"}
    finding = the_finding(verdicts, "ATT-10")
    assert (finding.severity, finding.hit.claim, pfns(finding)) == (
        Severity.CRITICAL,
        Claim.PROBABLE,
        [(0x4D000, 0x4D200)],
    )
    assert "too old to make any block invalid: they were damaged" in finding.hit.message
    assert "0x00e800004d000704" in " ".join(one.text for one in finding.hit.evidence)


NG = 1 << 11


@pytest.mark.parametrize(
    ("release", "marked", "words"),
    [
        ("6.18.23", False, "fixed in 7.1, 7.0.1, 6.18.24"),
        ("6.18.24", False, "marks those that it made invalid itself"),
        ("6.18.24", True, None),
        ("7.1.0", False, "marks those that it made invalid itself"),
        ("7.1.0", True, None),
        ("6.18.3-vendor", True, None),  # the mark shows that the vendor took the fix over
        ("6.6.0-vendor", True, "unknown took a166563e7ec3 over"),
        ("6.17.13", True, "too old"),
    ],
)
def test_a_fixed_kernel_marks_the_blocks_that_it_made_invalid(pmem, release, marked, words):
    entry = pmem.entry(linear(0x4D000000), PMD)
    verdict = pmem.audit({entry: pmem.word(entry) & ~1 | (NG if marked else 0)}, release=release)["ATT-10"]
    assert [words in one.hit.message for one in verdict.findings] == ([True] if words else [])
    assert verdict.outcome is (Outcome.FIRED if words else Outcome.PASSED)
    assert pmem.audit(release=release)["ATT-10"].outcome is Outcome.PASSED


def test_an_invalid_table_of_the_linear_map(pmem):
    entry = pmem.entry(linear(0x4D000000), PUD)
    codes, verdicts = pmem.caused({entry: pmem.word(entry) & ~1})
    assert codes == {"ATT-10"}
    assert pfns(the_finding(verdicts, "ATT-10")) == [(0x40000, 0x80000)]


def test_tables_that_the_dump_lacks_may_hold_invalid_blocks(pmem):
    table = pmem.table(linear(0x4D000000), PMD)
    assert pmem.audit(missing=[table])["ATT-10"].outcome is Outcome.UNDECIDED


def test_a_block_of_struct_pages_that_is_not_valid(after, pmem):
    entry = pmem.entry(struct_page(0x80000), PMD)
    codes, verdicts = pmem.caused({entry: pmem.word(entry) & ~1})
    assert "VMM-02" in codes
    finding = the_finding(verdicts, "VMM-02")
    assert (finding.severity, finding.hit.claim) == (Severity.CRITICAL, Claim.PROVEN)
    assert "they were damaged" in finding.hit.message
    boot = after.entry(struct_page(0x48000), PMD)
    assert "VMM-13" in after.caused({boot: after.word(boot) & ~1})[0]


# HugeTLB vmemmap optimisation -----------------------------------------------------------------------

HVO_VMEMMAP, HEAD, TAILS = 0xFFFFFC0000000000, 0xFFFFFC0001050000, 0xFFFFFC0001051000


def test_tails_that_share_the_page_of_another_huge_page(hvo):
    other = hvo.word(hvo.entry(TAILS + 0x8000, PTE))
    codes, verdicts = hvo.caused({hvo.entry(TAILS + 4096 * index, PTE): other for index in range(7)})
    assert codes == {"HVO-03"}
    finding = the_finding(verdicts, "HVO-03")
    assert (finding.severity, finding.hit.claim, pfns(finding)) == (
        Severity.CRITICAL,
        Claim.PROVEN,
        [(0x41440, 0x41800)],
    )


def test_shared_tails_where_there_is_no_huge_page(hvo):
    """The pool of the only size that is in use says that it is empty; there are 16 huge pages."""
    dump = Dump(hvo.raw)
    states = dump.global_at("hstates") + 2 * dump.size("hstate")
    pool = states + dump.offset("hstate", "nr_huge_pages") - hvo.addresses.kimage_voffset
    assert hvo.word(pool % (1 << 64)) == 16
    codes, verdicts = hvo.caused({pool % (1 << 64): 0})
    assert codes == {"HVO-03"}
    assert len(verdicts["HVO-03"].findings) == 16


def test_tails_that_are_not_alike(hvo):
    words = {hvo.entry(TAILS + 4096 * index, PTE): hvo.word(hvo.entry(TAILS, PTE)) + 4096 * index for index in range(7)}
    codes, _ = hvo.caused(words)
    assert codes == {"HVO-04"}


def test_a_writable_tail(hvo):
    entry = hvo.entry(TAILS + 4096 * 6, PTE)
    codes, _ = hvo.caused({entry: hvo.word(hvo.entry(HEAD, PTE))})
    assert codes == {"HVO-04", "VMM-11"}


def test_shared_struct_pages_of_a_self_hosted_block(dimm, hvo):
    """6.12 has no such optimisation, and no huge pages: other rules say so."""
    entry = dimm.entry(struct_page(0x88000), PMD)
    page = PAGE | 0x88000000
    words = {index: page + 4096 * index for index in range(512)}
    words |= dict.fromkeys(range(9, 16), page + 4096 * 8 | READ_ONLY)
    codes, verdicts = dimm.caused({entry: FREE_PAGE | 3}, {FREE_PAGE: table_page(words)})
    assert codes == {"HVO-02", "HVO-03", "HVO-05", "VMM-07"}
    assert the_finding(verdicts, "HVO-05").severity is Severity.CRITICAL
    assert pfns(the_finding(verdicts, "HVO-05")) == [(0x88240, 0x88400)]
    assert hvo.audit()["HVO-05"].outcome is Outcome.NOT_APPLICABLE


def test_shared_struct_pages_of_boot_memory_are_no_part_of_that(dimm):
    words, pages = {}, {}
    for pfn, table in ((0x88000, FREE_PAGE), (0x48000, FREE_PAGE + 4096)):
        entry = dimm.entry(struct_page(pfn), PMD)
        page = PAGE | dimm.word(entry) & 0xFFFFFFE00000
        table_words = {index: page + 4096 * index for index in range(512)}
        table_words |= dict.fromkeys(range(9, 16), page + 4096 * 8 | READ_ONLY)
        words[entry], pages[table] = table | 3, table_page(table_words)
    _, verdicts = dimm.caused(words, pages)
    assert pfns(the_finding(verdicts, "HVO-05")) == [(0x88240, 0x88400)]


# KASAN ---------------------------------------------------------------------------------------------------------------

SHADOW, MODULES_SHADOW, SHADOW_END = 0xFFFF600000000000, 0xFFFF700000000000, 0xFFFF800000000000
READ_ONLY_PAGE = 0xE0000000000783


def kasan_shadow(machine):
    """Words and pages of the shadow of a kernel with generic KASAN: what memory there is has its own, all else shares.

    One page of shadow stands behind every address that has none (kasan_early_shadow_pud, _pmd, _pte, _page), over and
    over for whole tables, and in turn with real shadow around the modules (arch/arm64/mm/kasan_init.c).
    """
    shared_pud, shared_pmd, shared_pte, zero, pud, pmd, upper, lower = (
        FREE_PAGE + number * 4096 for number in range(8)
    )
    real = 0x45000000  # memory that the kernel took for shadow
    pages = {
        shared_pud: table_page(dict.fromkeys(range(512), shared_pmd | 3)),
        shared_pmd: table_page(dict.fromkeys(range(512), shared_pte | 3)),
        shared_pte: table_page(dict.fromkeys(range(512), READ_ONLY_PAGE | zero)),
        pud: table_page({0: pmd | 3}),
        pmd: table_page(
            {64 + number: BLOCK | real + (number << 21) for number in range(16)}
        ),  # of 0x40000000-0x50000000
        upper: table_page({0: lower | 3} | dict.fromkeys(range(1, 512), shared_pmd | 3)),
        lower: table_page({number: (shared_pte | 3, BLOCK | real)[number % 2] for number in range(512)}),
    }

    def root(va):
        return machine.addresses.root_pa + 8 * (va >> 39 & 511)

    shared = range(0xFFFF6C0000000000, SHADOW_END, 1 << 39)
    words = {root(va): shared_pud | 3 for va in shared} | {root(SHADOW): pud | 3, root(MODULES_SHADOW): upper | 3}
    return words, pages


def with_kasan(monkeypatch, name="__asan_load8_noabort"):
    found = Dump._find_symbols

    def symbols(dump, path):
        known = found(dump, path)
        return lambda one: 1 if one == name else known(one)

    monkeypatch.setattr(Dump, "_find_symbols", symbols)


def test_the_shadow_of_kasan_is_no_linear_map_and_costs_nothing(pmem, monkeypatch):
    with_kasan(monkeypatch)
    words, pages = kasan_shadow(pmem)
    begin = time.process_time()
    dump = pmem.dump(words, pages)
    assert time.process_time() - begin < 10  # 20 TiB of page entries, 5,368,709,120 of them
    assert dump.addresses.linear_end == SHADOW
    assert dump.walk.repeated.any()
    assert not [one for one in dump.diagnostics if "referred to" in one.message]
    assert len(dump.mapping) < 2000
    codes, verdicts = pmem.caused(words, pages)
    assert codes == set()
    assert verdicts["LIN-05"].outcome is verdicts["VMM-11"].outcome is verdicts["TBL-02"].outcome is Outcome.PASSED


@pytest.mark.parametrize(
    ("name", "release", "end"),
    [
        ("__asan_load8_noabort", "6.12.117", SHADOW),
        ("__hwasan_load8_noabort", "6.12.117", 0xFFFF700000000000),
        ("__asan_load8_noabort", "5.10.262", SHADOW_END),
        ("__asan_load8_noabort", "unreadable", SHADOW_END),
        ("kasan_report", "6.12.117", SHADOW_END),
    ],
)
def test_the_linear_map_ends_where_the_shadow_begins(pmem, monkeypatch, name, release, end):
    with_kasan(monkeypatch, name)
    info = pmem.raw.vmcoreinfo
    raw = replace(pmem.raw, vmcoreinfo=replace(info, text={**info.text, "OSRELEASE": release}))
    assert Dump(raw).addresses.linear_end == end

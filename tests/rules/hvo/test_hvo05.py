"""HVO-05: Struct pages of a memory block that holds its own were shared by the HugeTLB optimisation."""

from parsers.arm64 import PMD
from rules.engine import Outcome
from rules.finding import Severity
from tests.rules.dumps import FREE_PAGE, PAGE_ENTRY, READ_ONLY, pfns_of, struct_page_address, the_finding
from tests.rules.patched import table_page


def test_shared_struct_pages_of_a_self_hosted_block(dimm, hvo):
    """6.12 has no such optimisation, and no huge pages: other rules say so."""
    entry = dimm.entry(struct_page_address(0x88000), PMD)
    page = PAGE_ENTRY | 0x88000000
    words = {index: page + 4096 * index for index in range(512)}
    words |= dict.fromkeys(range(9, 16), page + 4096 * 8 | READ_ONLY)
    codes, verdicts = dimm.caused({entry: FREE_PAGE | 3}, {FREE_PAGE: table_page(words)})
    assert codes == {"HVO-02", "HVO-03", "HVO-05", "VMM-07"}
    assert the_finding(verdicts, "HVO-05").severity is Severity.CRITICAL
    assert pfns_of(the_finding(verdicts, "HVO-05")) == [(0x88240, 0x88400)]
    assert hvo.audit()["HVO-05"].outcome is Outcome.NOT_APPLICABLE


def test_shared_struct_pages_of_boot_memory_do_not_count(dimm):
    words, pages = {}, {}
    for pfn, table in ((0x88000, FREE_PAGE), (0x48000, FREE_PAGE + 4096)):
        entry = dimm.entry(struct_page_address(pfn), PMD)
        page = PAGE_ENTRY | dimm.word(entry) & 0xFFFFFFE00000
        table_words = {index: page + 4096 * index for index in range(512)}
        table_words |= dict.fromkeys(range(9, 16), page + 4096 * 8 | READ_ONLY)
        words[entry], pages[table] = table | 3, table_page(table_words)
    _, verdicts = dimm.caused(words, pages)
    assert pfns_of(the_finding(verdicts, "HVO-05")) == [(0x88240, 0x88400)]

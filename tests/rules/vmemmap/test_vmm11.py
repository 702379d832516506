"""VMM-11: Struct pages of different memory share one writable page."""

from __future__ import annotations

import pytest

from parsers.arm64 import PMD, Attr
from parsers.uname import parse_uname
from rules.finding import Claim, Severity
from rules.vmemmap.vmm11_vmemmap_alias import vmemmap_alias
from tests.rules.dumps import FREE_PAGE, PAGE_ENTRY, pfns_of, struct_page_address, the_finding
from tests.rules.patched import table_page
from tests.rules.walked import SECTION, VALID, at, facts, judged, places, sections, struct_pages

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
        # What is stored right before or after is not shared.
        ([FIRST, SECOND, struct_pages(at(2), at(-8, 512)), struct_pages(at(3), at(-8, -512))], "6.12.5", (), BOTH),
        ([FIRST, struct_pages(at(1), at(-8, 256))], "6.12.5", (), [(at(0, SECTION // 2), at(1, SECTION // 2))]),
    ],
)
def test_struct_pages_that_share_a_page(layout, rows, release, device, expected):
    more = [] if release is None else [parse_uname(release.encode(), "uname")]
    known = facts(layout, rows, *more, **({} if device is None else {"device": sections(*device)}))
    assert places(judged(vmemmap_alias, known)) == expected


def test_two_sections_with_one_block_of_struct_pages(dimm):
    boot, other = dimm.entry(struct_page_address(0x40000), PMD), dimm.entry(struct_page_address(0x48000), PMD)
    codes, verdicts = dimm.caused({other: dimm.word(boot)})
    assert codes == {"VMM-11"}
    finding = the_finding(verdicts, "VMM-11")
    assert (finding.hit.claim, finding.severity) == (Claim.PROVEN, Severity.CRITICAL)
    assert pfns_of(finding) == [(0x40000, 0x50000)]


def test_neighbouring_pages_of_struct_pages_alike(dimm):
    """Equal entries one after another are one row of the walk."""
    entry = dimm.entry(struct_page_address(0x88000), PMD)
    page = PAGE_ENTRY | 0x88000000
    words = {index: page + 4096 * (index & ~1) for index in range(512)}
    codes, verdicts = dimm.caused({entry: FREE_PAGE | 3}, {FREE_PAGE: table_page(words)})
    assert codes == {"VMM-11", "VMM-07"}
    assert len(verdicts["VMM-11"].findings) == 64

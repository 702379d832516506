"""ATT-04: RAM is mapped as device or non-cacheable memory, in the linear map or beside it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from parsers.arm64 import PTE, Attr, MemType
from parsers.ranges import EMPTY, Ranges
from rules.attributes.att04_wrong_memory_type import wrong_memory_type
from rules.engine import Outcome, run
from rules.finding import Claim, Severity
from rules.model.memory.sections import SectionTable
from tests.rules.attributes.machines import DEVICE, HALF, invalid, outcome, walked
from tests.rules.drawn import BLOCK, LINEAR, MIB, RAM, Drawn
from tests.rules.dumps import pfns_of, the_finding
from tests.rules.walked import PFN, VALID


def test_device_entries_that_do_not_translate(tmp_path):
    rows = ((RAM, HALF, "PMD", BLOCK), (HALF, HALF + 2 * MIB, "PTE", invalid(DEVICE)))
    assert outcome(Drawn(linear=rows), tmp_path, "ATT-04") is Outcome.PASSED


def test_device_entries_over_ram_that_has_no_blocks(tmp_path):
    rows = ((RAM, HALF, "PMD", BLOCK), (HALF, HALF + 2 * MIB, "PTE", DEVICE))
    (finding,) = Drawn(linear=rows).verdict(tmp_path, "ATT-04").findings
    assert finding.hit.pfns.tuples() == [(HALF >> 12, HALF + 2 * MIB >> 12)]


VMALLOC = 0xFFFF800080000000


def of_ram(pages=16, memtype=MemType.NORMAL):
    return LINEAR, pages, PFN, 3, VALID, memtype, False


def elsewhere(pfn, pages=1, attrs=VALID, memtype=MemType.DEVICE_nGnRE, repeated=False):
    return VMALLOC, pages, pfn, 3, attrs, memtype, repeated


def table(ram=EMPTY, blocks=EMPTY):
    return SimpleNamespace(ram=ram, blocks=blocks, claim=Claim.PROVEN)


ALL = Ranges.one(PFN, PFN + 16)


@pytest.mark.parametrize(
    ("rows", "sections", "expected"),
    [
        ((of_ram(), elsewhere(PFN + 3)), table(ALL), [(PFN + 3, PFN + 4)]),
        ((of_ram(), elsewhere(PFN + 3)), table(blocks=ALL), [(PFN + 3, PFN + 4)]),
        ((of_ram(), elsewhere(PFN + 3)), None, [(PFN + 3, PFN + 4)]),
        ((of_ram(), elsewhere(PFN + 15, 2)), table(ALL), [(PFN + 15, PFN + 16)]),
        ((of_ram(), elsewhere(PFN - 2, 2)), table(ALL), []),
        ((of_ram(), elsewhere(PFN + 16)), table(ALL), []),
        ((of_ram(), elsewhere(PFN + 3)), table(Ranges.one(PFN, PFN + 3)), []),  # not RAM
        ((of_ram(4), elsewhere(PFN + 4)), table(ALL), []),  # not in the linear map
        ((of_ram(), elsewhere(PFN + 3, memtype=MemType.NORMAL_NC)), table(ALL), []),
        ((of_ram(), elsewhere(PFN + 3, attrs=Attr.PRESENT)), table(ALL), []),
        ((of_ram(), elsewhere(PFN + 3, repeated=True)), table(ALL), []),
    ],
)
def test_device_mappings_beside_the_linear_map(layout, rows, sections, expected):
    facts = walked(layout, *rows)
    if sections is not None:
        facts.known[SectionTable] = sections
    (verdict,) = run([wrong_memory_type], facts)
    assert verdict.outcome is not Outcome.ERROR, verdict.reason
    assert [one for finding in verdict.findings for one in finding.hit.pfns.tuples()] == expected
    pages = rows[1][1]
    assert [(va.start, va.end) for one in verdict.findings for va in one.hit.vas] == [
        (VMALLOC, VMALLOC + pages * 4096) for _ in expected
    ]


def test_a_device_mapping_of_ram(pmem):
    entry = pmem.entry(0xFFFF80008121C000, PTE)  # ioremap of a register page at 0x9020000
    codes, verdicts = pmem.caused({entry: pmem.word(entry) - 0x9020000 + 0x45000000})
    assert codes == {"ATT-04"}
    finding = the_finding(verdicts, "ATT-04")
    assert (finding.severity, finding.hit.claim, pfns_of(finding)) == (
        Severity.CRITICAL,
        Claim.PROVEN,
        [(0x45000, 0x45001)],
    )

"""VMM-14: Sections are valid although nothing owns their memory and the linear map does not have it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from parsers.arm64 import PMD
from parsers.iomem import parse_iomem
from parsers.layout import Precision
from parsers.ranges import Ranges
from rules.engine import Outcome, builtin_rules, run
from rules.finding import Severity
from rules.model.captured import Captured, build_facts
from rules.model.memory.resources import Resources
from rules.vmemmap.vmm14_half_added import half_added
from tests.cases import FIXTURES
from tests.rules.drawn import LINEAR
from tests.rules.dumps import BLOCK_ENTRY, pfns_of, struct_page_address, the_finding
from tests.rules.patched import fired
from tests.rules.walked import PFN, SECTION, WHOLE, at, facts, judged, places, row, sections


def iomem_of(*ranges):
    every = Ranges.pairs((lo << 12, hi << 12) for lo, hi in ranges)
    return Resources.of(
        parse_iomem(b"".join(b"%08x-%08x : something\n" % (lo, hi - 1) for lo, hi in every.tuples()) or IOMEM, "iomem")
    )


IOMEM = b"40000000-7fffffff : System RAM\n"
LINEAR_RAM = row(LINEAR, 0x40000, PFN, level=1)


@pytest.mark.parametrize(
    ("changes", "listed", "linear", "expected"),
    [
        ({}, (), (), [(at(0), at(2))]),
        ({"blocks": sections(0)}, (), (), [(at(1), at(2))]),
        ({"online": sections(1)}, (), (), [(at(0), at(1))]),
        ({"hotadded": sections(1)}, (), (), [(at(1), at(2))]),
        ({"hotadded": sections(0, 2)}, (), (), [(at(0), at(1)), (at(2), at(3))]),
        ({}, ((at(0), at(1)),), (), [(at(1), at(2))]),
        ({}, (), (row(LINEAR + (at(1) - PFN) * 4096, SECTION, at(1), level=2),), [(at(0), at(1))]),
        ({}, (), (row(LINEAR + (at(0) - PFN) * 4096, 512, at(0), level=2),), [(at(0, 512), at(2))]),
        ({"blocks_known": False}, (), (), Outcome.UNDECIDED),
        ({"precision": Precision.DERIVED}, (), (), Outcome.UNDECIDED),
    ],
)
def test_sections_without_an_owner(layout, changes, listed, linear, expected):
    known = facts(layout, [LINEAR_RAM, *linear], iomem_of(*listed), **WHOLE | changes)
    verdict = judged(half_added, known)
    assert (verdict.outcome if isinstance(expected, Outcome) else places(verdict)) == expected
    assert len(verdict.findings) == (0 if isinstance(expected, Outcome) else len(expected))


@pytest.mark.parametrize(
    ("names", "owned"),
    [
        (("Persistent Memory",), False),
        (("Persistent Memory", "namespace0.0"), False),
        (("CXL Window 0", "region0", "dax0.0"), False),
        (("PCI Bus 0000:00", "0000:01:00.0"), False),
        (("amdgpu device memory",), True),
        (("System RAM (kmem)",), True),
    ],
)
def test_a_window_of_firmware_owns_no_sections(layout, names, owned):
    """Nor does what a driver claimed in it; device-private memory, which is not mapped, has a resource of its own."""
    lines = [
        b"%s%08x-%08x : %s\n" % (b"  " * depth, at(0) << 12, (at(2) << 12) - 1, name.encode())
        for depth, name in enumerate(names)
    ]
    listed = Resources.of(parse_iomem(b"".join(lines), "iomem"))
    verdict = judged(half_added, facts(layout, [LINEAR_RAM], listed, **WHOLE))
    assert places(verdict) == ([] if owned else [(at(0), at(2))])


def test_a_section_that_a_failed_hot_add_left(mixed):
    """A copy of a hot-added section where nothing is: present, with struct pages, and owned by nobody."""
    sections = mixed.dump().sections
    row = sections.section_nr.tolist().index(16)
    place, word = int(sections.pa[row]), int(sections.section_mem_map[row])
    words = {place + 16 * 16: word & ~4, place + 16 * 16 + 8: int(sections.usage[row])}
    words[mixed.entry(struct_page_address(0x100000), PMD)] = BLOCK_ENTRY | 0x50000000
    codes, verdicts = mixed.caused(words)
    assert codes - {"SEC-02"} == {"VMM-14"}
    assert pfns_of(the_finding(verdicts, "VMM-14")) == [(0x100000, 0x108000)]


def test_without_resources_rules_about_them_are_undecided(pmem):
    """A kernel without symbols or types gives neither iomem nor memory blocks."""
    dump = replace(pmem.dump(), iomem=None, blocks=None)
    verdicts = {one.rule.code: one for one in run(builtin_rules(), build_facts(Captured(vmcore=dump)))}
    for code in ("VMM-01", "LIN-01", "LIN-03", "VMM-14"):
        assert verdicts[code].outcome is Outcome.UNDECIDED, code
    assert fired(verdicts).keys() <= {"ENV-01"}


def test_sections_of_a_failed_add_have_no_owner():
    """The persistent-memory region that they lie in is not an owner, and they hold their own struct pages."""
    report = audit(Request((FIXTURES / "vmcore" / "half-added-7.3-destroyed.core.zst",)))
    (finding,) = (one for one in report.findings if one.severity >= Severity.HIGH)
    assert finding.rule.code == "VMM-14"
    assert finding.hit.pfns.tuples() == [(0x80000, 0x98000)]
    outcomes = {one.rule.code: one.outcome for one in report.verdicts}
    assert outcomes["VMM-09"] is Outcome.UNDECIDED

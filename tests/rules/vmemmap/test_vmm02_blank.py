"""Struct pages that are mapped and zero: what a removal and a later add leave (VMM-02)."""

import re
from dataclasses import replace

import numpy as np
import pytest

from parsers import ftrace
from parsers.arm64 import PUD
from parsers.layout import KernelLayout
from parsers.ranges import Ranges
from parsers.vmcore.rows import StructPageRows
from rules.engine import Outcome, run
from rules.finding import Claim
from rules.model.captured import Captured, build_facts
from rules.model.memory.lists import Units
from rules.vmemmap.vmm02_lost_struct_pages import lost_struct_pages
from tests.rules.drawn import VMEMMAP, Drawn
from tests.rules.patched import Machine, fired
from tests.rules.traces import VMEMMAP as T_VMEMMAP
from tests.rules.traces import Tracer
from tests.rules.walked import PFN, facts, row, struct_pages

SUBSECTION, SECTION = 512, 0x8000
NAMESPACE_1, NAMESPACE_3 = (0x82200, 0x88000), (0x8BE00, 0x90000)


@pytest.fixture(scope="module")
def readded():
    return Machine("pmem-6.12-readded.core.zst")


def rows_of(machine):
    return machine.dump().struct_pages


def struct_page(machine, pfn):
    """Physical address of the struct page of ``pfn``, and that of its 4 KiB page."""
    rows = rows_of(machine)
    va = int(rows.va[np.searchsorted(rows.pfn, pfn)])
    pa = next(step.output for step in machine.dump().explain(va) if step.output is not None)
    return pa, pa & ~0xFFF


def found(readded, zeroed=()):
    verdict = readded.audit(words=dict.fromkeys(zeroed, 0))["VMM-02"]
    return [one for finding in verdict.findings for one in finding.hit.pfns.tuples()]


def test_a_namespace_that_a_removal_and_an_add_left_blank(readded):
    (finding,) = readded.audit()["VMM-02"].findings
    assert finding.hit.pfns.tuples() == [NAMESPACE_3]
    assert finding.hit.claim is Claim.PROBABLE
    assert "struct page of PFN 0x8ffff: zeros" in [one.text for one in finding.hit.evidence]


def test_blank_struct_pages_are_an_altmap_at_the_start_of_a_namespace_only(readded):
    start, middle = (NAMESPACE_1[0] + number * SUBSECTION for number in (0, 4))
    pages = [struct_page(readded, pfn + SUBSECTION - 1)[0] for pfn in (start, middle)]
    zeroed = [[page + at for at in range(0, 64, 8)] for page in pages]
    assert found(readded, zeroed[0]) == [NAMESPACE_3]
    assert found(readded, zeroed[1]) == [(middle, middle + SUBSECTION), NAMESPACE_3]
    assert found(readded, zeroed[1][1:]) == [NAMESPACE_3]  # what is left are the flags


def test_struct_pages_that_the_dump_leaves_out_prove_nothing(readded):
    rows = rows_of(readded)
    left_out = {struct_page(readded, int(pfn))[1] for pfn in rows.pfn[rows.blank].tolist()}
    verdicts = readded.audit(missing=left_out)
    assert verdicts["VMM-02"].outcome is Outcome.UNDECIDED
    assert "VMM-02" not in fired(verdicts)


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    return Drawn().audit(tmp_path_factory.mktemp("drawn")).facts.get(KernelLayout)


def place(number):
    """PFN of a subsection: the first eight of each section are looked at."""
    return PFN + number // 8 * SECTION + number % 8 * SUBSECTION


def pages(*ranges):
    return Ranges.pairs((place(lo), place(hi - 1) + SUBSECTION) for lo, hi in ranges)


def judged(machine, zeroed=(), missing=(), iomem=True, words=(), **captured):
    """The verdict of VMM-02 about the machine, some of its memory changed or left out, with its /proc/iomem or not."""
    dump = machine.dump(dict.fromkeys(zeroed, 0) | dict(words), missing=missing)
    dump = dump if iomem else replace(dump, iomem=None)
    (verdict,) = run([lost_struct_pages], build_facts(Captured(vmcore=dump, **captured)))
    return verdict


def pages_of_blanks(machine, first=0):
    rows = rows_of(machine)
    return {struct_page(machine, pfn)[1] for pfn in rows.pfn[rows.blank].tolist() if pfn >= first}


def test_without_a_list_of_devices_blank_struct_pages_may_be_an_altmap(readded):
    verdict = judged(readded, iomem=False)
    assert verdict.outcome is Outcome.UNDECIDED
    assert "33 subsections" in verdict.reason
    verdict = judged(readded, missing=pages_of_blanks(readded), iomem=False)
    assert verdict.outcome is Outcome.UNDECIDED
    assert "not in the dump" in verdict.reason


def test_with_a_list_of_devices_an_altmap_is_known(readded):
    page = struct_page(readded, NAMESPACE_1[0] + SUBSECTION - 1)[0]
    zeroed = [page + at for at in range(0, 64, 8)]
    assert judged(readded, zeroed, pages_of_blanks(readded, NAMESPACE_3[0])).outcome is Outcome.UNDECIDED


def test_sections_of_a_dump_list_all_valid_memory(readded):
    """Memory that is in the linear map alone belongs to no device, though no list names the devices."""
    layout = build_facts(Captured(vmcore=readded.dump())).get(KernelLayout)
    nowhere = 5 << 30
    linear = (layout.page_offset - layout.facts["phys_offset"].value + nowhere) % (1 << 64)
    words = {readded.entry(linear, PUD): 0x68000000000701 | nowhere}
    verdict = judged(readded, missing=pages_of_blanks(readded), iomem=False, words=words)
    assert verdict.outcome is Outcome.UNDECIDED
    assert "mem_section has no section for 262144 pages of the linear map" in verdict.reason


def test_blank_struct_pages_that_a_trace_explains_are_reported_once(readded):
    """A trace with the removal of the other namespace of the section, and its return."""
    rows = rows_of(readded)
    base = int(rows.va[0]) - int(rows.pfn[0]) * 64
    other, mine = ((0x88000 << 12, 0x3E00 << 12), (NAMESPACE_3[0] << 12, 0x4200 << 12))
    tracer = Tracer(whole_sections_only=False)
    tracer.add(*other)
    tracer.add(*mine)
    tracer.remove(*other)
    tracer.add(*other)
    lines = re.sub(
        r"(start|end)=0x(fffff\w{11})\b", lambda one: f"{one[1]}={int(one[2], 16) - T_VMEMMAP + base:#x}", tracer.text
    )
    trace = ftrace.read(lines.encode(), path="trace")
    titles = [
        [one.hit.title for one in judged(readded, missing=missing, trace=trace).findings]
        for missing in ((), pages_of_blanks(readded))
    ]
    assert titles == [
        ["Struct pages of valid memory are blank"],
        ["A removal took the struct pages of valid memory away"],
    ]


def test_struct_pages_that_are_not_mapped_are_not_blank(layout):
    """One page of those of subsection 2 is not there, and those of subsections 2 and 3 are zero."""
    rows = StructPageRows(
        pfn=np.array([place(number) + SUBSECTION - 1 for number in range(4)]),
        va=np.zeros(4, dtype=np.uint64),
        blank=np.array([False, False, True, True]),
        pages_per_subsection=SUBSECTION,
    )
    units = Units(np.array([place(0), place(2)]), np.array([place(2), place(4)]), ("a", "b"), (None, None), "iomem")
    devices = pages((0, 4))
    machine = {"valid": devices, "hotadded": devices, "device": devices, "device_units": units}
    mapped = [row(VMEMMAP, 16, PFN), row(VMEMMAP + 17 * 4096, 512 - 17, PFN + 17)]
    (verdict,) = run([lost_struct_pages], facts(layout, mapped, rows, **machine))
    assert [(one.hit.title, one.hit.pfns.tuples()) for one in verdict.findings] == [
        ("Struct pages of valid memory are not mapped", [(place(2), place(2) + 64)]),
        ("Struct pages of valid memory are blank", [(place(2) + 64, place(4))]),
    ]


def blanks(layout, blank, units, *, online=(), early=()):
    """What is said of subsections 0, 1, 2...: 0 for a blank one, _ for one that was not read; None: undecided."""
    read = [number for number, one in enumerate(blank) if one != "_"]
    rows = StructPageRows(
        pfn=np.array([place(number) + SUBSECTION - 1 for number in read]),
        va=np.zeros(len(read), dtype=np.uint64),
        blank=np.array([blank[number] == "0" for number in read], dtype=np.bool_),
        pages_per_subsection=SUBSECTION,
    )
    devices = pages(*units)
    start, end = (np.array([edge(*unit) for unit in units]) for edge in (first_page, last_page))
    machine = {
        "valid": pages(*units, *online, *early),
        "online": pages(*online, *early),
        "hotadded": pages(*units, *online),
        "early": pages(*early),
        "device": devices,
        "device_units": Units(start, end, ("dax",) * len(units), (None,) * len(units), "iomem"),
    }
    known = facts(layout, [struct_pages(PFN, PFN, blocks=16)], rows, **machine)
    (verdict,) = run([lost_struct_pages], known)
    if verdict.outcome is Outcome.UNDECIDED:
        assert "all struct pages in the sections of" in verdict.reason
        return None
    assert all(one.hit.title == "Struct pages of valid memory are blank" for one in verdict.findings)
    found = Ranges.pairs(pair for one in verdict.findings for pair in one.hit.pfns.tuples())
    return [number for number in range(len(blank)) if found.contains([place(number)])[0]]


def first_page(lo, _):
    return place(lo)


def last_page(_, hi):
    return place(hi - 1) + SUBSECTION


@pytest.mark.parametrize(
    ("blank", "units", "expected"),
    [
        ("0111", [(0, 4)], []),
        ("0011", [(0, 4)], []),
        ("1110", [(0, 4)], [(3, 4)]),
        ("0101", [(0, 4)], [(2, 3)]),
        ("0000", [(0, 4)], None),  # nothing else in the section is in use: the dump may be full of zeros
        ("00001111", [(0, 4), (4, 8)], [(0, 4)]),
        ("0000000011111111", [(0, 8), (8, 16)], None),
        ("0000000010000000", [(0, 8), (8, 16)], [(9, 16)]),
        ("0011", [(0, 2), (2, 4)], [(0, 2)]),
        ("1101", [(0, 2), (2, 4)], []),
        ("1100", [(0, 2), (2, 4)], [(2, 4)]),
        ("1010", [(0, 2), (3, 4)], [(1, 2), (3, 4)]),
        ("0000", [(4, 8)], []),
        ("0001", [(0, 8)], []),
        ("000_1", [(0, 4), (4, 5)], []),  # what was not read may be in use
        ("_0001", [(0, 1), (1, 4), (4, 5)], [(1, 4)]),
        ("_0001", [(0, 1), (2, 4), (4, 5)], [(2, 4)]),
    ],
)
def test_an_altmap_is_at_the_start_of_its_range(layout, blank, units, expected):
    found = None if expected is None else [number for lo, hi in expected for number in range(lo, hi)]
    assert blanks(layout, blank, units) == found


def test_memory_that_is_online_has_no_blank_struct_pages(layout):
    nowhere = [(100, 101)]
    assert blanks(layout, "0100", nowhere) == []
    assert blanks(layout, "0100", nowhere, online=[(0, 3)]) == [0, 2]
    assert blanks(layout, "0100", nowhere, early=[(0, 3)]) == []  # what firmware keeps is never initialised

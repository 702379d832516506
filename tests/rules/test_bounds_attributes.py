"""Rules about attributes at the bounds of what they look at, on machines drawn for the purpose."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from parsers.arm64 import Attr, MemType
from parsers.layout import KernelLayout
from parsers.mapping import Mapping
from parsers.ranges import EMPTY, Ranges
from parsers.uname import KernelRelease, parse_uname
from rules.attributes.att04_wrong_memory_type import wrong_memory_type
from rules.attributes.att08_efi_read_only import efi_read_only
from rules.attributes.att09_hibernation_copy import hibernation_copy
from rules.attributes.att10_invalid_large_leaf import invalid_large_leaf
from rules.engine import Outcome, run
from rules.facts import Facts
from rules.finding import Claim
from rules.model.memory.regions import LinearMap
from rules.model.memory.sections import SectionTable
from rules.model.memory.walk import PageWalk
from tests.rules.drawn import BLOCK, GIB, LINEAR, MIB, NORMAL, RAM, Drawn, memory_blocks

TAGGED = "RW NX SHD AF        BLK UXN    MEM/NORMAL-TAGGED"
READ_ONLY = "ro NX SHD AF        BLK UXN    MEM/NORMAL"
DEVICE = "RW NX SHD AF            UXN    DEVICE/nGnRE"
HALF = RAM + GIB // 2


def invalid(flags):
    """The same, marked as not valid."""
    return f"F {flags}"


def outcome(machine, folder, code):
    return machine.verdict(folder, code).outcome


# ATT-01: writable and executable --------------------------------------------------------------------------------------

WX = "RW x  SHD AF        BLK UXN    MEM/NORMAL"


@pytest.mark.parametrize(
    ("cmdline", "expected"),
    [("", Outcome.FIRED), ("console=ttyAMA0\n", Outcome.FIRED), ("rodata=off\n", Outcome.NOT_APPLICABLE)],
)
def test_writable_and_executable_memory(tmp_path, cmdline, expected):
    """Without a log, which holds the command line too."""
    machine = Drawn(linear=((RAM, HALF, "PMD", BLOCK), (HALF, RAM + GIB, "PMD", WX)), files={"cmdline": cmdline})
    assert outcome(machine, tmp_path, "ATT-01") is expected


# ATT-04: RAM that is no memory to the CPU -----------------------------------------------------------------------------


def test_device_entries_that_do_not_translate(tmp_path):
    rows = ((RAM, HALF, "PMD", BLOCK), (HALF, HALF + 2 * MIB, "PTE", invalid(DEVICE)))
    assert outcome(Drawn(linear=rows), tmp_path, "ATT-04") is Outcome.PASSED


def test_device_entries_over_ram_that_has_no_blocks(tmp_path):
    rows = ((RAM, HALF, "PMD", BLOCK), (HALF, HALF + 2 * MIB, "PTE", DEVICE))
    (finding,) = Drawn(linear=rows).verdict(tmp_path, "ATT-04").findings
    assert finding.hit.pfns.tuples() == [(HALF >> 12, HALF + 2 * MIB >> 12)]


VALID = Attr.PRESENT | Attr.VALID | Attr.AF
VMALLOC = 0xFFFF800080000000
PFN = RAM >> 12


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    return Drawn().audit(tmp_path_factory.mktemp("drawn")).facts.get(KernelLayout)


def walked(layout, *rows):
    """Facts of rows: address, pages, page that it leads to, level, attributes, type, all alike."""
    start, pages, pfn, level, attrs, memtype, repeated = (list(column) for column in zip(*rows, strict=True))
    mapping = Mapping(
        start=np.array(start, dtype=np.uint64),
        size=np.array([4096 * one for one in pages], dtype=np.uint64),
        level=np.array(level, dtype=np.int8),
        attrs=np.array(attrs, dtype=np.uint16),
        memtype=np.array(memtype, dtype=np.uint8),
        observed_start=np.array([0], dtype=np.uint64),
        observed_last=np.array([2**64 - 1], dtype=np.uint64),
        source="core",
        pa=np.array([4096 * one for one in pfn], dtype=np.uint64),
    )
    walk = PageWalk("core", None, None, np.array(repeated), None, (), lambda _: [])
    known = {Mapping: mapping, KernelLayout: layout, LinearMap: LinearMap.of(mapping, layout), PageWalk: walk}
    return Facts(known)


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


# ATT-05: RAM without tags ---------------------------------------------------------------------------------------------

MTE = "[    0.000000] CPU features: detected: Memory Tagging Extension\n"


@pytest.mark.parametrize(
    ("boot", "rows", "expected"),
    [
        (HALF, ((RAM, HALF, "PMD", TAGGED), (HALF, RAM + GIB, "PMD", BLOCK)), Outcome.FIRED),
        (RAM + GIB, ((RAM, HALF, "PMD", TAGGED), (HALF, RAM + GIB, "PMD", BLOCK)), Outcome.PASSED),
        (HALF, ((RAM, HALF, "PMD", TAGGED), (HALF, RAM + GIB, "PMD", READ_ONLY)), Outcome.PASSED),
        (HALF, ((RAM, HALF, "PMD", TAGGED), (HALF, RAM + GIB, "PMD", invalid(BLOCK))), Outcome.PASSED),
        (HALF, ((RAM, HALF, "PMD", invalid(TAGGED)), (HALF, RAM + GIB, "PMD", BLOCK)), Outcome.NOT_APPLICABLE),
    ],
)
def test_untagged_memory(tmp_path, boot, rows, expected):
    machine = Drawn(linear=rows, boot=((RAM, boot),), dmesg=MTE)
    assert outcome(machine, tmp_path, "ATT-05") is expected


# ATT-06: read-only blocks ---------------------------------------------------------------------------------------------

CODE = RAM + 32 * MIB


@pytest.mark.parametrize(
    ("read_only", "code", "expected"),
    [
        ((0, 8), (0, 8), []),
        ((0, 8), (0, 7), []),  # up to the end of the block
        ((0, 12), (0, 7), []),  # rodata, from the next block on
        ((0, 12), (0, 8), []),
        ((10, 12), (0, 8), [(10, 12)]),
        ((-2, 8), (0, 8), [(-2, 0)]),
    ],
)
def test_read_only_blocks_that_are_not_the_kernel(tmp_path, read_only, code, expected):
    lo, hi = (CODE + one * MIB for one in read_only)
    rows = ((RAM, lo, "PMD", BLOCK), (lo, hi, "PMD", READ_ONLY), (hi, RAM + GIB, "PMD", BLOCK))
    iomem = (
        (RAM, RAM + GIB, "System RAM"),
        *((CODE + lo * MIB, CODE + hi * MIB, "  Kernel code") for lo, hi in [code]),
    )
    verdict = Drawn(linear=rows, iomem=iomem).verdict(tmp_path, "ATT-06")
    found = [one for finding in verdict.findings for one in finding.hit.pfns.tuples()]
    assert found == [(CODE + lo * MIB >> 12, CODE + hi * MIB >> 12) for lo, hi in expected]


def test_read_only_blocks_need_the_place_of_the_kernel_and_count_where_they_translate(tmp_path):
    for flags, expected in ((READ_ONLY, Outcome.UNDECIDED), (invalid(READ_ONLY), Outcome.PASSED)):
        rows = ((RAM, HALF, "PMD", BLOCK), (HALF, HALF + 2 * MIB, "PMD", flags))
        assert outcome(Drawn(linear=rows), tmp_path, "ATT-06") is expected


# ATT-07: odd flags ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (NORMAL, []),
        (f"USR {NORMAL}", ["Kernel memory is accessible from user space"]),
        (invalid(f"USR {NORMAL}"), []),
        (NORMAL.replace("SHD", "   "), ["Kernel memory is not shareable"]),
        (DEVICE.replace("SHD", "   "), []),
    ],
)
def test_flags_of_entries_that_translate(tmp_path, flags, expected):
    rows = ((RAM, HALF, "PMD", BLOCK), (HALF, HALF + 2 * MIB, "PTE", flags))
    verdict = Drawn(linear=rows).verdict(tmp_path, "ATT-07")
    assert [one.hit.title for one in verdict.findings] == expected


@pytest.mark.parametrize("other", [DEVICE, invalid(NORMAL)])
def test_no_cacheable_entry_is_shareable(tmp_path, other):
    """With LPA2 the bits are those of an address, whatever those of a device say."""
    rows = ((RAM, HALF, "PMD", BLOCK.replace("SHD", "   ")), (HALF, HALF + 2 * MIB, "PTE", other))
    pages = ((RAM, RAM + GIB, "PMD", BLOCK.replace("SHD", "   ")),)
    assert outcome(Drawn(linear=rows, pages=pages), tmp_path, "ATT-07") is Outcome.PASSED


# ATT-08, ATT-09: releases and what they rest on -----------------------------------------------------------------------

DIRTY = "[    0.000000] CPU features: detected: Hardware dirty bit management\n"
EFI, HIBERNATION = "CONFIG_ARM64_4K_PAGES=y\nCONFIG_EFI=y\n", "CONFIG_ARM64_4K_PAGES=y\nCONFIG_HIBERNATION=y\n"
PLAIN = "CONFIG_ARM64_4K_PAGES=y\n"
AFFECTED, NOT = Outcome.FIRED, Outcome.NOT_APPLICABLE


def of_release(machine, folder, rule, release):
    """What a rule says about the machine under another kernel; a drawn dump is of 6.12."""
    facts = machine.audit(folder).facts
    known = {**facts.known, KernelRelease: parse_uname(release.encode(), "uname")}
    return run([rule], Facts(known, facts.missing))[0].outcome


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        *(("4.5.9", NOT), ("4.6.0", AFFECTED), ("7.1.9", AFFECTED), ("7.2.0", NOT)),
        *(("6.12.116", AFFECTED), ("6.12.117", NOT)),
    ],
)
def test_releases_whose_read_only_efi_memory_is_writable(tmp_path, release, expected):
    machine = Drawn(dmesg=DIRTY, files={"config": EFI})
    assert of_release(machine, tmp_path, efi_read_only, release) is expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, Outcome.FIRED),
        ({"config": PLAIN}, NOT),
        ({"config": ""}, Outcome.UNDECIDED),
        ({"dmesg": ""}, Outcome.UNDECIDED),
        ({"dmesg": "[    1.000000] Offlined Pages 32768\n"}, Outcome.UNDECIDED),
        ({"dmesg": DIRTY}, Outcome.FIRED),
    ],
)
def test_what_says_that_read_only_efi_memory_is_writable(tmp_path, files, expected):
    machine = Drawn(dmesg=DIRTY, files={"config": EFI} | files)
    assert outcome(machine, tmp_path, "ATT-08") is expected


OFFLINED = "[    1.000000] Offlined Pages 32768\n"
DIMM = RAM + GIB
BOOT_BLOCKS = tuple(range(8, 16))


def hibernating(online=BOOT_BLOCKS, offline=(), **files):
    """A machine that took memory offline, and that can hibernate."""
    iomem = (
        (RAM, DIMM, "System RAM"),
        *((one << 27, one + 1 << 27, "System RAM") for one in (*online, *offline) if one > 15),
    )
    files = {"config": HIBERNATION, "memory_blocks": memory_blocks(online, offline)} | files
    return Drawn(dmesg=OFFLINED, iomem=iomem, files=files)


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        *(("4.6.9", NOT), ("4.7.0", AFFECTED), ("7.1.9", AFFECTED), ("7.2.0", NOT)),
        *(("6.12.111", AFFECTED), ("6.12.112", NOT)),
    ],
)
def test_releases_that_hibernate_with_memory_that_is_gone(tmp_path, release, expected):
    assert of_release(hibernating(), tmp_path, hibernation_copy, release) is expected


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (hibernating(), Outcome.FIRED),
        (hibernating(config=PLAIN), NOT),
        (hibernating(config=""), Outcome.UNDECIDED),
        (hibernating(cmdline="console=ttyAMA0 nohibernate\n"), NOT),
        (hibernating(dmesg=""), Outcome.UNDECIDED),
        # What went offline may be there.
        (hibernating(memory_blocks=""), Outcome.PASSED),
        (hibernating(offline=(16,)), Outcome.PASSED),
        (hibernating(online=(*BOOT_BLOCKS, 16)), Outcome.FIRED),
        (hibernating(online=BOOT_BLOCKS[1:], offline=BOOT_BLOCKS[:1]), Outcome.FIRED),
    ],
)
def test_what_says_that_hibernation_copies_holes(tmp_path, machine, expected):
    assert outcome(machine, tmp_path, "ATT-09") is expected


def test_device_memory_is_no_memory_that_went_offline(tmp_path):
    machine = hibernating()
    machine = replace(
        machine,
        linear=(*machine.linear, (DIMM, DIMM + 128 * MIB, "PMD", BLOCK)),
        iomem=(*machine.iomem, (DIMM, DIMM + 128 * MIB, "dax0.0")),
    )
    assert outcome(machine, tmp_path, "ATT-09") is Outcome.FIRED


@pytest.mark.parametrize(
    ("start", "flags", "expected"),
    [(DIMM, invalid(BLOCK), True), (DIMM, BLOCK, False), (HALF, invalid(BLOCK), False)],
)
def test_invalid_entries_of_memory_that_is_not_there(tmp_path, start, flags, expected):
    rows = ((RAM, HALF, "PMD", BLOCK), (start, start + 2 * MIB, "PMD", flags))
    machine = replace(hibernating(), linear=rows, dmesg="")
    verdict = machine.verdict(tmp_path, "ATT-09")
    found = [one for finding in verdict.findings for one in finding.hit.pfns.tuples()]
    assert found == [(start >> 12, start + 2 * MIB >> 12) for _ in range(expected)]


# ATT-10: blocks that are not valid ------------------------------------------------------------------------------------

MARKED, DAMAGED = Attr.PRESENT | Attr.NG, Attr(Attr.PRESENT)


@pytest.mark.parametrize(
    ("release", "attrs", "level", "isolated", "expected"),
    [
        ("6.18.3", DAMAGED, 2, False, True),
        ("6.18.3", DAMAGED, 3, False, False),
        ("6.18.3", VALID, 2, False, False),
        ("6.18.3", MARKED, 2, False, False),
        ("6.18.3", MARKED, 2, True, True),  # with page-table isolation the mark is in every entry
        ("7.2.0", MARKED, 2, True, False),
        ("7.2.0", DAMAGED, 2, True, True),
        ("6.12.5", MARKED, 2, False, True),
    ],
)
def test_invalid_blocks_in_a_crash_dump(layout, release, attrs, level, isolated, expected):
    good = (LINEAR, 512, PFN, 2, VALID | (Attr.NG if isolated else 0), MemType.NORMAL, False)
    bad = (LINEAR + 2 * MIB, 512, PFN + 512, level, attrs, MemType.NORMAL, False)
    hole = (LINEAR + 4 * MIB, 512, 0, 2, Attr(0), MemType.NORMAL, False)
    facts = walked(layout, good, bad, hole)
    facts.known[KernelRelease] = parse_uname(release.encode(), "uname")
    (verdict,) = run([invalid_large_leaf], facts)
    assert (verdict.outcome, verdict.reason) == (Outcome.FIRED if expected else Outcome.PASSED, "")
    found = [one for finding in verdict.findings for one in finding.hit.pfns.tuples()]
    assert found == [(PFN + 512, PFN + 1024) for _ in range(expected)]


@pytest.mark.parametrize("release", ["6.12.5", "6.18.3"])
def test_parts_of_the_linear_map_that_the_dump_does_not_hold(layout, release):
    facts = walked(layout, (LINEAR, 512, PFN, 2, VALID, MemType.NORMAL, False))
    seen = replace(facts.known[Mapping], observed_last=np.array([LINEAR + 2 * MIB - 1], dtype=np.uint64))
    facts.known[LinearMap] = LinearMap.of(seen, layout)
    facts.known[KernelRelease] = parse_uname(release.encode(), "uname")
    assert run([invalid_large_leaf], facts)[0].outcome is Outcome.UNDECIDED


def test_a_walk_without_a_linear_map_shows_nothing(layout):
    facts = walked(layout, (LINEAR, 512, PFN, 2, VALID, MemType.NORMAL, False))
    del facts.known[LinearMap]
    facts.known[KernelRelease] = parse_uname(b"6.12.5", "uname")
    assert run([invalid_large_leaf], facts)[0].outcome is NOT


BBM = "[    0.000000] CPU features: detected: BBM Level 2 without TLB conflict abort\n"


def oops(entry):
    place = "[ffff000199600000] pgd=18000000ffff7403, p4d=18000000ffff7403, pud=18000000ffff6403"
    return (
        "[  101.000000] Unable to handle kernel paging request at virtual address ffff000199600000\n"
        f"[  103.000000] {place}, pmd={entry:016x}\n"
        "[  104.000000] Internal error: Oops: 0000000096000006 [#1]  SMP\n"
    )


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("", Outcome.PASSED),
        (BBM, Outcome.UNDECIDED),
        (oops(0x10), Outcome.FIRED),
        (oops(0x12), Outcome.FIRED),
        (oops(0xE8000199600704), Outcome.FIRED),
        (oops(0), Outcome.PASSED),
        (oops(0x11), Outcome.PASSED),
    ],
)
def test_oopses_on_invalid_blocks(tmp_path, log, expected):
    verdict = Drawn(release="6.18.3", dmesg=log).verdict(tmp_path, "ATT-10")
    assert verdict.outcome is expected


def test_an_oops_says_enough_on_a_cpu_with_bbml2(tmp_path):
    assert Drawn(release="6.18.3", dmesg=BBM + oops(0x10)).verdict(tmp_path, "ATT-10").reason == ""


def test_a_text_dump_shows_no_invalid_blocks(tmp_path):
    rows = ((RAM, HALF, "PMD", BLOCK), (HALF, HALF + 2 * MIB, "PMD", invalid(BLOCK)))
    machine = Drawn(release="6.18.3", linear=rows)
    assert outcome(machine, tmp_path, "ATT-10") is Outcome.PASSED
    assert outcome(replace(machine, files={"dmesg": ""}), tmp_path, "ATT-10") is Outcome.UNDECIDED

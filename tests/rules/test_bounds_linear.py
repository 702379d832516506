"""Rules about the linear map at the bounds of what they look at, on machines drawn for the purpose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from rules.engine import Outcome
from rules.finding import Claim, Severity
from tests.rules.drawn import BLOCK, CONT_BLOCK, GIB, KIB, MIB, NORMAL, RAM, Drawn, memory_blocks

CAPTURES = Path(__file__).parents[2] / "fixtures" / "captures"
DIMM = RAM + GIB
"""Right behind the RAM."""
PFN = DIMM >> 12
PAGES = 256
"""Of a MiB."""


def with_more(*, linear=(), iomem=(), **changes):
    """A machine with more in its linear map and in its iomem: ranges in MiB from the end of RAM."""
    machine = Drawn()
    return replace(
        machine,
        linear=machine.linear + tuple((at(lo), at(hi), *what) for lo, hi, *what in linear),
        iomem=machine.iomem + tuple((at(lo), at(hi), what) for lo, hi, what in iomem),
        **changes,
    )


def at(mib):
    return DIMM + int(mib * MIB)


def pfns(verdict):
    return [one.hit.pfns.tuples() for one in verdict.findings]


def mib(*ranges):
    """Page frames of ranges in MiB from the end of RAM."""
    return [(PFN + int(lo * PAGES), PFN + int(hi * PAGES)) for lo, hi in ranges]


# LIN-01: memory that is gone ------------------------------------------------------------------------------------------


def test_leaves_of_every_size_are_kept_by_a_byte_and_gone_without(tmp_path):
    """Blocks and pages side by side: what one keeps is no business of the other."""
    linear = ((0, 2, "PMD", BLOCK), (2, 4, "PTE", NORMAL), (4, 6, "PMD", BLOCK), (6, 8, "PTE", NORMAL))
    verdict = with_more(linear=linear, iomem=((0, 1, "pmem0"), (2, 3, "pmem1"))).verdict(tmp_path, "LIN-01")
    assert pfns(verdict) == [mib((3, 8))]
    verdict = with_more(linear=linear, iomem=((3, 4, "pmem0"), (5, 7, "pmem1"))).verdict(tmp_path, "LIN-01")
    assert pfns(verdict) == [mib((0, 3)), mib((7, 8))]


@pytest.mark.parametrize(
    ("claim", "outcome"),
    [
        ("  namespace0.0", Outcome.PASSED),  # smaller than a subsection: it has no struct pages, and is claimed
        ("", Outcome.FIRED),
    ],
)
def test_memory_that_a_driver_claims_is_not_gone(tmp_path, claim, outcome):
    iomem = ((0, 16, "Persistent Memory"), *([(0, 1, claim)] if claim else []))
    verdict = with_more(linear=((0, 1, "PTE", NORMAL),), iomem=iomem).verdict(tmp_path, "LIN-01")
    assert verdict.outcome is outcome
    assert [(one.hit.key, one.severity, one.hit.claim) for one in verdict.findings] == [
        ("unclaimed", Severity.MEDIUM, Claim.SUSPECTED) for _ in range(outcome is Outcome.FIRED)
    ]


def test_no_map_memory_is_not_gone(tmp_path):
    """That it is mapped is LIN-07's."""
    report = with_more(linear=((0, 2, "PMD", BLOCK),), iomem=((0, 2, "reserved"),)).audit(tmp_path)
    outcomes = {one.rule.code: one.outcome for one in report.verdicts}
    assert (outcomes["LIN-01"], outcomes["LIN-07"]) == (Outcome.PASSED, Outcome.FIRED)


def test_memory_of_a_container_that_is_ram_again_is_not_gone(tmp_path):
    iomem = ((0, 128, "Soft Reserved"), (0, 128, "  dax0.0"), (0, 128, "    System RAM (kmem)"))
    verdict = with_more(linear=((0, 128, "PMD", BLOCK),), iomem=iomem).verdict(tmp_path, "LIN-01")
    assert verdict.outcome is Outcome.PASSED


def test_an_online_block_that_iomem_does_not_list_is_not_gone(tmp_path):
    blocks = {"memory_blocks": memory_blocks((*range(8, 16), 16))}
    machine = with_more(linear=((0, 256, "PMD", BLOCK),), files=blocks)
    assert pfns(machine.verdict(tmp_path, "LIN-01")) == [mib((128, 256))]


# LIN-02: leaves over several units ------------------------------------------------------------------------------------


def dimms(count, *rows, **changes):
    """A machine with online memory blocks behind its RAM."""
    blocks = memory_blocks(tuple(range(8, 16 + count)))
    iomem = ((0, 128 * count, "System RAM"),)
    return with_more(linear=rows, iomem=iomem, files={"memory_blocks": blocks} | changes)


def test_edges_of_units_that_are_edges_of_leaves(tmp_path):
    for rows in (((0, 256, "PMD", BLOCK),), ((0, 128, "PMD", CONT_BLOCK), (128, 256, "PTE", NORMAL))):
        assert dimms(2, *rows).verdict(tmp_path, "LIN-02").outcome is Outcome.PASSED


def test_a_leaf_over_two_blocks_and_one_over_one(tmp_path):
    """The second leaf ends where the units do; what is behind is empty."""
    machine = dimms(8, (0, 1024, "PUD", BLOCK))
    verdict = machine.verdict(tmp_path, "LIN-02")
    assert pfns(verdict) == [mib((0, 1024))]
    assert verdict.findings[0].severity is Severity.MEDIUM
    assert verdict.reason == ""


def test_a_leaf_over_boot_memory_too_names_what_can_be_removed(tmp_path):
    half = RAM + GIB // 2
    machine = replace(
        Drawn(),
        boot=((RAM, half),),
        files={"memory_blocks": memory_blocks(tuple(range(8, 16)))},
    )
    assert pfns(machine.verdict(tmp_path, "LIN-02")) == [[(half >> 12, DIMM >> 12)]]


def test_a_device_in_the_last_boot_section_under_a_leaf_with_it(tmp_path):
    """Half of the section is RAM; the leaf is of 32 MiB, over both."""
    edge = DIMM - 48 * MIB
    machine = replace(
        Drawn(),
        linear=((RAM, DIMM, "PMD", CONT_BLOCK),),
        boot=((RAM, edge),),
        iomem=((RAM, edge, "System RAM"), (edge, DIMM, "dax0.0")),
    )
    verdict = machine.verdict(tmp_path, "LIN-02")
    assert pfns(verdict) == [mib((-48, -32))]
    assert verdict.findings[0].severity is Severity.HIGH


@pytest.mark.parametrize(
    ("linear", "outcome"),
    [
        ((0, 1024, "PUD", BLOCK), Outcome.UNDECIDED),
        ((-1024, 1024, "PMD", BLOCK), Outcome.PASSED),
    ],
)
@pytest.mark.parametrize("dropped", ["dmesg", "memory_blocks"])
def test_leaves_over_memory_of_which_nobody_knows_when_it_came(tmp_path, linear, outcome, dropped):
    """Without the log any section may have been added; without the blocks any that the log does not name."""
    machine = dimms(8, linear, **{dropped: ""})
    assert replace(machine, linear=machine.linear[-1:]).verdict(tmp_path, "LIN-02").outcome is outcome


@pytest.mark.parametrize(
    "machine",
    [
        Drawn(),
        with_more(linear=((0, 1024, "PUD", BLOCK),), iomem=((0, 1024, "dax0.0"),)),
        replace(dimms(8), linear=((RAM, DIMM, "PMD", BLOCK),), boot=()),  # what is unknown is not mapped
    ],
    ids=["boot memory", "a device", "a hole"],
)
def test_a_large_leaf_over_what_is_known_is_no_question(tmp_path, machine):
    assert machine.verdict(tmp_path, "LIN-02").outcome is Outcome.PASSED


def test_a_leaf_of_a_section_is_no_question():
    """64K pages: blocks and sections have 512 MiB."""
    moment = CAPTURES / "dimm-6.12-64k" / "02-dimm-online"
    files = ("kernel_page_tables", "iomem", "memory_blocks", "config", "uname")
    report = audit(Request(tuple(moment / name for name in files if (moment / name).exists())))
    verdict = next(one for one in report.verdicts if one.rule.code == "LIN-02")
    assert verdict.outcome is Outcome.PASSED


@pytest.mark.parametrize(("row", "outcome"), [(("PMD", BLOCK), Outcome.UNDECIDED), (("PTE", NORMAL), Outcome.PASSED)])
def test_device_memory_that_nobody_names(tmp_path, row, outcome):
    """Without iomem: pages cannot straddle anything."""
    machine = with_more(linear=((128, 256, *row),))
    files = {"iomem": "", "memory_blocks": memory_blocks(tuple(range(8, 16)))}
    assert replace(machine, files=files).verdict(tmp_path, "LIN-02").outcome is outcome


# LIN-03: holes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hole", "outcome"),
    [((2, 4), Outcome.FIRED), ((2, 3), Outcome.PASSED), ((3, 5), Outcome.PASSED)],
)
def test_holes_as_large_as_a_block(tmp_path, hole, outcome):
    lo, hi = hole
    rows = ((RAM, RAM + lo * MIB, "PTE", NORMAL), (RAM + hi * MIB, DIMM, "PTE", NORMAL))
    verdict = replace(Drawn(), linear=rows).verdict(tmp_path, "LIN-03")
    assert verdict.outcome is outcome
    assert pfns(verdict) == [[(RAM + lo * MIB >> 12, RAM + hi * MIB >> 12)] for _ in range(outcome is Outcome.FIRED)]


@pytest.mark.parametrize(("online", "claim"), [(8, Claim.PROVEN), (9, Claim.PROBABLE)])
def test_online_memory_is_certainly_in_use(tmp_path, online, claim):
    """The hole is in the first block."""
    rows = ((RAM + 2 * MIB, DIMM, "PMD", BLOCK),)
    machine = replace(Drawn(), linear=rows, files={"memory_blocks": memory_blocks((online,), (17 - online,))})
    (finding,) = machine.verdict(tmp_path, "LIN-03").findings
    assert finding.hit.claim is claim


@pytest.mark.parametrize(("offline", "outcome"), [((), Outcome.FIRED), ((16,), Outcome.UNDECIDED)])
def test_holes_in_hot_added_memory_without_iomem(tmp_path, offline, outcome):
    """Only blocks tell: an offline one need not be mapped."""
    online = tuple(one for one in range(8, 17) if one not in offline)
    files = {"iomem": "", "memory_blocks": memory_blocks(online, offline)}
    verdict = with_more(files=files).verdict(tmp_path, "LIN-03")
    assert verdict.outcome is outcome
    assert pfns(verdict) == [mib((0, 128)) for _ in range(outcome is Outcome.FIRED)]


# LIN-04: refusals -----------------------------------------------------------------------------------------------------

SPLIT = "[    1.000000] [80000000 88000000] splits a leaf entry in linear map\n"


@pytest.mark.parametrize(
    ("release", "log", "outcome", "claim"),
    [
        ("7.0.9", "", Outcome.NOT_APPLICABLE, None),
        ("7.1.0", "", Outcome.PASSED, None),
        ("7.2.9", SPLIT, Outcome.FIRED, Claim.SUSPECTED),
        ("7.3.0", SPLIT, Outcome.FIRED, Claim.PROVEN),
    ],
)
def test_releases_that_check_for_splits_and_check_the_right_range(tmp_path, release, log, outcome, claim):
    verdict = replace(Drawn(), release=release, dmesg=log).verdict(tmp_path, "LIN-04")
    assert verdict.outcome is outcome
    assert [one.hit.claim for one in verdict.findings] == ([claim] if claim else [])


# LIN-06: beyond the linear map ----------------------------------------------------------------------------------------

REFUSED = "[    1.000000] Hotplug memory [0x800000000000-0x800040000000] exceeds maximum addressable range [0x0-0x1]\n"


def test_refused_memory_is_told_whatever_else_is_known(tmp_path):
    verdict = replace(Drawn(), dmesg=REFUSED, files={"iomem": "", "vmcoreinfo": ""}).verdict(tmp_path, "LIN-06")
    assert pfns(verdict) == [[(0x800000000, 0x800040000)]]
    assert verdict.reason


@pytest.mark.parametrize("dropped", [("dmesg",), ("iomem",), ("vmcoreinfo", "memory_blocks", "kernel_page_tables")])
def test_what_lies_beyond_the_linear_map_needs_log_sections_and_layout(tmp_path, dropped):
    machine = replace(Drawn(), files=dict.fromkeys(dropped, ""))
    assert machine.verdict(tmp_path, "LIN-06").outcome is Outcome.UNDECIDED


# LIN-08: leaves past the end of memory --------------------------------------------------------------------------------


def test_blocks_that_reach_past_the_end_of_memory(tmp_path):
    """Two leaves that are partly memory; pages beside the end of memory reach past nothing."""
    linear = ((0, 4, "PMD", BLOCK), (4, 8, "PTE", NORMAL), (8, 10, "PMD", BLOCK))
    machine = with_more(linear=linear, iomem=((0, 3, "pmem0"), (4, 5, "pmem1"), (8, 9.5, "pmem2")))
    verdict = machine.verdict(tmp_path, "LIN-08")
    assert pfns(verdict) == [mib((3, 4)), mib((9.5, 10))]


def test_pages_that_reach_past_the_end_of_memory(tmp_path):
    """Blocks elsewhere: what is beyond the end is in pages, and so is what is before it."""
    linear = ((0, 2, "PTE", NORMAL), (2, 4, "PMD", BLOCK))
    machine = with_more(linear=linear, iomem=((0, 1, "pmem0"), (2, 4, "pmem1")))
    assert machine.verdict(tmp_path, "LIN-08").outcome is Outcome.PASSED


# LIN-09: no memory for tables -----------------------------------------------------------------------------------------

IN_PAGES = ((RAM, DIMM, "PTE", NORMAL),)


def meminfo(free_kib):
    return f"MemTotal:  1000000 kB\nMemFree:  {free_kib} kB\n"


@pytest.mark.parametrize(
    ("linear", "free", "outcome"),
    [
        (IN_PAGES, 2048, Outcome.PASSED),  # 8 bytes a page of as much memory again, 1 GiB
        (IN_PAGES, 2047, Outcome.FIRED),
        (((RAM, DIMM - 512 * MIB, "PTE", NORMAL), (DIMM - 512 * MIB, DIMM, "PMD", BLOCK)), 1, Outcome.PASSED),
        (((RAM, DIMM - 510 * MIB, "PTE", NORMAL), (DIMM - 510 * MIB, DIMM, "PMD", BLOCK)), 1, Outcome.FIRED),
        (((RAM, RAM + MIB, "PTE", NORMAL), (RAM + 4 * MIB, RAM + 8 * MIB, "PMD", BLOCK)), 1, Outcome.PASSED),
    ],
)
def test_tables_for_as_much_memory_again(tmp_path, linear, free, outcome):
    machine = replace(Drawn(), linear=linear, iomem=((RAM, RAM + MIB, "System RAM"),), files={"meminfo": meminfo(free)})
    assert machine.verdict(tmp_path, "LIN-09").outcome is outcome


def test_empty_entries_are_no_pages(tmp_path):
    """More of the linear map is empty at the last level than is mapped."""
    linear = ((RAM, RAM + 4 * KIB, "PTE", NORMAL), (RAM + 4 * KIB, RAM + 64 * MIB, "PTE", ""))
    linear += ((RAM + 64 * MIB, RAM + 72 * MIB, "PMD", BLOCK),)
    machine = replace(Drawn(), linear=linear, files={"meminfo": meminfo(1)})
    assert machine.verdict(tmp_path, "LIN-09").outcome is Outcome.PASSED


@pytest.mark.parametrize(
    "files",
    [{}, {"meminfo": "MemTotal:  1000000 kB\n"}, {"meminfo": meminfo(99999), "dmesg": ""}],
)
def test_what_the_prediction_needs(tmp_path, files):
    assert replace(Drawn(), linear=IN_PAGES, files=files).verdict(tmp_path, "LIN-09").outcome is Outcome.UNDECIDED


BUG = "[    1.000000] kernel BUG at arch/arm64/mm/mmu.c:481!\n"
FRAMES = ("arch_add_memory+0x68/0x110", "__pgd_pgtable_alloc+0x9c/0xa8")


def panic(*, before=(), noise=0, frames=FRAMES):
    called = "[    1.000000] Call trace:\n"
    trace = "".join(f"[    1.000000]  {frame}\n" for frame in ("arch_remove_memory+0x104/0x3c0", *frames))
    head = "".join(f"[    0.500000]  {frame}\n" for frame in before)
    lines = "[    1.000000] pc : __create_pgd_mapping+0x1/0x2\n" * noise
    return (called + head if before else "") + BUG + lines + called + trace


@pytest.mark.parametrize(
    ("log", "outcome", "claim"),
    [
        (panic(), Outcome.FIRED, Claim.PROVEN),
        (panic(frames=FRAMES[:1]), Outcome.FIRED, Claim.PROBABLE),
        (panic(frames=FRAMES[1:]), Outcome.PASSED, None),
        (panic(noise=56, frames=FRAMES[:1]), Outcome.FIRED, Claim.PROBABLE),  # 59 lines behind the BUG
        (panic(noise=57, frames=FRAMES[:1]), Outcome.PASSED, None),
        (panic(before=FRAMES, frames=()), Outcome.PASSED, None),
    ],
)
def test_a_panic_is_one_of_hot_add_if_its_trace_is(tmp_path, log, outcome, claim):
    verdict = replace(Drawn(), dmesg=log).verdict(tmp_path, "LIN-09")
    assert verdict.outcome is outcome
    assert [one.hit.claim for one in verdict.findings] == ([claim] if claim else [])
    for finding in verdict.findings:
        assert not any("arch_remove_memory" in one.text for one in finding.hit.evidence)

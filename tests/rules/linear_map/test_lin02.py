"""LIN-02: A block or contiguous run of the linear map covers more than one removable unit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from rules.engine import Outcome
from rules.finding import Severity
from tests.cases import CAPTURES
from tests.rules.captures import findings
from tests.rules.drawn import BLOCK, CONT_BLOCK, GIB, MIB, NORMAL, RAM, Drawn, memory_blocks
from tests.rules.linear_map.machines import DIMM, all_pfns, mib, with_more


def dimms(count, *rows, **changes):
    """A machine with online memory blocks after its RAM."""
    blocks = memory_blocks(tuple(range(8, 16 + count)))
    iomem = ((0, 128 * count, "System RAM"),)
    return with_more(linear=rows, iomem=iomem, files={"memory_blocks": blocks} | changes)


def test_edges_of_units_that_are_edges_of_leaves(tmp_path):
    for rows in (((0, 256, "PMD", BLOCK),), ((0, 128, "PMD", CONT_BLOCK), (128, 256, "PTE", NORMAL))):
        assert dimms(2, *rows).verdict(tmp_path, "LIN-02").outcome is Outcome.PASSED


def test_a_leaf_over_two_blocks_and_one_over_one(tmp_path):
    """The second leaf ends where the units do; what follows is empty."""
    machine = dimms(8, (0, 1024, "PUD", BLOCK))
    verdict = machine.verdict(tmp_path, "LIN-02")
    assert all_pfns(verdict) == [mib((0, 1024))]
    assert verdict.findings[0].severity is Severity.MEDIUM
    assert verdict.reason == ""


def test_a_leaf_over_boot_memory_too_names_what_can_be_removed(tmp_path):
    half = RAM + GIB // 2
    machine = replace(
        Drawn(),
        boot=((RAM, half),),
        files={"memory_blocks": memory_blocks(tuple(range(8, 16)))},
    )
    assert all_pfns(machine.verdict(tmp_path, "LIN-02")) == [[(half >> 12, DIMM >> 12)]]


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
    assert all_pfns(verdict) == [mib((-48, -32))]
    assert verdict.findings[0].severity is Severity.HIGH


@pytest.mark.parametrize(
    ("linear", "outcome"),
    [
        ((0, 1024, "PUD", BLOCK), Outcome.UNDECIDED),
        ((-1024, 1024, "PMD", BLOCK), Outcome.PASSED),
    ],
)
@pytest.mark.parametrize("dropped", ["dmesg", "memory_blocks"])
def test_leaves_over_memory_of_unknown_origin(tmp_path, linear, outcome, dropped):
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
def test_a_large_leaf_over_known_memory_is_decided(tmp_path, machine):
    assert machine.verdict(tmp_path, "LIN-02").outcome is Outcome.PASSED


def test_a_leaf_of_a_section_is_decided():
    """64K pages: blocks and sections have 512 MiB."""
    moment = CAPTURES / "dimm-6.12-64k" / "02-dimm-online"
    files = ("kernel_page_tables", "iomem", "memory_blocks", "config", "uname")
    report = audit(Request(tuple(moment / name for name in files if (moment / name).exists())))
    verdict = next(one for one in report.verdicts if one.rule.code == "LIN-02")
    assert verdict.outcome is Outcome.PASSED


@pytest.mark.parametrize(("row", "outcome"), [(("PMD", BLOCK), Outcome.UNDECIDED), (("PTE", NORMAL), Outcome.PASSED)])
def test_device_memory_that_no_list_names(tmp_path, row, outcome):
    """Without iomem: pages cannot straddle anything."""
    machine = with_more(linear=((128, 256, *row),))
    files = {"iomem": "", "memory_blocks": memory_blocks(tuple(range(8, 16)))}
    assert replace(machine, files=files).verdict(tmp_path, "LIN-02").outcome is outcome


def test_leaf_over_many_blocks_is_reported_leaf_by_leaf() -> None:
    pfns = [one.hit.pfns.tuples() for one in findings("pud-6.12-4k/02-dimm-online", "LIN-02")]
    assert pfns == [[(0x80000, 0xC0000)], [(0xC0000, 0x100000)]]

"""LIN-09: Adding memory can panic, or did, because there is no memory for its page tables."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rules.engine import Outcome
from rules.finding import Claim
from tests.rules.drawn import BLOCK, KIB, MIB, NORMAL, RAM, Drawn
from tests.rules.linear_map.machines import DIMM

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


def test_empty_entries_are_not_pages(tmp_path):
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
        (panic(noise=56, frames=FRAMES[:1]), Outcome.FIRED, Claim.PROBABLE),  # 59 lines after the BUG
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

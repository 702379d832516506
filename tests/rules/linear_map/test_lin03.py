"""LIN-03: RAM in use has no linear mapping, in the shape of a torn-out leaf."""

from __future__ import annotations

from dataclasses import replace

import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from parsers.arm64 import PMD
from rules.engine import Outcome
from rules.finding import Claim
from tests.cases import CAPTURES
from tests.rules.captures import VULNERABLE, alarms, file_of, verdict_in
from tests.rules.drawn import BLOCK, MIB, NORMAL, RAM, Drawn, memory_blocks
from tests.rules.dumps import linear_address, pfns_of, the_finding
from tests.rules.linear_map.machines import DIMM, all_pfns, mib, with_more


@pytest.mark.parametrize(
    ("hole", "outcome"),
    [((2, 4), Outcome.FIRED), ((2, 3), Outcome.PASSED), ((3, 5), Outcome.PASSED)],
)
def test_holes_as_large_as_a_block(tmp_path, hole, outcome):
    lo, hi = hole
    rows = ((RAM, RAM + lo * MIB, "PTE", NORMAL), (RAM + hi * MIB, DIMM, "PTE", NORMAL))
    verdict = replace(Drawn(), linear=rows).verdict(tmp_path, "LIN-03")
    assert verdict.outcome is outcome
    assert all_pfns(verdict) == [
        [(RAM + lo * MIB >> 12, RAM + hi * MIB >> 12)] for _ in range(outcome is Outcome.FIRED)
    ]


@pytest.mark.parametrize(("online", "claim"), [(8, Claim.PROVEN), (9, Claim.PROBABLE)])
def test_online_memory_is_certainly_in_use(tmp_path, online, claim):
    """The hole is in the first block."""
    rows = ((RAM + 2 * MIB, DIMM, "PMD", BLOCK),)
    machine = replace(Drawn(), linear=rows, files={"memory_blocks": memory_blocks((online,), (17 - online,))})
    (finding,) = machine.verdict(tmp_path, "LIN-03").findings
    assert finding.hit.claim is claim


@pytest.mark.parametrize(("offline", "outcome"), [((), Outcome.FIRED), ((16,), Outcome.UNDECIDED)])
def test_holes_in_hot_added_memory_without_iomem(tmp_path, offline, outcome):
    """Only blocks decide: an offline one need not be mapped."""
    online = tuple(one for one in range(8, 17) if one not in offline)
    files = {"iomem": "", "memory_blocks": memory_blocks(online, offline)}
    verdict = with_more(files=files).verdict(tmp_path, "LIN-03")
    assert verdict.outcome is outcome
    assert all_pfns(verdict) == [mib((0, 128)) for _ in range(outcome is Outcome.FIRED)]


def test_a_cleared_block_of_the_linear_map(pmem):
    codes, verdicts = pmem.caused({pmem.entry(linear_address(0x4D000000), PMD): 0})
    assert codes == {"LIN-03"}
    assert pfns_of(the_finding(verdicts, "LIN-03")) == [(0x4D000, 0x4D200)]


def without_head(data):
    lines = data.splitlines(keepends=True)
    return b"".join(lines[len(lines) // 3 :])


def test_a_log_without_its_head_does_not_say_what_is_boot_memory(changed_capture):
    """memory0 holds no-map memory only; without the first lines of the log it looked hot-added and torn."""
    report = changed_capture(VULNERABLE, dmesg=without_head)
    assert b"node   0: [mem" in without_head(file_of(VULNERABLE, "dmesg"))
    assert verdict_in(report, "LIN-03").outcome is not Outcome.FIRED
    assert alarms(report) == alarms(changed_nothing(VULNERABLE))


def changed_nothing(capture):
    return audit(Request((CAPTURES / capture,)))


def test_vmcoreinfo_of_another_boot_does_not_move_the_linear_map(changed_capture):
    info = b"OSRELEASE=6.12.117\nPAGESIZE=4096\nNUMBER(VA_BITS)=48\nNUMBER(PHYS_OFFSET)=0xffffa50080000000\n"
    report = changed_capture(VULNERABLE, trace=None, vmcoreinfo=lambda _: info)
    assert alarms(report) == set()
    assert (
        "the dump is of another boot: it fits PHYS_OFFSET 0x0, VMCOREINFO says" in verdict_in(report, "LIN-03").reason
    )

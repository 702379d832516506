"""TBL-04: Hot-remove frees page-table pages that are still marked and counted as such."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rules.engine import Outcome
from tests.rules.drawn import Drawn

BAD = "[    1.000000] BUG: Bad page state in process kworker/u8:1  pfn:58d40\n[    1.000000] page_type: f2({})\n"
FRAMES = ("free_hotplug_page_range+0xa8/0xd0", "free_empty_tables.constprop.0+0x3d4/0x560")


def bad_page(*, kind="table", before=(), noise=0, frames=FRAMES):
    called = "[    1.000000] Call trace:\n"
    head = called + "".join(f"[    0.500000]  {frame}\n" for frame in before)
    lines = "[    1.000000] page dumped because: nonzero mapcount\n" * noise
    trace = "".join(f"[    1.000000]  {frame}\n" for frame in ("__create_pgd_mapping+0x1/0x2", *frames))
    return (head if before else "") + BAD.format(kind) + lines + called + trace


@pytest.mark.parametrize(
    ("log", "outcome"),
    [
        (bad_page(), Outcome.FIRED),
        (bad_page(frames=("arch_remove_memory+0x94/0xf0",)), Outcome.FIRED),
        (bad_page(kind="buddy"), Outcome.PASSED),
        (bad_page(frames=()), Outcome.PASSED),
        (bad_page(before=FRAMES, frames=()), Outcome.PASSED),
        (bad_page(noise=56, frames=FRAMES[:1]), Outcome.FIRED),  # 59 lines after the type
        (bad_page(noise=57, frames=FRAMES[:1]), Outcome.PASSED),
    ],
)
def test_a_bad_page_is_one_of_hot_remove_if_its_trace_is(tmp_path, log, outcome):
    verdict = replace(Drawn(), release="6.16.3", dmesg=log).verdict(tmp_path, "TBL-04")
    assert verdict.outcome is outcome
    for finding in verdict.findings:
        assert not any("__create_pgd_mapping" in one.text for one in finding.hit.evidence)

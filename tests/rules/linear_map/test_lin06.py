"""LIN-06: Hot-added memory lies, or was to lie, outside of what the linear map can map."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rules.engine import Outcome
from tests.rules.drawn import Drawn
from tests.rules.linear_map.machines import all_pfns

REFUSED = "[    1.000000] Hotplug memory [0x800000000000-0x800040000000] exceeds maximum addressable range [0x0-0x1]\n"


def test_refused_memory_is_reported_whatever_else_is_known(tmp_path):
    verdict = replace(Drawn(), dmesg=REFUSED, files={"iomem": "", "vmcoreinfo": ""}).verdict(tmp_path, "LIN-06")
    assert all_pfns(verdict) == [[(0x800000000, 0x800040000)]]
    assert verdict.reason


@pytest.mark.parametrize("dropped", [("dmesg",), ("iomem",), ("vmcoreinfo", "memory_blocks", "kernel_page_tables")])
def test_what_lies_beyond_the_linear_map_needs_log_sections_and_layout(tmp_path, dropped):
    machine = replace(Drawn(), files=dict.fromkeys(dropped, ""))
    assert machine.verdict(tmp_path, "LIN-06").outcome is Outcome.UNDECIDED

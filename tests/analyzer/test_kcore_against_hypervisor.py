"""An unmodified kernel read from inside, by /proc/kcore, and from outside, by the hypervisor: one and the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from parsers.ranges import Ranges
from parsers.vmcore.extract import extract
from parsers.vmcore.moment import find_flux

KCORE = Path(__file__).parents[2] / "fixtures" / "kcore"
IN_THE_DIMM = (0xC0493, 0xC0497, 0xC0569, 0xC056B, 0xC05B8, 0xC06D1, 0xC0730, 0xC4D4A)
"""Tables of vmalloc that the kernel has put into hot-added memory: it refuses to take that block offline."""
IN_THE_BLOCK = (0x34045, 0x34046, 0x34047, 0x3404C, 0x34056, 0x3405B, 0x3406E, 0x34074)
"""The same with 16K pages, in a block of virtio-mem; the struct page of each says that it is a page table."""
MOMENTS = {
    "namespaces": [("VMM-06", "high", [(0x20400, 0x20500)])],
    "shared-block": [("VMM-01", "high", [(0xC0000, 0xC8000)])],
    "torn-block": [("VMM-02", "critical", [(0xC0000, 0xC2000), (0xC4000, 0xC8000)])],
    "dimm-online": [("TBL-02", "low", [(pfn, pfn + 1) for pfn in IN_THE_DIMM])],
    "kernel-zone-7.3": [
        ("TBL-02", "low", Ranges.pairs((pfn, pfn + 1) for pfn in IN_THE_BLOCK).tuples()),
        ("VMM-09", "low", [(0x20000, 0x24000)]),
    ],
    "one-removed": [("VMM-02", "critical", [(0x20480, 0x20500)])],
    "one-removed-7.3": [("VMM-02", "critical", [(0x20480, 0x20500)])],
}
"""All findings above info by moment, proven each, with the page frames."""


def both(moment: str) -> tuple[Path, Path]:
    return KCORE / f"{moment}.kcore.zst", KCORE / f"{moment}.hypervisor.zst"


@pytest.mark.parametrize("moment", MOMENTS)
def test_section_table_and_page_tables_are_the_same_but_for_vmalloc(moment: str) -> None:
    inside, outside = (extract(path) for path in both(moment))
    flux = find_flux(
        (inside.walk, inside.sections), (outside.walk, outside.sections), inside.addresses, 64
    )  # the guest went on running between the two
    assert not flux.matters
    start, end = (np.uint64(inside.vmcoreinfo.number(name)) for name in ("VMALLOC_START", "VMALLOC_END"))
    assert ((flux.start >= start) & (flux.last < end)).all()
    for name in ("section_nr", "section_mem_map", "subsections", "usage", "pa"):
        np.testing.assert_array_equal(getattr(inside.sections, name), getattr(outside.sections, name))
    np.testing.assert_array_equal(inside.struct_pages.pfn, outside.struct_pages.pfn)
    np.testing.assert_array_equal(inside.struct_pages.blank, outside.struct_pages.blank)
    low = 1 << inside.addresses.va_actual
    assert inside.mapping.observed_start.tolist() == [(1 << 64) - low]


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_findings_are_the_same_and_the_real_damage_is_proven(ptaudit, moment: str) -> None:
    found = []
    names = [KCORE / f"{moment}.{kind}" for kind in ("iomem", "memory_blocks")]  # VMM-01 and VMM-06 ask who is there
    lists = [path for path in names if path.exists()]
    for path in both(moment):
        findings = json.loads(ptaudit("audit", path, *lists, "--format", "json").out)["findings"]
        found.append([(one["rule"], one["severity"], one["claim"], one["pfn_ranges"]) for one in findings])
    assert found[0] == found[1]
    expected = [
        (code, severity, "proven", [{"start": hex(lo), "end": hex(hi)} for lo, hi in pfns])
        for code, severity, pfns in MOMENTS[moment]
    ]
    assert [one for one in found[0] if one[1] != "info"] == expected

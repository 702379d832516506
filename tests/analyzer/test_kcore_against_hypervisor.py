"""An unmodified kernel read from inside, by /proc/kcore, and from outside, by the hypervisor: one and the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from parsers.vmcore.extract import extract
from parsers.vmcore.moment import find_flux

KCORE = Path(__file__).parents[2] / "fixtures" / "kcore"
IN_THE_DIMM = (0xC0493, 0xC0497, 0xC0569, 0xC056B, 0xC05B8, 0xC06D1, 0xC0730, 0xC4D4A)
"""Tables of vmalloc that the kernel has put into hot-added memory: it refuses to take that block offline."""
MOMENTS = {
    "namespaces": ("VMM-06", "high", "proven", [{"start": "0x20400", "end": "0x20500"}]),
    "shared-block": ("VMM-01", "high", "proven", [{"start": "0xc0000", "end": "0xc8000"}]),
    "torn-block": (
        *("VMM-02", "critical", "proven"),
        [{"start": "0xc0000", "end": "0xc2000"}, {"start": "0xc4000", "end": "0xc8000"}],
    ),
    "dimm-online": (
        *("TBL-02", "low", "proven"),
        [{"start": hex(pfn), "end": hex(pfn + 1)} for pfn in IN_THE_DIMM],
    ),
    "one-removed": ("VMM-02", "critical", "proven", [{"start": "0x20480", "end": "0x20500"}]),
    "one-removed-7.3": ("VMM-02", "critical", "proven", [{"start": "0x20480", "end": "0x20500"}]),
}


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
    lists = [path for path in [KCORE / f"{moment}.iomem"] if path.exists()]  # VMM-01 and VMM-06 ask who is there
    for path in both(moment):
        findings = json.loads(ptaudit("audit", path, *lists, "--format", "json").out)["findings"]
        found.append([(one["rule"], one["severity"], one["claim"], one["pfn_ranges"]) for one in findings])
    assert found[0] == found[1]
    assert [one for one in found[0] if one[1] != "info"] == [MOMENTS[moment]]

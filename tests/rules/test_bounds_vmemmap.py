"""Rules about struct pages at the bounds of what they look at, on machines drawn for the purpose."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rules.engine import Outcome
from tests.rules.drawn import BLOCK, CONT_BLOCK, GIB, MIB, NORMAL, RAM, Drawn, memory_blocks

NVDIMM = 0x80000000
"""Right behind the RAM, on a section edge."""


def namespaces(*ranges, base=None):
    """A machine with device memory in these ranges (MiB from the edge), their struct pages in blocks."""
    machine = base or Drawn()
    rows = tuple((NVDIMM + lo * MIB, NVDIMM + hi * MIB) for lo, hi in ranges)
    sections = sorted({number for lo, hi in rows for number in range(lo >> 27, (hi - 1 >> 27) + 1)})
    return replace(
        machine,
        linear=(*machine.linear, *((lo, hi, "PMD", BLOCK) for lo, hi in rows)),
        pages=(*machine.pages, *((one << 27, one + 1 << 27, "PMD", BLOCK) for one in sections)),
        iomem=(*machine.iomem, *((lo, hi, f"dax0.{at}") for at, (lo, hi) in enumerate(rows))),
    )


def pfns(verdict):
    return [one.hit.pfns.tuples() for one in verdict.findings]


def vas(verdict):
    return [[(va.start, va.end) for va in one.hit.vas] for one in verdict.findings]


def struct_pages(*ranges):
    """Virtual addresses of the struct pages of physical ranges (MiB from the edge)."""
    machine = Drawn()
    return [tuple(machine.struct_page_of(NVDIMM + at * MIB) for at in pair) for pair in ranges]


# VMM-01, VMM-03: blocks under parts of sections ------------------------------------------------------------------------


def test_blocks_of_devices_in_several_places(tmp_path):
    machine = namespaces((0, 64), (512, 544), (640, 704))
    verdict = machine.verdict(tmp_path, "VMM-01")
    assert pfns(verdict) == [[(0x80000, 0x84000)], [(0xA0000, 0xA2000)], [(0xA8000, 0xAC000)]]
    assert vas(verdict) == [struct_pages((0, 128)), struct_pages((512, 640)), struct_pages((640, 768))]
    (wasted,) = machine.verdict(tmp_path, "VMM-03").findings
    assert wasted.hit.pfns.tuples() == [(0x80000, 0x84000), (0xA0000, 0xA2000), (0xA8000, 0xAC000)]
    assert "3584 KiB" in wasted.hit.title  # of three blocks of 2048 KiB, in which 160 of 384 MiB are described


def test_namespaces_in_the_last_boot_section_share_its_struct_pages(tmp_path):
    boot = (RAM, NVDIMM - 64 * MIB)
    base = replace(
        Drawn(),
        linear=((*boot, "PMD", BLOCK),),
        iomem=((*boot, "System RAM"),),
        boot=(boot,),
        pages=((RAM, NVDIMM - 128 * MIB, "PMD", BLOCK),),
    )
    machine = namespaces((-64, -32), (-32, 0), base=base)
    for code in ("VMM-01", "VMM-03"):
        assert machine.verdict(tmp_path, code).outcome is Outcome.PASSED


def test_namespaces_beside_no_map_memory_have_its_section(tmp_path):
    """No-map memory came with a section; the log does not tell of it here."""
    machine = namespaces((0, 64))
    machine = replace(machine, iomem=(*machine.iomem, (NVDIMM + 64 * MIB, NVDIMM + 128 * MIB, "reserved")))
    for code in ("VMM-01", "VMM-03"):
        assert machine.verdict(tmp_path, code).outcome is Outcome.PASSED

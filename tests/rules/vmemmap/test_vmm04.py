"""VMM-04: Struct pages are still mapped although none of the memory that they describe exists."""

from __future__ import annotations

from dataclasses import replace

from tests.rules.drawn import BLOCK, MIB, NORMAL, Drawn
from tests.rules.vmemmap.machines import NVDIMM, all_pfns, namespaces


def test_pages_and_blocks_of_struct_pages_are_kept_by_what_they_describe(tmp_path):
    """A page describes 256 KiB, a block 128 MiB: a namespace of 2 MiB keeps eight pages, or all of a block."""
    machine = namespaces((0, 2), (128, 130))
    rows = ((NVDIMM, NVDIMM + 64 * MIB, "PTE", NORMAL), (NVDIMM + 128 * MIB, NVDIMM + 384 * MIB, "PMD", BLOCK))
    machine = replace(machine, pages=(*Drawn().pages, *rows))
    assert all_pfns(machine.verdict(tmp_path, "VMM-04")) == [[(0x80200, 0x84000), (0x90000, 0x98000)]]

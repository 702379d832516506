"""Walks, sections and zones beside those of the crash utility on the same dump."""

import re

import numpy as np
import pytest

from tests.parsers.vmcore.conftest import FIXTURES

TEXT = (FIXTURES / "pmem-6.12-vuln-after.crash").read_text()
WALKS = re.findall(r"^([0-9a-f]{16})  (\S+|\(not mapped\))\n((?:(?!VIRTUAL).*\n)*)", TEXT, re.MULTILINE)


def test_crash_walked_four_addresses():
    assert len(WALKS) == 4


@pytest.mark.parametrize("walk", WALKS, ids=lambda walk: walk[0])
def test_every_level_of_a_walk(after, walk):
    va, physical, levels = walk
    steps = after.explain(int(va, 16))
    entries = re.findall(r"^ +(?:PGD|PUD|PMD|PTE): ([0-9a-f]+) => ([0-9a-f]+)$", levels, re.MULTILINE)
    pa, known = after.addresses.physical(np.array([int(entry, 16) for entry, _ in entries], np.uint64))
    assert known.all()
    assert [step.entry_pa for step in steps] == pa.tolist()
    assert [step.descriptor for step in steps] == [int(value, 16) for _, value in entries]
    assert steps[-1].output == (None if physical == "(not mapped)" else int(physical, 16))


def test_sections(after):
    rows = re.findall(r"^ *(\d+)  ([0-9a-f]{16})  ([0-9a-f]{16})  [0-9a-f]{16} +([PMOED]+) ", TEXT, re.MULTILINE)
    sections = after.sections
    pa, _ = after.addresses.physical(np.array([int(address, 16) for _, address, _, _ in rows], np.uint64))
    assert sections.section_nr.tolist() == [int(number) for number, *_ in rows]
    assert sections.pa.tolist() == pa.tolist()
    assert [word & ~0x3F for word in sections.section_mem_map.tolist()] == [int(coded, 16) for _, _, coded, _ in rows]
    columns = zip(sections.present, sections.has_memmap, sections.online, sections.early, sections.device, strict=True)
    letters = ["".join(name for name, flag in zip("PMOED", row, strict=True) if flag) for row in columns]
    assert letters == [state for *_, state in rows]


def test_zones(after):
    rows = re.findall(r"^ +\d+ +(\w+) +([1-9]\d*) +[0-9a-f]{16} +[0-9a-f]+ +(\d+)$", TEXT, re.MULTILINE)
    zones = after.zones
    mine = zip(zones.name, zones.spanned.tolist(), zones.start_pfn.tolist(), strict=True)
    assert list(mine) == [(name, int(size), int(start)) for name, size, start in rows]

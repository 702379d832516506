"""Page-table dumps that have lost markers."""

from __future__ import annotations

import shutil

import pytest

from analyzer.sources.read import Request, read_sources
from parsers.layout import KernelLayout
from rules.model.captured import build_facts
from rules.model.memory.regions import LinearMap, Vmemmap
from tests.cases import files_of

SHADOW = 0xFFFF700000000000


def facts(home, case, *lost):
    """The facts of a case whose dump has lost the lines that contain any of ``lost``."""
    for name, source in files_of(case).items():
        shutil.copyfile(source, home / name)
    dump = home / "kernel_page_tables"
    lines = dump.read_text().splitlines(keepends=True)
    dump.write_text("".join(line for line in lines if not any(words in line for words in lost)))
    return build_facts(read_sources(Request((home,))).captured)


@pytest.mark.parametrize(
    "lost",
    [
        (),
        ("Linear Mapping end",),
        ("Kasan shadow start",),
        ("vmemmap start", "vmemmap end", "Linear Mapping end"),
        ("vmemmap start", "vmemmap end", "Kasan shadow start"),
    ],
)
def test_the_linear_map_ends_where_the_shadow_of_kasan_begins(tmp_path, lost):
    found = facts(tmp_path, "ENV-03/quiet-software-tags", *lost)
    assert found.get(KernelLayout).linear_end == SHADOW
    assert found.get(LinearMap).size == SHADOW - 0xFFFF000000000000


def test_a_vmemmap_area_that_no_marker_shows_must_hold_the_struct_pages_of_memory(tmp_path):
    """The kernel's struct pages have 80 bytes, which the start of the area alone shows."""
    case = "VMM-05/quiet-boot-memory"
    (tmp_path / "whole").mkdir()
    (tmp_path / "torn").mkdir()
    assert facts(tmp_path / "whole", case).get(Vmemmap) is not None
    lost = ("Linear Mapping end", "Modules", "vmalloc", "vmemmap start", "-0xffff8", "-0xfffffd7fc")
    torn = facts(tmp_path / "torn", case, *lost)
    assert torn.get(Vmemmap) is None
    assert "where the vmemmap area lies is not known" in torn.why_missing(Vmemmap)

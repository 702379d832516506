"""What shows that /proc/iomem or the list of memory blocks lacks lines."""

from __future__ import annotations

import pytest

from analyzer.sources.read import Request, read_sources
from rules.finding import UndecidedError
from rules.model.captured import build_facts
from rules.model.memory.sections import SectionTable
from tests.cases import CAPTURES

DIMM = CAPTURES / "dimm-6.12/02-dimm-online"
ALL = ("iomem", "memory_blocks", "zoneinfo", "dmesg", "kernel_page_tables", "uname")


def lacking(home, *, without=(), more="", **lost):
    """The reason why the table is not whole, of the capture without some files and without lines of some files.

    ``more`` is added to the memory blocks.
    """
    for name in ALL:
        if name not in without:
            lines = (DIMM / name).read_text().splitlines(keepends=True)
            left = [line for line in lines if not any(words in line for words in lost.get(name, ()))]
            assert name not in lost or left != lines
            (home / name).write_text("".join(left) + (more if name == "memory_blocks" else ""))
    table = build_facts(read_sources(Request((home,))).captured).get(SectionTable)
    try:
        table.need_whole_lists()
    except UndecidedError as error:
        return str(error)
    return ""


def test_whole_lists_lack_nothing(tmp_path):
    assert lacking(tmp_path) == ""


@pytest.mark.parametrize("block", ["memory19/", "memory8/", "memory0/"])
def test_zones_have_memory_that_the_blocks_do_not_list(tmp_path, block):
    reason = lacking(tmp_path, without=("iomem", "dmesg"), memory_blocks=(block,))
    assert "the list of memory blocks has less memory than zone" in reason


@pytest.mark.parametrize("line", ["80000000-", "04000000-"])
def test_zones_have_memory_that_iomem_does_not_list(tmp_path, line):
    reason = lacking(tmp_path, without=("memory_blocks", "dmesg"), iomem=(line,))
    assert "/proc/iomem has less memory than zone" in reason


def test_the_boot_log_has_memory_that_iomem_does_not_list(tmp_path):
    reason = lacking(tmp_path, without=("memory_blocks", "zoneinfo"), iomem=("4ffe", "4fff"))
    assert "lacks memory that the boot log lists" in reason


def test_no_map_memory_has_a_memory_block(tmp_path):
    reason = lacking(tmp_path, without=("zoneinfo", "dmesg"), memory_blocks=("memory0/",))
    assert "no-map memory" in reason


def test_a_listing_with_holes_is_not_whole(tmp_path):
    reason = lacking(tmp_path, without=("iomem", "zoneinfo"), more="memory20/valid_zones:Movable\n")
    assert reason == "lines of the list of memory blocks are missing"

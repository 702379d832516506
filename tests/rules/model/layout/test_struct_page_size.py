"""Oopses of kernels whose struct page is larger than 64 bytes: the registers show it, the area begins lower."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from parsers.layout import ERAS, regions
from rules.model.oops import Oopses, Region
from tests.cases import FIXTURES

if TYPE_CHECKING:
    from pathlib import Path

    from rules.model.oops import DecodedOops

ONLINE = (FIXTURES / "oops/two-dimms-7.3-80.txt").read_text()
UNPLUG = (FIXTURES / "oops/unplug-7.3-80.txt").read_text()
USUAL, LARGE = (regions(ERAS[-1], 12, 48, size).vmemmap_start for size in (64, 80))
SERIES = {"5.10.262": "B", "6.1.192": "C", "7.3.4": "E"}


def decoded(tmp_path: Path, text: str) -> tuple[DecodedOops, set[str]]:
    (tmp_path / "dmesg").write_text(text)
    report = audit(Request((tmp_path / "dmesg",)))
    (oops,) = report.facts.get(Oopses).all
    return oops, {one.rule.code for one in report.findings}


def with_registers(text: str, **registers: int) -> str:
    for name, value in registers.items():
        text, count = re.subn(rf"\b{name} ?: \w{{16}}", f"{name}: {value:016x}", text)
        assert count == 1
    return text


def without_base(text: str) -> str:
    """Without VMEMMAP_START, which the kernel computes with in ONLINE."""
    return with_registers(text, x23=0)


@pytest.mark.parametrize(
    ("text", "pfn"),
    [(ONLINE, 0x108000), (without_base(ONLINE), 0x108000), (with_registers(ONLINE, x25=0, x27=0, x0=0), 0x108000)],
    ids=["both", "the page frame number", "VMEMMAP_START"],
)
def test_registers_show_the_size(tmp_path, text, pfn):
    oops, found = decoded(tmp_path, text)
    assert oops.layout.struct_page_size == 80
    assert oops.region is Region.VMEMMAP
    assert oops.index == pfn
    assert found == {"VMM-02", "OOP-01"}


def test_end_of_the_range_shows_the_size(tmp_path):
    oops, found = decoded(tmp_path, UNPLUG)
    assert (oops.layout.struct_page_size, oops.index) == (80, 0x147FFF)
    assert oops.field[0] == 0
    assert found == {"VMM-02", "OOP-01"}


@pytest.mark.parametrize("size", [72, 80, 96, 112, 128])
@pytest.mark.parametrize("release", SERIES)
def test_size_of_other_kernels(tmp_path, release, size):
    """Up to 6.8 the area of 80 bytes is as large as that of 128: there the page frame number decides."""
    era = next(era for era in ERAS if era.name == SERIES[release])
    page = regions(era, 12, 48, size).vmemmap_start + 0x8000 * size
    text = with_registers(without_base(ONLINE), x25=page, x0=page, x27=0x48000)
    text = text.replace("7.3.4", release).replace("fffffd7fc5280034", f"{page + 0x34:016x}")
    oops, _ = decoded(tmp_path, text)
    assert (oops.layout.struct_page_size, oops.index) == (size, 0x8000)


def test_address_in_vmalloc_stays_there(tmp_path):
    """Nothing in the registers is a struct page: the top of vmalloc, where percpu memory lies."""
    text = with_registers(ONLINE, x23=0, x25=0, x27=0, x0=0, x19=0, x8=0)
    oops, found = decoded(tmp_path, text)
    assert oops.layout.struct_page_size == 64
    assert oops.area == "vmalloc"
    assert not found


def test_address_in_the_usual_area_says_nothing(tmp_path):
    """Both sizes have struct pages there: the usual one is assumed, whatever a register holds."""
    page = USUAL + 0x8000 * 64
    text = with_registers(ONLINE, x25=page, x0=page, x27=0x48000, x23=LARGE)
    oops, _ = decoded(tmp_path, text.replace("fffffd7fc5280034", f"{page + 0x34:016x}"))
    assert oops.layout.struct_page_size == 64

"""Oopses of kernels built for 52-bit addresses, whose log does not say so: VMEMMAP_START among the registers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from analyzer.audit import Report, audit
from analyzer.sources.read import Request
from analyzer.verdict import verdict_of
from parsers.layout import ERAS, regions
from rules.model.log_events import LogEvents
from rules.model.oops import DecodedOops, Oopses, Region
from rules.model.outside_vmemmap import struct_page_outside
from tests.cases import FIXTURES

if TYPE_CHECKING:
    from pathlib import Path

OOPS = (FIXTURES / "oops/pmem-7.3-16k-52-on-47.txt").read_text()
INDEX = 0x20C80
"""Of the page in the linear map, from its first address at run time."""
BUILDS = [(12, 48), (14, 47), (16, 48)]
"""Page shift and address bits in use of kernels that are built for 52."""
BANNER = (
    "[    0.000000] Linux version 7.3.4+deb13-arm64-16k (debian-kernel@lists.debian.org) #1 SMP\n"
    "[    0.000000] Early memory node ranges\n"
    "[    0.000000]   node   0: [mem 0x0000000040000000-0x000000007fffffff]\n"
)


def oops_on(page_shift: int, actual: int, *, index: int = INDEX, built: int = 52, **registers: int) -> str:
    """The oops as the kernel prints it with other pages: pfn_to_page() left VMEMMAP_START in x27, the offset in x28."""
    found = regions(ERAS[-1], page_shift, built, 64, actual)
    address = found.vmemmap_used + index * 64
    values = {"x27": found.vmemmap_start, "x28": address - found.vmemmap_start} | registers
    text = OOPS.replace("ffffbfc0832000", f"{address & (1 << 56) - 1:014x}")
    text = text.replace("16k pages, 47-bit", f"{1 << page_shift - 10}k pages, {actual}-bit")
    text = text.replace("ffffc000", f"{found.linear_end >> 32:08x}").replace(
        "ffff8000", f"{found.linear_start >> 32:08x}"
    )
    if page_shift == 16:  # bits 15 to 12 of a descriptor are bits 51 to 48 of the address
        text = text.replace("5fbc8403", "5fbc0403").replace("5fbc4403", "5fbd0403")
    for name, value in values.items():
        text = re.sub(rf"\b{name}: ?\w{{16}}", f"{name}: {value:016x}", text)
    return text


def audited(tmp_path: Path, text: str) -> tuple[Report, DecodedOops, bool]:
    """The report, its one oops, and whether memory can have to do with it."""
    (tmp_path / "dmesg").write_text(text)
    report = audit(Request((tmp_path / "dmesg",)))
    (oops,) = report.facts.get(Oopses).all
    (event,) = report.facts.get(LogEvents).events
    return report, oops, event.related


def codes(report: Report) -> set[str]:
    return {one.rule.code for one in report.findings}


def test_log_of_a_debian_kernel_with_16k_pages_is_not_cleared(tmp_path: Path) -> None:
    report, oops, related = audited(tmp_path, OOPS)
    assert (oops.layout.need("va_bits"), oops.layout.va_bits_actual, oops.region) == (52, 47, Region.VMEMMAP)
    assert not oops.layout.knows("phys_offset")
    assert {"OOP-02", "VMM-02"} <= codes(report)
    assert related
    assert not verdict_of(report).unrelated
    assert "page 0x20c80 of the linear map" in oops.describe()
    assert "x27 holds VMEMMAP_START of 52 bits" in oops.assumptions()


@pytest.mark.parametrize(("page_shift", "actual"), BUILDS)
@pytest.mark.parametrize("shown", [True, False])
def test_struct_page_is_accused_whether_or_not_a_register_shows_the_build(
    tmp_path: Path, page_shift: int, actual: int, shown: bool
) -> None:
    registers = {} if shown else {"x27": 0}
    report, oops, related = audited(tmp_path, oops_on(page_shift, actual, **registers))
    assert oops.layout.need("va_bits") == (52 if shown else actual)
    assert related
    assert "OOP-02" in codes(report)
    assert not oops.layout.knows("phys_offset")
    assert oops.index is not None
    assert oops.index - oops.first_index == INDEX


@pytest.mark.parametrize(("page_shift", "actual"), BUILDS)
@pytest.mark.parametrize("shown", [True, False])
def test_page_that_is_far_from_the_memory_of_the_boot_is_no_struct_page_in_either_build(
    tmp_path: Path, page_shift: int, actual: int, shown: bool
) -> None:
    """Without the memory of the boot nothing says that no memory is there."""
    registers = {} if shown else {"x27": 0}
    text = oops_on(page_shift, actual, index=1 << 45 - page_shift, **registers)
    for banner, expected in ((BANNER, False), ("", True)):
        report, oops, related = audited(tmp_path, banner + text)
        assert (oops.region, related) == (Region.VMEMMAP, expected)
        assert ("OOP-02" in codes(report)) is expected


@pytest.mark.parametrize("page_shift", [12, 14, 16])
def test_page_that_is_far_from_the_start_of_a_52_bit_map_is_no_struct_page(tmp_path: Path, page_shift: int) -> None:
    _, oops, related = audited(tmp_path, oops_on(page_shift, 52, index=1 << 48 - page_shift))
    assert (oops.region, related) == (Region.VMEMMAP, False)


@pytest.mark.parametrize(("page_shift", "actual"), BUILDS)
@pytest.mark.parametrize("shown", [True, False])
def test_registers_that_hold_the_page_number_and_its_address_give_the_page(
    tmp_path: Path, page_shift: int, actual: int, shown: bool
) -> None:
    registers = {"x26": INDEX, "x25": INDEX << page_shift} | ({} if shown else {"x27": 0})
    _, oops, related = audited(tmp_path, oops_on(page_shift, actual, **registers))
    assert oops.pfn == INDEX
    assert related


def test_phys_offset_above_the_page_tables_is_refused(tmp_path: Path) -> None:
    """The kernel's tables are at 0x52128000: memory cannot begin at 1 TiB, whatever two registers have in common."""
    pfn = INDEX + (1 << 40 - 14)
    registers = {"x26": pfn, "x25": pfn << 14}
    _, oops, related = audited(tmp_path, oops_on(14, 47, **registers))
    assert not oops.layout.knows("phys_offset")
    assert related
    moved = oops_on(14, 47, **registers).replace("pgdp=0000000052128000", "pgdp=0000010052128000")
    moved = moved.replace("100000005fb", "100001005fb")
    _, oops, related = audited(tmp_path, moved)
    assert oops.pfn == pfn
    assert related


@pytest.mark.parametrize(("page_shift", "bits"), [(12, 48), (14, 47), (12, 52), (14, 52), (16, 48), (16, 52)])
def test_vmemmap_start_and_the_offset_from_it_do_not_say_where_memory_begins(
    tmp_path: Path, page_shift: int, bits: int
) -> None:
    report, oops, related = audited(tmp_path, oops_on(page_shift, bits, built=bits))
    assert (oops.layout.need("va_bits"), oops.first_index) == (bits, 0)
    assert not oops.layout.knows("phys_offset")
    assert "OOP-02" in codes(report)
    assert related


@pytest.mark.parametrize(("page_shift", "actual"), BUILDS)
def test_memory_of_the_boot_log_gives_the_page_of_either_build(tmp_path: Path, page_shift: int, actual: int) -> None:
    for registers in ({}, {"x27": 0}):
        _, oops, related = audited(tmp_path, BANNER + oops_on(page_shift, actual, **registers))
        assert oops.pfn == INDEX + (0x40000000 >> page_shift)
        assert related


@pytest.mark.parametrize(("page_shift", "actual"), BUILDS)
def test_struct_page_of_page_zero_lies_below_those_of_memory_in_either_build(
    tmp_path: Path, page_shift: int, actual: int
) -> None:
    first = regions(ERAS[-1], page_shift, 52, 64, actual).vmemmap_used
    for registers in ({"x28": 0}, {"x27": first, "x28": 0}):
        text = oops_on(page_shift, actual, index=-(0x40000000 >> page_shift), **registers)
        _, oops, related = audited(tmp_path, BANNER + text.replace("memunmap_pages", "put_page"))
        outside = struct_page_outside(oops)
        assert outside is not None
        assert (outside.pfn, related) == (0, False)


@pytest.mark.parametrize("era", ERAS[1:], ids=lambda era: era.name)
def test_memory_and_struct_pages_in_use_are_in_the_same_place_in_either_build(era) -> None:
    """So the region of an address does not depend on the build, which the log may not show."""
    for page_shift, every in era.va_bits.items():
        if 52 in every:
            actual = 47 if page_shift == 14 else 48
            wide, narrow = (regions(era, page_shift, built, 64, actual) for built in (52, actual))
            for name in ("linear_start", "linear_end", "vmemmap_used", "vmemmap_end"):
                assert getattr(wide, name) == getattr(narrow, name), (page_shift, name)

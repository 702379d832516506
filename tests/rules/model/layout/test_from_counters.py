"""The page size follows from what counts pages, where nothing states it."""

from __future__ import annotations

from pathlib import Path

import pytest

from parsers.cmdline import parse_cmdline
from parsers.hugepages import parse_hugepages
from parsers.iomem import parse_iomem
from parsers.layout import KernelLayout
from parsers.meminfo import parse_meminfo
from parsers.uname import parse_uname
from parsers.zoneinfo import parse_zoneinfo
from rules.model.captured import Captured, build_facts
from rules.model.layout.from_counters import page_size_of
from rules.model.memory.sections import SectionTable

CAPTURES = Path(__file__).parents[4] / "fixtures" / "host"


def zones(managed: int):
    text = f"Node 0, zone   Normal\n  pages free     1\n        spanned  {managed}\n        present  {managed}\n"
    return parse_zoneinfo(f"{text}        managed  {managed}\n  start_pfn:           262144\n".encode(), "zoneinfo")


def meminfo(total: int, huge: int = 0):
    text = f"MemTotal:       {total >> 10} kB\n" + (f"Hugepagesize:   {huge >> 10} kB\n" if huge else "")
    return parse_meminfo(text.encode(), "meminfo")


@pytest.mark.parametrize("size", [4096, 16384, 65536])
def test_total_memory_by_managed_pages(size: int) -> None:
    assert page_size_of(meminfo(100_000 * size), zones(100_000), None, None) == (
        size,
        "MemTotal of meminfo by the managed pages of zoneinfo",
    )
    assert page_size_of(meminfo(100_000 * size), zones(98_000), None, None)[0] == size, "plugged meanwhile"
    assert page_size_of(meminfo(100_000 * size), zones(60_000), None, None) is None, "zones are missing"


@pytest.mark.parametrize(
    ("pools", "size"), [((64, 2048, 32768, 1048576), 4096), ((2048, 524288), 65536), ((2048,), None), ((), None)]
)
def test_sizes_of_huge_pages(pools: tuple[int, ...], size: int | None) -> None:
    text = "".join(f"/sys/kernel/mm/hugepages/hugepages-{pool}kB/nr_hugepages:0\n" for pool in pools)
    found = page_size_of(None, None, parse_hugepages(text.encode(), "hugepages") if text else None, None)
    assert (found and found[0]) == size


def test_the_default_huge_page_size_unless_it_was_chosen() -> None:
    huge, plain = meminfo(1 << 30, 32 << 20), parse_cmdline(b"ro quiet", "cmdline")
    assert page_size_of(huge, None, None, plain)[0] == 16384
    assert page_size_of(huge, None, None, parse_cmdline(b"ro default_hugepagesz=32M", "cmdline")) is None
    assert page_size_of(huge, None, None, None) is None, "what the command line says is not known"


@pytest.mark.parametrize("name", ["zoneinfo", "meminfo"])
def test_real_counters_of_one_moment_agree(name: str) -> None:
    found = 0
    for folder in sorted({path.parent for path in CAPTURES.rglob(name)}):
        if (folder / "zoneinfo").exists() and (folder / "meminfo").exists():
            zoneinfo = parse_zoneinfo((folder / "zoneinfo").read_bytes(), "zoneinfo")
            total = parse_meminfo((folder / "meminfo").read_bytes(), "meminfo")
            assert page_size_of(total, zoneinfo, None, None)[0] == 4096, folder
            found += 1
    assert found


def test_sections_follow_from_iomem_and_counters() -> None:
    iomem = parse_iomem(b"40000000-7fffffff : System RAM\n  40210000-4186ffff : Kernel code\n", "iomem")
    release = parse_uname(b"Linux vm 6.12.117 #2 SMP aarch64 GNU/Linux\n", "uname")
    facts = build_facts(
        Captured(iomem=iomem, release=release, meminfo=meminfo(262_144 * 4096), zoneinfo=zones(262_144))
    )
    assert facts.get(KernelLayout).page_size == 4096
    assert facts.get(SectionTable) is not None
    alone = build_facts(Captured(iomem=iomem, release=release))
    assert alone.get(SectionTable) is None
    assert "page size is not known" in alone.why_missing(SectionTable)

"""VMM-06: A page of struct pages is shared by ranges that are removed separately."""

from __future__ import annotations

import shutil

import pytest

from tests.cases import case
from tests.rules.drawn import MIB, NORMAL
from tests.rules.traces import played_trace, predicted
from tests.rules.vmemmap.machines import all_pfns, listed, verdict_on

PAGED = case("VMM-06/quiet-tail-of-boot-section")
"""64K pages: sections of 512 MiB, and a page of struct pages for 64 MiB. RAM ends at 0x5e000000."""
LARGE = 16
"""64K pages in a MiB."""


def with_large_pages(folder, *ranges, end=0x5E000000):
    """That machine with these namespaces (MiB from 0x40000000) and the linear map up to the last."""
    shutil.copytree(PAGED, folder)
    base, virtual = 0x40000000, 0xFFFF000000000000
    iomem = [
        line for line in (folder / "iomem").read_text().splitlines(keepends=True) if int(line.split("-")[0], 16) < end
    ]
    iomem += [f"{base + lo * MIB:08x}-{base + hi * MIB - 1:08x} : dax0.{at}\n" for at, (lo, hi) in enumerate(ranges)]
    (folder / "iomem").write_text("".join(iomem))
    lines = []
    for line in (folder / "kernel_page_tables").read_text().splitlines(keepends=True):
        if line.startswith(f"{virtual + end:#x}"):
            at = end
            for lo, hi in ranges:
                lines.append(row(virtual + at, virtual + base + lo * MIB, ""))
                lines.append(row(virtual + base + lo * MIB, virtual + base + hi * MIB, NORMAL))
                at = base + hi * MIB
            lines.append(row(virtual + at, virtual + 0xC0000000, ""))
            lines.append(f"{virtual + 0xC0000000:#x}-0xffff040000000000 {4193280 - 2048:12d}M PMD\n")
        elif not line.startswith(f"{virtual + 0x60000000:#x}"):
            lines.append(line)
    (folder / "kernel_page_tables").write_text("".join(lines))
    return verdict_on("VMM-06", folder)


def row(start, end, what):
    return f"{start:#x}-{end:#x} {end - start >> 10:12d}K PTE       {what}\n" if start < end else ""


def large(*ranges):
    return [(0x4000 + lo * LARGE, 0x4000 + hi * LARGE) for lo, hi in ranges]


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        (((1024, 1040), (1056, 1072)), [large((1024, 1040), (1056, 1072))]),
        (((1024, 1088), (1088, 1104)), []),
        (((1024, 1072), (1088, 1104)), []),  # what is left of the page has no owner
        (((480, 496), (496, 512)), []),  # in the last boot section, whose struct pages stay
        (((480, 544), (544, 576)), [large((512, 576))]),  # the first begins there, the shared page does not
        (((480, 496), (1024, 1040), (1040, 1104)), [large((1024, 1088))]),
    ],
)
def test_who_shares_a_page_of_struct_pages(tmp_path, ranges, expected):
    assert all_pfns(with_large_pages(tmp_path / "case", *ranges)) == expected


@pytest.mark.parametrize(
    ("names", "more", "expected"),
    [
        (("dax0.0", "dax0.1"), {"mib": (0, 18, 36)}, [("high", [16, 20])]),
        (("dax0.0", "dax0.1"), {"mib": (0, 20, 40)}, []),
        (("dax0.0", "dax0.1"), {"mib": (0, 18, 36), "size": ""}, [("medium", [16, 20])]),
        (("dax0.0", "namespace0.1"), {"mib": (0, 18, 36)}, [("medium", [16, 20])]),
        (("dax0.0", "dax0.1"), {"mib": (0, 18, 36), "page_size": 4096}, []),
        (("dax0.0", "dax0.1"), {"mib": (0, 32, 64), "page_size": 65536}, [("high", [0, 64])]),
    ],
)
def test_devices_that_iomem_lists_in_one_page_of_struct_pages(tmp_path, names, more, expected):
    assert listed(tmp_path, "VMM-06", *names, **{"release": "7.3.4", "page_size": 16384, **more}) == expected


LARGE_PAGES = {"page_size": 65536, "section": 512 * MIB}


@pytest.mark.parametrize(
    ("kernel", "calls", "expected"),
    [
        (LARGE_PAGES, [("+", 0, 16), ("+", 16, 16)], [(0, 64)]),
        (LARGE_PAGES, [("+", 0, 16)], []),
        (LARGE_PAGES, [("+", 0, 64), ("+", 64, 16)], []),
        ({}, [("+", 0, 2), ("+", 2, 2)], []),
    ],
)
def test_pages_of_struct_pages_that_are_shared(tmp_path, kernel, calls, expected):
    found = predicted(tmp_path, "VMM-06", played_trace(kernel, calls))
    assert [one for _, ranges in found for one in ranges] == expected

"""Before memory is accused, a bad pointer, the boot, capture kernels and ranges unmapped on purpose are ruled out."""

from __future__ import annotations

from pathlib import Path

import pytest

from analyzer.audit import Report, audit
from analyzer.sources.read import Request
from rules.finding import Severity
from rules.model.oops import DecodedOops, Oopses
from rules.model.plausibility import hotplug_signs, linear_standing, struct_page_standing

BANNER = """[    0.000000] Linux version {release} (a@b) (gcc) #1 SMP
[    0.000000] KASLR disabled on command line
[    0.000000]   node   0: [mem 0x0000000040000000-0x00000000ffffffff]
"""
FAULT = """[  100.000000] Unable to handle kernel paging request at virtual address {address}
[  100.000001]   ESR = 0x000000009600000{level}
[  100.000002] swapper pgtable: 4k pages, 48-bit VAs, pgdp=0000000042650000
[  100.000003] Internal error: Oops: 000000009600000{level} [#1] SMP
[  100.000004] CPU: 1 PID: {pid} Comm: {comm} Not tainted {release} #1
[  100.000005] pc : {function}+0x10/0x24
[  100.000006] ---[ end trace 0000000000000000 ]---
"""
# With PHYS_OFFSET 0x40000000, era of 6.9 and later: the struct page of PFN 0xc0000, and the page at 0x80000000.
STRUCT_PAGE, LINEAR = "fffffdffc2000008", "ffff000040000000"


def log(address: str, between: str = "", *, level: int = 6, release: str = "6.12.30", **fields: object) -> str:
    values = {"function": "foo", "pid": 34, "comm": "kworker/1:1"} | fields
    return (
        BANNER.format(release=release) + between + FAULT.format(address=address, level=level, release=release, **values)
    )


def read(tmp_path: Path, text: str) -> tuple[Report, DecodedOops]:
    (tmp_path / "dmesg").write_text(text)
    report = audit(Request((tmp_path / "dmesg",)))
    oopses = report.facts.get(Oopses)
    assert oopses is not None
    return report, oopses.all[0]


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ("Offlined Pages 32768", True),
        ("virtio_mem virtio0: requested size: 0x40000000", True),
        ("virtio_mem virtio0: requested size: 0x0", False),
        ("virtio_mem virtio0: start address: 0x100000000", False),
        ("migrating pfn 84000 failed ret:-16", False),  # CMA does that
        ("Memory hotplug will waste 512 pages in each memory block", False),
        ("kmem dax0.0: mapping0: 0x240000000-0x33fffffff could not reserve region", True),
    ],
)
def test_signs_of_hotplug_are_operations(tmp_path: Path, line: str, counts: bool) -> None:
    _, oops = read(tmp_path, log(STRUCT_PAGE, f"[   50.000000] {line}\n"))
    assert bool(hotplug_signs(oops)) is counts


@pytest.mark.parametrize(
    ("address", "fields", "words"),
    [
        (STRUCT_PAGE, {}, ""),
        ("fffffdffc2000009", {}, "not aligned"),
        ("ffffffffb5cb0070", {}, "all ones"),
        ("fdfffdffc2000008", {}, "tag"),
        ("fffffdffc0000008", {}, ""),  # the boot log has memory there
        ("fffffeffc2000008", {}, "16 TiB"),
        (STRUCT_PAGE, {"pid": 0, "comm": "swapper/3"}, "idle task"),
        (STRUCT_PAGE, {"pid": 1, "comm": "swapper/0"}, "booting"),
        (STRUCT_PAGE, {"pid": 0, "comm": "swapper"}, "booting"),
    ],
)
def test_struct_page_is_excluded(tmp_path: Path, address: str, fields: dict[str, object], words: str) -> None:
    _, oops = read(tmp_path, log(address, **fields))  # type: ignore[arg-type]
    excluded = struct_page_standing(oops).excluded
    assert words in excluded
    assert bool(excluded) is bool(words)


@pytest.mark.parametrize(
    ("level", "between", "words"),
    [
        (6, "", ""),
        (5, "", ""),
        (4, "", "no leaf can exist at that level"),
        (6, "[    0.000000] crashkernel reserved: 0x0000000080000000 - 0x00000000a0000000 (512 MB)\n", ""),  # mapped
        (
            6,
            "[    0.000000] OF: reserved mem: 0x80000000..0x800fffff (1024 KiB) nomap non-reusable tee@80000000\n",
            "no-map",
        ),
        (6, "[    0.000000] OF: reserved mem: 0x80000000..0x800fffff (1024 KiB) map non-reusable tee@80000000\n", ""),
        (6, "[    0.000000] Reserving 1KB of memory at 0xbfdff000 for elfcorehdr\n", "capture kernel"),
    ],
)
def test_linear_address_is_excluded(tmp_path: Path, level: int, between: str, words: str) -> None:
    _, oops = read(tmp_path, log(LINEAR, between, level=level))
    excluded = linear_standing(oops).excluded
    assert words in excluded
    assert bool(excluded) is bool(words)


def test_crash_kernel_memory_was_unmapped_before_6_4(tmp_path: Path) -> None:
    reserved = "[    0.000000] crashkernel reserved: 0x0000000080000000 - 0x00000000a0000000 (512 MB)\n"
    _, oops = read(tmp_path, log(LINEAR, reserved, release="6.1.30"))
    assert "crash kernel's memory" in linear_standing(oops).excluded


@pytest.mark.parametrize(
    ("between", "function", "severity"),
    [
        ("", "foo", Severity.MEDIUM),
        ("", "get_pfnblock_flags_mask", Severity.MEDIUM),  # boot memory
        ("[   50.000000] Offlined Pages 32768\n", "foo", Severity.CRITICAL),
        ("", "memunmap_pages", Severity.CRITICAL),
    ],
)
def test_lost_struct_page_is_urgent_with_a_reason(
    tmp_path: Path, between: str, function: str, severity: Severity
) -> None:
    report, _ = read(tmp_path, log(STRUCT_PAGE, between, function=function))
    assert [one.severity for one in report.findings if one.rule.code == "OOP-01"] == [severity]


@pytest.mark.parametrize(
    ("between", "severity"), [("", Severity.MEDIUM), ("[   50.000000] Offlined Pages 32768\n", Severity.CRITICAL)]
)
def test_hole_in_boot_memory_is_urgent_with_a_reason(tmp_path: Path, between: str, severity: Severity) -> None:
    report, _ = read(tmp_path, log(LINEAR, between))
    assert [one.severity for one in report.findings if one.rule.code == "OOP-04"] == [severity]


def test_hole_outside_of_memory_without_a_reason_is_not_a_finding(tmp_path: Path) -> None:
    report, _ = read(tmp_path, log("ffff000200000000"))
    assert not [one for one in report.findings if one.rule.code == "OOP-04"]

"""What changed between two captures: the damage that an operation did, no alarm for one that did none."""

from __future__ import annotations

import json
import re
import shutil
import stat
from itertools import pairwise
from pathlib import Path

import pytest

from tests.analyzer.conftest import CAPTURES

PMEM = CAPTURES / "pmem-6.12-vuln"
FIXED = CAPTURES / "pmem-6.12-fixed"
DIMM = CAPTURES / "dimm-6.12"
SEQUENCES = [
    (before, after)
    for boot in sorted(CAPTURES.iterdir())
    if boot.is_dir()
    for moments in [sorted(path.parent for path in boot.glob("*/kernel_page_tables"))]
    for before, after in pairwise(moments)
]
DAMAGE = {
    "pmem-6.12-vuln",
    "pmem-5.10-4k",
    "pmem-6.12-64k",
    "pmem-6.12-16k",
    "pmem-6.12-64k-va52",
    "pmem-7.3-64k",
    "pmem-mapdev-6.12-64k",
    "two-dimms-one-offline-6.12-4k-80",
    "two-dimms-7.3-4k-80",
}
"""Boots in which a removal took struct pages of its neighbours."""


def compared(ptaudit, before: Path, after: Path, *options: str) -> dict:
    done = ptaudit("diff", before, after, "--format", "json", *options)
    assert done.status in {0, 1}, done.err
    return json.loads(done.out)


def changed(document: dict, region: str, change: str) -> list[tuple[int, int]]:
    return [
        (int(one["start"], 16), int(one["end"], 16))
        for mapping in document["mappings"]
        if (mapping["region"], mapping["change"]) == (region, change)
        for one in mapping["pages"]
    ]


def copied(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    for path in target.iterdir():
        path.chmod(path.stat().st_mode | stat.S_IWUSR)
    return target


def test_removal_that_tore_out_a_block(ptaudit) -> None:
    document = compared(ptaudit, PMEM / "01-three-namespaces", PMEM / "02-one-removed")
    (hazard,) = document["hazards"]
    assert hazard["severity"] == "critical"
    assert hazard["sections"] == [16]
    assert hazard["pfn_ranges"] == [
        {"start": "0x80000", "end": "0x82000"},
        {"start": "0x84000", "end": "0x88000"},
    ]
    assert changed(document, "linear", "unmapped") == [(0x82000, 0x84000)]
    assert changed(document, "vmemmap", "unmapped") == [(0x80000, 0x88000)]
    assert document["sections"]["removed"] == [{"start": "0x82000", "end": "0x84000"}]
    assert any("namespace0.1" in line for line in document["resources"]["removed"])
    assert "VMM-02" in {one["rule"] for one in document["findings"]["new"]}
    assert "VMM-01" in {one["rule"] for one in document["findings"]["gone"]}


def test_the_same_removal_on_a_fixed_kernel_is_not_reported(ptaudit) -> None:
    document = compared(ptaudit, FIXED / "01-three-namespaces", FIXED / "02-one-removed")
    assert document["hazards"] == []
    assert changed(document, "vmemmap", "unmapped") == [(0x82000, 0x84000)]


@pytest.mark.parametrize(
    ("before", "after"), SEQUENCES, ids=[f"{one.parent.name}-{one.name}-{two.name}" for one, two in SEQUENCES]
)
def test_only_damage_is_critical(ptaudit, before: Path, after: Path) -> None:
    document = compared(ptaudit, before, after)
    critical = [one for one in document["hazards"] if one["severity"] == "critical"]
    assert not critical or before.parent.name in DAMAGE


def test_memory_blocks_by_what_changed(ptaudit) -> None:
    offline = compared(ptaudit, DIMM / "02-dimm-online", DIMM / "03-two-blocks-offline")
    states = [one for one in offline["memory_blocks"] if one["change"] == "state"]
    assert states == [{"change": "state", "before": "online", "after": "offline", "blocks": [16, 17]}]
    assert offline["mappings"] == []
    removed = compared(ptaudit, DIMM / "03-two-blocks-offline", DIMM / "04-dimm-removed")
    gone = {number for one in removed["memory_blocks"] if one["change"] == "removed" for number in one["blocks"]}
    assert gone == {16, 17, 18, 19}
    assert changed(removed, "linear", "unmapped") == [(0x80000, 0xA0000)]


def test_swapped_captures_swap_the_changes(ptaudit) -> None:
    forth = compared(ptaudit, DIMM / "03-two-blocks-offline", DIMM / "04-dimm-removed")
    back = compared(ptaudit, DIMM / "04-dimm-removed", DIMM / "03-two-blocks-offline")
    for region in ("linear", "vmemmap"):
        assert changed(forth, region, "unmapped") == changed(back, region, "mapped")
    assert forth["sections"]["removed"] == back["sections"]["added"]
    assert back["hazards"] == []


@pytest.mark.parametrize("moment", [PMEM / "02-one-removed", DIMM / "02-dimm-online"], ids=["damaged", "sound"])
def test_a_capture_does_not_differ_from_itself(ptaudit, moment: Path) -> None:
    document = compared(ptaudit, moment, moment)
    assert document["hazards"] == document["mappings"] == document["memory_blocks"] == []
    assert document["findings"] == {"new": [], "gone": []}


@pytest.fixture
def two(tmp_path: Path):
    """Two copies of a capture, the second with lines of its page-table dump rewritten."""

    def make(pattern: str, replacement: str) -> tuple[Path, Path]:
        before = copied(DIMM / "02-dimm-online", tmp_path / "before")
        after = copied(DIMM / "02-dimm-online", tmp_path / "after")
        dump = after / "kernel_page_tables"
        text, count = re.subn(pattern, replacement, dump.read_text(), flags=re.MULTILINE)
        assert count
        dump.write_text(text)
        return before, after

    return make


ROW = r"^(0xffff000080000000-0xffff0000a0000000 +512M )PMD( +)RW NX SHD AF( +)CON BLK"


@pytest.mark.parametrize(
    ("replacement", "severity", "title"),
    [
        (r"\1PTE\2RW NX SHD AF\3       ", "high", "live linear leaves changed size"),
        (r"\1PMD\2RW NX SHD AF\3    BLK", "high", "live linear leaves changed size"),
        (r"\1PMD\2RW x  SHD AF\3CON BLK", "high", "linear memory became executable"),
    ],
)
def test_change_of_a_live_mapping_is_a_hazard(ptaudit, two, replacement: str, severity: str, title: str) -> None:
    before, after = two(ROW, replacement)
    document = compared(ptaudit, before, after)
    assert (severity, title) in {(one["severity"], one["title"]) for one in document["hazards"]}
    assert ptaudit("diff", before, after).status == 1


def test_change_of_permissions_is_a_change_whatever_its_direction(ptaudit, two) -> None:
    before, after = two(ROW, r"\1PMD\2ro NX SHD AF\3CON BLK")
    document = compared(ptaudit, before, after)
    assert changed(document, "linear", "other attributes") == [(0x80000, 0xA0000)]
    assert not [one for one in document["hazards"] if "writable" in one["title"]]
    back = compared(ptaudit, after, before)
    assert ("medium", "linear memory became writable") in {(one["severity"], one["title"]) for one in back["hazards"]}


def test_changes_between_two_boots_are_not_a_hazard(ptaudit, two) -> None:
    before, after = two(ROW, r"\1PTE\2RW NX SHD AF\3       ")
    (before / "boot_id").write_text("5c0ef2d4-6a0e-4d0f-8d3a-0f3a4b5c6d7e\n")
    (after / "boot_id").write_text("6c0ef2d4-6a0e-4d0f-8d3a-0f3a4b5c6d7e\n")
    document = compared(ptaudit, before, after)
    assert document["same_boot"] is False
    assert document["hazards"] == []
    assert changed(document, "linear", "other leaf size") == [(0x80000, 0xA0000)]


def test_boots_under_kaslr_compare_by_page_frame(ptaudit) -> None:
    plain, random = CAPTURES / "pmem-6.12-fixed" / "00-boot", CAPTURES / "kaslr-pmem-6.12-4k-a72" / "00-boot"
    document = compared(ptaudit, plain, random)
    assert document["compared_by"] == "pfn"
    assert document["same_boot"] is False
    assert document["hazards"] == []
    first = CAPTURES / "kaslr-pmem-6.12-4k-a72" / "01-namespaces"
    second = CAPTURES / "kaslr-pmem-6.12-4k-a72" / "02-one-removed"
    assert compared(ptaudit, first, second)["sections"]["removed"]


def test_dumps_of_two_boots_under_kaslr_alone_are_refused(ptaudit) -> None:
    plain = DIMM / "00-boot" / "kernel_page_tables"
    random = CAPTURES / "kaslr-pmem-6.12-4k-a72" / "00-boot" / "kernel_page_tables"
    done = ptaudit("diff", plain, random)
    assert done.status == 2
    assert "PHYS_OFFSET" in done.err


def test_other_page_sizes_are_refused(ptaudit) -> None:
    done = ptaudit("diff", DIMM / "00-boot", CAPTURES / "pmem-6.12-64k" / "00-boot")
    assert done.status == 2
    assert "page sizes" in done.err


def test_other_releases_are_reported(ptaudit) -> None:
    document = compared(ptaudit, CAPTURES / "pmem-5.10-4k" / "00-boot", DIMM / "00-boot")
    assert document["same_boot"] is False
    assert "different kernels: 5.10" in document["notes"][0]


def test_dumps_alone_compare_by_index(ptaudit) -> None:
    before, after = (PMEM / name / "kernel_page_tables" for name in ("01-three-namespaces", "02-one-removed"))
    document = compared(ptaudit, before, after)
    assert document["compared_by"] == "page index"
    assert changed(document, "linear", "unmapped") == [(0x82000, 0x84000)]


def test_nothing_in_common_is_2(ptaudit) -> None:
    done = ptaudit("diff", DIMM / "00-boot" / "uname", DIMM / "00-boot" / "iomem")
    assert done.status == 2
    assert "nothing to compare" in done.err


def test_fail_on(ptaudit) -> None:
    before, after = PMEM / "00-boot", PMEM / "01-three-namespaces"
    assert ptaudit("diff", before, after).status == 1, "a new finding is of high severity"
    assert ptaudit("diff", before, after, "--fail-on", "critical").status == 0


def test_text_puts_the_hazard_first_and_quotes_both_sides(ptaudit) -> None:
    out = ptaudit("diff", PMEM / "01-three-namespaces", PMEM / "02-one-removed").out
    assert out.index("CRITICAL valid memory lost its struct pages") < out.index("unmapped")
    assert re.search(r"^  before kernel_page_tables:\d+: 0xfffffdffc2000000", out, re.MULTILINE)
    assert re.search(r"^  after  kernel_page_tables:\d+: 0xfffffdffc1400000", out, re.MULTILINE)


@pytest.mark.parametrize("name", ["pmem-6.12-vuln"])
def test_crash_dumps_compare_like_captures(ptaudit, name: str) -> None:
    before, after = (CAPTURES.parent / "vmcore" / f"{name}-{moment}.core.zst" for moment in ("before", "after"))
    document = compared(ptaudit, before, after)
    assert [one["title"] for one in document["hazards"]] == ["valid memory lost its struct pages"]
    assert document["hazards"][0]["claim"] == "proven"

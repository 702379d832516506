"""PHYS_OFFSET from a dump and /proc/iomem: one answer where there is one, all answers where there are several."""

from __future__ import annotations

from pathlib import Path

import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from parsers.layout import KernelLayout, Precision
from rules.engine import Outcome
from tests.cases import CAPTURES
from tests.rules.captures import MOMENTS, report_of

KASLR = {
    "kaslr-pmem-6.12-4k-a72": 0xFFFFA50080000000,
    "kaslr-dimm-6.12-4k-rodatafull": 0xFFFFE9B100000000,
    "dimm-6.1-4k-kaslr-blocks": 0xFFFFDD5500000000,
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_dump_and_iomem_alone_give_phys_offset(moment: str) -> None:
    files = ("kernel_page_tables", "iomem")
    layout = audit(Request(tuple(CAPTURES / moment / name for name in files))).facts.get(KernelLayout)
    assert layout is not None
    assert layout.phys_offset == KASLR.get(moment.split("/", maxsplit=1)[0], 0)
    assert layout.facts["phys_offset"].precision is Precision.INFERRED


@pytest.mark.parametrize("moment", MOMENTS)
def test_whole_capture_gives_phys_offset(moment: str) -> None:
    layout = report_of(moment).facts.get(KernelLayout)
    assert layout is not None
    assert layout.phys_offset == KASLR.get(moment.split("/", maxsplit=1)[0], 0)


GIB = 1 << 30
LINEAR = 0xFFFF000000000000
BLOCK = "RW NX SHD AF        BLK UXN    MEM/NORMAL-TAGGED"


def dump(banks: list[int], end_gib: int) -> str:
    """A linear map of 1 GiB banks at these GiB, dumped up to ``end_gib``."""
    rows = []
    for gib in range(end_gib):
        start = LINEAR + gib * GIB
        rows.append(f"0x{start:016x}-0x{start + GIB:016x} {1:12d}G PUD" + (f"       {BLOCK}" if gib in banks else ""))
    return "---[ Linear Mapping start ]---\n" + "\n".join(rows) + "\n"


def layout_of(folder: Path, text: str, ram: list[int]) -> tuple[KernelLayout, dict[str, Outcome]]:
    (folder / "kernel_page_tables").write_text(text)
    (folder / "iomem").write_text("".join(f"{gib * GIB:08x}-{(gib + 1) * GIB - 1:08x} : System RAM\n" for gib in ram))
    (folder / "uname").write_text("Linux host 6.12.5 #1 SMP aarch64 GNU/Linux\n")
    (folder / "config").write_text("CONFIG_ARM64_4K_PAGES=y\nCONFIG_ARM64_VA_BITS=48\n")
    report = audit(Request((folder,)))
    layout = report.facts.get(KernelLayout)
    assert layout is not None
    return layout, {verdict.rule.code: verdict.outcome for verdict in report.verdicts}


@pytest.mark.parametrize(
    ("banks", "end", "ram", "expected"),
    [
        ([0], 4, [1], 1 * GIB),
        ([0, 2], 6, [1, 3], 1 * GIB),
        ([1, 2, 5], 8, [3, 4, 7], 2 * GIB),
        ([5], 8, [1], -4 * GIB),
        ([0, 1, 2, 3], 8, [2, 3, 4, 5], 2 * GIB),
    ],
)
def test_a_shift_that_alone_fits_is_taken(
    tmp_path: Path, banks: list[int], end: int, ram: list[int], expected: int
) -> None:
    layout, _ = layout_of(tmp_path, dump(banks, end), ram)
    assert layout.phys_offset == expected & (2**64 - 1)


@pytest.mark.parametrize(
    ("banks", "end", "ram", "several"),
    [
        ([0], 1, [1, 3], [1, 3]),  # a fragment that shows one of two alike banks
        ([0, 2], 3, [1, 3, 5], [1, 3]),
    ],
)
def test_several_shifts_that_fit_are_named_and_leave_the_rules_undecided(
    tmp_path: Path, banks: list[int], end: int, ram: list[int], several: list[int]
) -> None:
    layout, outcomes = layout_of(tmp_path, dump(banks, end), ram)
    assert not layout.knows("phys_offset")
    assert sorted(layout.phys_offset_candidates) == [gib * GIB for gib in several]
    assert outcomes["LIN-03"] is Outcome.UNDECIDED
    assert outcomes["LIN-01"] is Outcome.UNDECIDED

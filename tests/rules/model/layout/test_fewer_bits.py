"""Kernels built for 52-bit addresses that run with 48 or 47: vmalloc lies above VMEMMAP_START there (since 6.9)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from parsers.arm64 import Attr, MemType
from parsers.layout import ERAS, Fact, KernelLayout, Precision, regions
from parsers.mapping import Mapping
from parsers.ptdump.render import render
from parsers.uname import parse_uname
from parsers.vmcore.extract import extract
from rules.engine import Outcome, builtin_rules, run
from rules.facts import Facts
from rules.finding import Severity
from rules.model.layout.builder import LayoutBuilder
from rules.model.memory.regions import LinearMap, Vmemmap
from rules.model.memory.sections import SectionTable
from rules.model.memory.walk import PageWalk
from rules.model.oops import Oopses

FIXTURES = Path(__file__).parents[4] / "fixtures"
CORE = FIXTURES / "vmcore" / "boot-7.3-52-on-48.core.zst"
IOMEM = CORE.with_name("boot-7.3-52-on-48.iomem")
VMALLOC_END = 0xFFFFFDFFBF800000
"""As VMCOREINFO of that kernel exports it; VMEMMAP_START is 0xffffc1ffc0000000."""
MODULES = ("CNT", "TBL", "VMM", "LIN", "ATT")


def layout_of(series, page_shift, va_bits, actual):
    era = next(era for era in ERAS if era.has(series))
    found = regions(era, page_shift, va_bits, 64, actual)
    values = {
        "page_size": 1 << page_shift,
        "va_bits": va_bits,
        "va_bits_actual": actual,
        "page_offset": found.page_offset,
        "linear_end": found.linear_end,
        "vmemmap_start": found.vmemmap_start,
        "vmemmap_end": found.vmemmap_end,
        "struct_page_size": 64,
    }
    return KernelLayout({key: Fact(value, "test", Precision.EXACT) for key, value in values.items()})


@pytest.mark.parametrize(
    ("page_shift", "va_bits", "actual", "first"),
    [
        (12, 52, 48, VMALLOC_END + (8 << 20)),
        (12, 52, 52, 0xFFFFC1FFC0000000),
        (12, 48, 48, 0xFFFFFDFFC0000000),
        (12, 39, 39, 0xFFFFFFFE_C0000000),
        (14, 52, 47, 0xFFFFFFBFC0000000),
        (14, 47, 47, 0xFFFFFFBFC0000000),
        (16, 52, 48, 0xFFFFFFDFC0000000),
        (16, 48, 48, 0xFFFFFFDFC0000000),
    ],
)
def test_the_vmemmap_begins_at_the_struct_page_of_the_first_linear_address(page_shift, va_bits, actual, first):
    layout = layout_of((6, 12), page_shift, va_bits, actual)
    assert layout.vmemmap_first == first
    assert layout.region_of(first) == "vmemmap"
    assert layout.region_of(first - 1) == "other"
    assert layout.region_of(layout.linear_start) == "linear"
    assert layout.region_of(layout.linear_start - 1) == "other"


def severe(report):
    return [(one.rule, one.severity.name) for one in report.findings if one.severity > Severity.INFO]


def test_a_dump_of_such_a_kernel_has_nothing_above_info():
    report = audit(Request((CORE,), kinds={"iomem": IOMEM}))
    assert severe(report) == []
    outcomes = {one.rule.code: one.outcome for one in report.verdicts}
    decided = ("CNT-03", "TBL-01", "VMM-02", "VMM-04", "VMM-10", "VMM-12")
    assert {code: outcomes[code] for code in decided} == dict.fromkeys(decided, Outcome.PASSED)


def with_modules(mapping: Mapping, start: int) -> Mapping:
    """What modules and vmap'ed stacks look like from ``start`` on: runs, blocks, executable and read-only pages."""
    rows = [
        (start, 64 << 10, 3, Attr.CONT | Attr.PXN),
        (start + (2 << 20), 2 << 20, 2, Attr.BLOCK | Attr.PXN),
        (start + (4 << 20), 16 << 10, 3, Attr.RDONLY),
        (start + (6 << 20), 12 << 10, 3, Attr.PXN),
    ]
    common = Attr.PRESENT | Attr.VALID | Attr.AF | Attr.SHARED | Attr.UXN
    added = {
        "start": np.array([one[0] for one in rows], np.uint64),
        "size": np.array([one[1] for one in rows], np.uint64),
        "level": np.array([one[2] for one in rows], np.int8),
        "attrs": np.array([common | one[3] for one in rows], np.uint16),
        "memtype": np.full(len(rows), MemType.NORMAL, np.uint8),
    }
    if mapping.pa is not None:
        added["pa"] = np.uint64(0x50000000) + np.arange(len(rows), dtype=np.uint64) * np.uint64(2 << 20)
    merged = {name: np.concatenate((getattr(mapping, name), new)) for name, new in added.items()}
    order = np.argsort(merged["start"])
    return replace(mapping, **{name: column[order] for name, column in merged.items()}, markers=(), line=None)


def vmalloc(layout):
    """An address of vmalloc above VMEMMAP_START, far enough from either end."""
    return layout.vmemmap_start + (layout.vmemmap_first - layout.vmemmap_start) // 2


def test_modules_are_not_struct_pages():
    known = audit(Request((CORE,), kinds={"iomem": IOMEM})).facts
    layout, walk = known.get(KernelLayout), known.get(PageWalk)
    mapping = with_modules(known.get(Mapping), vmalloc(layout))
    walk = replace(walk, repeated=np.zeros(len(mapping), np.bool_))
    facts = Facts(
        {
            Mapping: mapping,
            KernelLayout: layout,
            LinearMap: LinearMap.of(mapping, layout),
            Vmemmap: Vmemmap.of(mapping, layout),
            PageWalk: walk,
            SectionTable: known.get(SectionTable),
        }
    )
    rules = [rule for rule in builtin_rules() if rule.code.startswith(MODULES)]
    verdicts = run(rules, facts)
    assert not [one.rule.code for one in verdicts if one.outcome is Outcome.ERROR]
    assert not [one.rule.code for one in verdicts for found in one.findings if found.severity > Severity.INFO]


@pytest.mark.parametrize("va_bits", [52, None])
@pytest.mark.parametrize("modules", [False, True])
def test_the_same_tables_as_text_have_nothing_above_info(tmp_path, modules, va_bits):
    """Without the configuration the dump reads like one of a kernel built for 48 bits, whose areas are the same."""
    facts = extract(CORE)
    printed = facts.printed
    names = [marker.name for marker in printed.markers]
    assert names.index("vmalloc() end") < names.index("vmemmap start")
    if modules:
        start = 0xFFFFF00000000000
        rows = with_modules(replace(printed, pa=None), start)
        markers = [
            replace(marker, row=int(np.searchsorted(rows.start, printed.start[marker.row])))
            for marker in printed.markers
        ]
        printed = replace(rows, markers=tuple(markers))
    (tmp_path / "kernel_page_tables").write_bytes(render(printed, 48, 4096))
    (tmp_path / "iomem").write_bytes(IOMEM.read_bytes())
    (tmp_path / "uname").write_text("Linux host 7.3.4+deb13-arm64 #1 SMP aarch64 GNU/Linux\n")
    if va_bits:
        (tmp_path / "config").write_text(f"CONFIG_ARM64_4K_PAGES=y\nCONFIG_ARM64_VA_BITS={va_bits}\n")
    report = audit(Request((tmp_path,)))
    layout = report.facts.get(KernelLayout)
    assert (layout.need("va_bits"), layout.va_bits_actual) == (va_bits or 48, 48)
    assert layout.vmemmap_first == VMALLOC_END + (8 << 20)
    assert severe(report) == []
    outcomes = {one.rule.code: one.outcome for one in report.verdicts}
    assert outcomes["VMM-04"] is Outcome.PASSED
    assert outcomes["VMM-10"] is Outcome.PASSED


def test_a_panic_that_prints_the_shifted_offset_identifies_the_kernel(tmp_path):
    (tmp_path / "dmesg").write_text(
        "[    0.000000] Linux version 6.12.113+deb13-arm64 (gcc) #1 SMP\n"
        "[   50.000000] Unable to handle kernel paging request at virtual address fffffdffc2000008\n"
        "[   50.000001] Mem abort info:\n"
        "[   50.000002]   ESR = 0x0000000096000006\n"
        "[   50.000003] swapper pgtable: 4k pages, 48-bit VAs, pgdp=0000000041a2d000\n"
        "[   50.000004] [fffffdffc2000008] pgd=10000000bffff403, p4d=10000000bffff403, pud=10000000bfffe403, "
        "pmd=0000000000000000\n"
        "[   50.000005] Internal error: Oops: 0000000096000006 [#1] SMP\n"
        "[   50.000006] ---[ end trace 0000000000000000 ]---\n"
        "[   50.000007] Kernel panic - not syncing: Oops: Fatal exception\n"
        "[   50.000008] PHYS_OFFSET: 0xfff1000000000000\n"
        "[   50.000009] ---[ end Kernel panic - not syncing: Oops: Fatal exception ]---\n"
    )
    (oops,) = audit(Request((tmp_path,))).facts.get(Oopses).all
    assert (oops.layout.need("va_bits"), oops.layout.va_bits_actual) == (52, 48)
    assert oops.pfn == 0x80000


def test_before_5_10_the_struct_pages_moved_instead_of_memstart_addr():
    builder = LayoutBuilder()
    for key, value in (("page_size", 65536), ("va_bits", 52), ("va_bits_actual", 48), ("page_offset", 2**64 - 2**48)):
        builder.add(key, value, "VMCOREINFO", Precision.EXACT)
    builder.release(parse_uname(b"Linux host 5.9.16 #1 SMP aarch64 GNU/Linux\n", "uname"))
    layout = builder.build()
    assert layout.vmemmap_first == layout.vmemmap_start == layout_of((5, 9), 16, 52, 48).vmemmap_first
    assert not [note for note in layout.notes if "page_offset" in note]

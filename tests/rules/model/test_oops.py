"""What an oops alone says, and what it relies on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from analyzer.audit import Report, audit
from analyzer.sources.read import Request
from parsers.dmesg import parse_dmesg
from parsers.layout import KernelLayout, Precision
from rules.engine import Outcome
from rules.finding import Claim, Finding, Severity
from rules.model.layout.builder import LayoutBuilder
from rules.model.oops import DecodedOops, Oopses, Region
from tests.cases import FIXTURES, case_file

OOPS = (FIXTURES / "oops/pmem-6.12-vuln.txt").read_text()
BOOT = case_file("OOP-01/quiet-boot", "dmesg").read_text()
WITHOUT_REGISTERS = re.sub(r"(?m)^.*\] (?:x\d+|sp) ?: .*\n", "", OOPS)


def decoded(text: str) -> DecodedOops:
    return Oopses.of(parse_dmesg(text.encode(), "log"), LayoutBuilder(), None).all[0]


def audited(tmp_path: Path, text: str) -> Report:
    (tmp_path / "dmesg").write_text(text)
    return audit(Request((tmp_path / "dmesg",)))


def finding(report: Report, code: str) -> Finding:
    (found,) = [one for one in report.findings if one.rule.code == code]
    return found


def source(oops: DecodedOops) -> str:
    return oops.layout.facts["phys_offset"].source


@pytest.mark.parametrize("name", ["pmem-6.12-vuln.txt", "pmem-6.12-vuln-mailed.txt"])
def test_forty_lines_name_page_section_level_and_bug(name: str) -> None:
    report = audit(Request((FIXTURES / "oops" / name,)))
    found = finding(report, "OOP-01")
    assert found.severity is Severity.CRITICAL
    assert found.sections == (16,)
    assert found.hit.pfns.tuples() == [(0x84000, 0x84001)]
    for words in (
        "PFN 0x84000 (physical 0x84000000), section 16, subsection 32 of 64",
        "The struct page of valid device memory is unmapped at PMD level (VMM-02)",
        "d4234d131b0a",
        "fixed in 6.14, 6.13.8, 6.12.20, 6.6.84, 6.1.132",
        "Against it: 6.12.117 has the fix, unless it was reverted",
        "memunmap_pages() reads the struct pages",
        "registers of the oops",
    ):
        assert words in found.hit.message
    assert "To prove it" in found.rule.advice
    suspected = finding(report, "VMM-02")
    assert (suspected.hit.claim, suspected.hit.pfns.tuples()) == (Claim.SUSPECTED, [(0x84000, 0x84001)])


def test_rules_about_tables_say_what_to_collect(tmp_path: Path) -> None:
    report = audited(tmp_path, BOOT + OOPS)
    verdicts = {one.rule.code: one for one in report.verdicts}
    for code in ("VMM-01", "LIN-01", "LIN-03", "ATT-01"):
        assert verdicts[code].outcome is Outcome.UNDECIDED
        assert any("kernel_page_tables" in step for step in verdicts[code].collect)


def test_log_gives_the_layout(tmp_path: Path) -> None:
    layout = audited(tmp_path, BOOT + OOPS).facts.get(KernelLayout)
    assert layout is not None
    assert (layout.page_size, layout.va_bits_actual, layout.phys_offset) == (4096, 48, 0)
    assert layout.facts["page_size"].precision is Precision.EXACT
    assert layout.facts["phys_offset"].precision is Precision.INFERRED


def test_randomised_linear_map_is_undone_by_what_registers_hold() -> None:
    memstart, start = 0xFFFFA50080000000, 0xFFFFFDFFC0000000
    vmemmap = (start - ((memstart - (1 << 64)) >> 12) * 64) & (2**64 - 1)
    text = OOPS.replace("fffffdffc2100000", f"{vmemmap + 0x84000 * 64:016x}")
    text = text.replace("x28: fffffdffc0000000", f"x28: {vmemmap:016x}")
    text = re.sub(r"ffff0000(4\w{7})", lambda one: f"{0xFFFF << 48 | (int(one[1], 16) - memstart) % 2**64:016x}", text)
    oops = decoded(text)
    assert oops.layout.phys_offset == memstart
    assert oops.pfn == 0x84000


def test_panic_line_goes_before_registers() -> None:
    oops = decoded(
        OOPS + "[    8.6] Kernel Offset: 0x1000 from 0xffff800080000000\n[    8.6] PHYS_OFFSET: 0x80000000\n"
    )
    assert (oops.layout.phys_offset, source(oops)) == (0x80000000, "log:63")
    assert oops.pfn == 0x104000


def test_line_of_another_boot_is_ignored() -> None:
    oops = decoded("[    1.0] PHYS_OFFSET: 0x80000000\n" + BOOT + OOPS)
    assert oops.layout.phys_offset == 0


def test_descriptor_of_a_linear_address_gives_phys_offset() -> None:
    oops = decoded((FIXTURES / "host/samples/oops-6.10-52bit-4k-linear.txt").read_text())
    assert oops.region is Region.LINEAR
    assert (oops.layout.phys_offset, oops.pfn) == (0x40000000, 0x46705)
    assert oops.layout.facts["phys_offset"].precision is Precision.DERIVED


def test_memory_of_the_boot_gives_phys_offset_where_nothing_is_randomised() -> None:
    oops = decoded(BOOT + WITHOUT_REGISTERS)
    assert (oops.pfn, oops.at_boot) == (0x84000, False)
    assert source(oops) == "memory of the boot log begins at 0x4000000"


def test_pointers_among_the_registers_give_phys_offset_with_the_memory_of_the_boot() -> None:
    randomised = BOOT.replace("KASLR disabled on command line", "KASLR enabled")
    registers = re.sub(r"x(?:28|22|1) ?: [0-9a-f]{16}", "x30: 0000000000000000", OOPS)
    oops = decoded(randomised + registers)
    assert oops.layout.phys_offset == 0
    assert "point into the memory of the boot log" in source(oops)


def test_without_phys_offset_the_place_in_the_section_is_known_still() -> None:
    oops = decoded(WITHOUT_REGISTERS)
    assert (oops.pfn, oops.index) == (None, 0x84000)
    assert "page 0x84000 of the linear map" in oops.describe()
    assert "subsection 32 of 64" in oops.describe()
    assert "section 16" not in oops.describe()


def test_registers_that_disagree_are_ignored() -> None:
    text = re.sub(r"x28: [0-9a-f]{16}", "x28: 0000000000000000", OOPS)
    text = re.sub(r"x22: [0-9a-f]{16}", "x22: 0000000000000000", text)
    assert decoded(text).pfn is None


def test_field_of_the_struct_page_is_named() -> None:
    oops = decoded((FIXTURES / "oops/pmem-6.12-64k-cross.txt").read_text())
    assert oops.field == (0x34, "_refcount")
    assert (oops.hole, oops.level) == ((3, 0), 3)


def test_oops_of_an_earlier_boot_is_less_urgent_and_is_decoded_by_its_own_kernel(tmp_path: Path) -> None:
    later = BOOT.replace("6.12.117", "6.18.1")
    report = audited(tmp_path, BOOT + OOPS + later)
    found = finding(report, "OOP-01")
    assert found.severity is Severity.HIGH
    assert "on 6.12.117, in an earlier boot of the log" in found.hit.message
    assert found.hit.pfns.tuples() == [(0x84000, 0x84001)]
    assert "VMM-02" not in {one.rule.code for one in report.findings}


@pytest.mark.parametrize(
    ("address", "region"),
    [
        ("0000000000000008", Region.NULL),
        ("00007fff12345678", Region.USER),
        ("006b6b6b6b6b6b73", Region.BETWEEN),
        ("ffff000041000000", Region.LINEAR),
        ("ffff800081000000", Region.OTHER),
        ("fffffdffc2100000", Region.VMEMMAP),
        ("f0ff000041000000", Region.LINEAR),
    ],
)
def test_region_of_the_address(address: str, region: Region) -> None:
    assert decoded(OOPS.replace("fffffdffc2100000", address)).region is region

"""VMCOREINFO says what no kernel says: the audit ends as it should, and believes none of it."""

import json
import shutil
from pathlib import Path

import pytest

from analyzer.audit import audit
from analyzer.reports.json import document
from analyzer.sources.read import Request
from parsers.errors import PtauditError

CAPTURE = Path(__file__).parents[2] / "fixtures/captures/pmem-6.12-vuln/02-one-removed"
KEYS = {
    "OSRELEASE": "6.12.117",
    "PAGESIZE": "4096",
    "NUMBER(VA_BITS)": "48",
    "NUMBER(TCR_EL1_T1SZ)": "0x10",
    "NUMBER(PHYS_OFFSET)": "0x0",
    "NUMBER(VMEMMAP_START)": "-2199023255552",
    "NUMBER(VMEMMAP_END)": "-1073741824",
    "NUMBER(kimage_voffset)": "0xffff800040000000",
    "NUMBER(SECTION_SIZE_BITS)": "27",
    "SIZE(page)": "64",
}
"""Keys that the layout is made of, with values of that kernel."""
VALUES = ("0", "1", "-1", "9223372036854775808", "18446744073709551615")


def audited(folder, **values):
    for name in ("kernel_page_tables", "iomem", "memory_blocks"):
        shutil.copyfile(CAPTURE / name, folder / name)
    (folder / "vmcoreinfo").write_text("".join(f"{key}={value}\n" for key, value in (KEYS | values).items()))
    return audit(Request((folder,)))


@pytest.mark.parametrize("key", [key for key in KEYS if key != "OSRELEASE"])
def test_a_value_that_cannot_be_neither_fails_nor_floods(tmp_path, key):
    usual = {one.rule.code for one in audited(tmp_path).findings}
    for value in VALUES:
        try:
            report = audited(tmp_path, **{key: value})
        except PtauditError:
            continue
        assert [(one.rule.code, one.reason) for one in report.failed] == [], value
        assert len({one.rule.code for one in report.findings} - usual) <= 2, value


def test_the_moment_of_the_crash_is_in_the_report(tmp_path):
    assert json.loads(json.dumps(document(audited(tmp_path))))["host"]["captured"] is None
    report = audited(tmp_path, CRASHTIME="1795787708")
    assert document(report)["host"]["captured"] == "2026-11-27T13:55:08+00:00"

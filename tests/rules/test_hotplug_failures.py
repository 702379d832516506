"""Messages of operations that failed, as kernels print them, and what OOP-24 says of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request

BOOT = "[    0.000000] Linux version 7.3.4 (x@y) (gcc 12) #1 SMP\n[    0.000000] Machine model: linux,dummy-virt\n"


def said(tmp_path: Path, text: str) -> list[tuple[str, str]]:
    (tmp_path / "dmesg").write_text(f"{BOOT}[   29.980267] {text}\n")
    report = audit(Request((tmp_path / "dmesg",)), only=("OOP-24",))
    return [(one.hit.title, one.hit.message) for one in report.findings]


@pytest.mark.parametrize(
    ("text", "device", "error"),
    [
        ("device_dax dax0.0: probe with driver device_dax failed with error -12", "dax0.0", "ENOMEM"),
        ("device_dax: probe of dax0.0 failed with error -12", "dax0.0", "ENOMEM"),
        ("kmem dax1.0: probe with driver kmem failed with error -22", "dax1.0", "EINVAL"),
        ("kmem: probe of dax0.0 failed with error -16", "dax0.0", "EBUSY"),
        ("nd_pmem namespace0.0: probe with driver nd_pmem failed with error -17", "namespace0.0", "EEXIST"),
        ("nd_pmem pfn0.1: probe with driver nd_pmem failed with error -12", "pfn0.1", "ENOMEM"),
        ("dax_pmem dax0.1: probe with driver dax_pmem failed with error -12", "dax0.1", "ENOMEM"),
    ],
)
def test_driver_that_could_not_take_memory(tmp_path: Path, text: str, device: str, error: str) -> None:
    ((title, message),) = said(tmp_path, text)
    assert title == "A driver could not take a device's memory"
    assert device in message
    assert error in message


def test_dimm_that_could_not_be_unplugged(tmp_path: Path) -> None:
    ((title, message),) = said(tmp_path, "memory memory54: Offline failed.")
    assert title == "A memory device could not be unplugged"
    assert "memory54" in message


PAGE = """page: refcount:1 mapcount:0 mapping:0000000000000000 index:0x0 pfn:0x1b041d
[   29.980268] flags: 0x400000000000000(node=0|zone=2)
[   29.980269] raw: 0400000000000000 0000000000000000 dead000000000122 0000000000000000
[   29.980270] page dumped because: """


@pytest.mark.parametrize("reason", ["isolation failed", "migration failure", "unmovable page"])
def test_dump_of_a_page_that_stays_is_explained(tmp_path: Path, reason: str) -> None:
    ((title, message),) = said(tmp_path, f"{PAGE}{reason}")
    assert title == "A page could not be moved away"
    assert reason in message
    assert "memory block stays online" in message


@pytest.mark.parametrize("reason", ["nonzero mapcount", "VM_BUG_ON_PAGE(PagePoisoned(page))"])
def test_dump_of_a_page_for_another_reason_is_no_failed_operation(tmp_path: Path, reason: str) -> None:
    assert said(tmp_path, f"{PAGE}{reason}") == []


def test_message_and_page_dump_are_one_story(tmp_path: Path) -> None:
    text = f"failed to isolate pfn 1b041d\n[   29.980267] {PAGE}isolation failed"
    (tmp_path / "dmesg").write_text(f"{BOOT}[   29.980266] {text}\n")
    report = audit(Request((tmp_path / "dmesg",)), only=("OOP-24",))
    (finding,) = report.findings
    assert "PFN 0x1b041d" in finding.hit.message
    assert "times" not in finding.hit.message
    assert [one.line for one in finding.hit.evidence] == [3, 7]


@pytest.mark.parametrize(
    "text",
    [
        "e1000 0000:00:01.0: probe with driver e1000 failed with error -12",
        "systemd[1]: dax0.0: probe with driver device_dax failed with error -12",
        "memory memory54: Offline worked.",
        "memory foo: Offline failed.",
    ],
)
def test_other_messages_are_ignored(tmp_path: Path, text: str) -> None:
    assert said(tmp_path, text) == []

"""Logs as people send them: what happened in each, and nothing accused that is not damaged.

``fixtures/field/expected.json`` holds the reading of every file of ``lists``, ``logs``, ``min`` and ``transports``,
worked out by hand from the log; ``public-oopses.txt`` holds excerpts of public reports, none of which is about memory
hotplug, each with the region of its address.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from analyzer.audit import Report, audit
from analyzer.sources.read import Request
from analyzer.timeline.operation_rows import operation_rows
from analyzer.verdict import verdict_of
from parsers.errors import WrongFormatError
from parsers.layout import KernelLayout
from parsers.uname import KernelRelease
from rules.finding import Severity
from rules.model.log_events import LogEvent, LogEvents
from rules.model.oops import Oopses

FIELD = Path(__file__).parents[3] / "fixtures/field"
EXPECTED: dict[str, dict[str, Any]] = json.loads((FIELD / "expected.json").read_text())
FILES = sorted(
    path.relative_to(FIELD).as_posix()
    for folder in ("lists", "logs", "min", "transports")
    for path in (FIELD / folder).iterdir()
)
PUBLIC = [
    (*head.split(" | "), body)
    for head, _, body in (
        part.partition("\n") for part in re.split(r"(?m)^=== ", (FIELD / "public-oopses.txt").read_text())[1:]
    )
]


def reading(report: Report) -> dict[str, Any]:
    """What the table says of a log."""
    release, layout = report.facts.get(KernelRelease), report.facts.get(KernelLayout)
    return {
        "release": None if release is None else release.raw,
        "phys_offset": f"{layout.phys_offset:#x}" if layout is not None and layout.knows("phys_offset") else None,
        "events": [row(one) for one in events(report)],
        "findings": sorted({f"{one.rule.code} {one.severity}" for one in report.findings if one.rule.code != "ENV-01"}),
    }


def row(event: LogEvent) -> list[object]:
    pfn = None if event.pfn is None else f"{event.pfn:#x}"
    return [event.line, event.kind, event.region, event.level, event.access, pfn, event.related]


def events(report: Report) -> tuple[LogEvent, ...]:
    found = report.facts.get(LogEvents)
    assert found is not None
    return found.events


def of_text(tmp_path: Path, text: str) -> Report:
    (tmp_path / "dmesg").write_text(text)
    return audit(Request((tmp_path / "dmesg",)))


def test_every_file_has_a_reading() -> None:
    assert sorted(EXPECTED) == FILES


@pytest.mark.parametrize("name", FILES)
def test_log_is_read_as_a_person_reads_it(name: str) -> None:
    wanted = EXPECTED[name]
    if "refused" in wanted:
        with pytest.raises(WrongFormatError, match=wanted["refused"]):
            audit(Request((FIELD / name,)))
    else:
        assert reading(audit(Request((FIELD / name,)))) == wanted


@pytest.mark.parametrize(("name", "source", "region", "text"), PUBLIC, ids=[one[0] for one in PUBLIC])
def test_public_report_is_placed_and_accuses_nothing(
    tmp_path: Path, name: str, source: str, region: str, text: str
) -> None:
    report = of_text(tmp_path, text)
    assert [one.region for one in events(report)] == [region], (name, source)
    assert not [one.rule.code for one in report.findings if one.severity >= Severity.HIGH]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "logs/01-kmemleak-crashkernel-64k-5.14.txt",
            "in the crash kernel's memory, which kernels before 6.4 unmap (line 4",
        ),
        ("logs/03-kasan-shadow-vmalloc-5.13-64k.txt", "KASAN's shadow of 0xffff800014790000"),
        ("logs/05-lkft-juno-virt_to_page-5.19-next.txt", "virt_to_page() of 0xffff80000af09000"),
        ("logs/08-fsdax-zero-entry-6.18.4.txt", "PFN 0x0, 1024 MiB below the start of memory: x1 holds PHYS_OFFSET"),
        ("logs/10-imx8mm-recursive-wrapped-5.7.txt", "cannot reach its own page tables"),
        ("logs/12-kdump-flatmem-39bit-5.5.txt", "in a capture kernel"),
        ("logs/14-virt_to_page-64k-5.3-wrapped.txt", "virt_to_page() of 0xffff800010cb0000"),
        ("logs/38-nvmem-kfree-rodata-64k-5.5-tegra.txt", "virt_to_page() of 0xffff800011220000"),
        ("lists/error-pointer-39bit-4.19.txt", "an error pointer, or a field before NULL (-517)"),
        ("lists/permission-linear-tegra-5.10.txt", "not a torn mapping: the page is mapped (permission fault)"),
        ("lists/kasan-wrapped-kvm-5.2.txt", "KASAN: slab-out-of-bounds in kvm_pmu_get_canonical_pmc+0x48/0x78"),
        ("lists/serror-panic-5.4.txt", "SError, in el1_error()"),
        ("lists/five-quotes-refcount-6.16.txt", '"refcount_t: underflow; use-after-free."'),
        ("lists/pfn-zero-fedora-taint-5.18.txt", "as a page-table entry or a PFN of zero gives"),
        ("lists/first-page-frame-6.2.txt", "as a page-table entry or a PFN of zero gives"),
        ("lists/device-memory-64k-caret-m-5.12.txt", "no leaf can exist at that level"),
        ("min/F03-level0.txt", "an entry of level 0 spans 512 GiB"),
        ("min/F04-64k-level1.txt", "the hole is of 4 TiB (level 1): no leaf can exist at that level"),
        ("min/err_ptr-vmemmap-4k-6.12.txt", "a negative 32-bit number or an error code"),
        ("min/m5.txt", "[0x240000000, 0x340000000) (dax0.0, could not reserve region)"),
        ("min/user-aborts.txt", "19 times"),
    ],
)
def test_event_says_why(name: str, words: str) -> None:
    assert any(words in one.text for one in events(audit(Request((FIELD / name,)))))


def test_wifi_crash_is_distinguished_from_memory_in_one_line(tmp_path: Path) -> None:
    text = next(text for name, *_, text in PUBLIC if name.startswith("31 "))
    found = of_text(tmp_path, text).facts.get(LogEvents)
    assert found is not None
    assert found.unrelated
    (event,) = found.events
    assert (event.function, event.module, event.task) == ("apple_dart_of_xlate", "apple_dart", "kworker/u16:1")
    assert event.text.endswith("not struct pages, not the linear map")


def test_row_of_a_report_has_the_fields_of_the_contract(tmp_path: Path) -> None:
    text = (FIELD / "transports/x_plain.txt").read_text()
    (event,) = events(of_text(tmp_path, text))
    found = event.as_dict()
    assert {key: found[key] for key in ("line", "address", "region", "level", "access", "pfn", "function", "task")} == {
        "line": 1,
        "address": "0xfffffdffc2100000",
        "region": "vmemmap",
        "level": 2,
        "access": "read",
        "pfn": "0x84000",
        "function": "memunmap_pages",
        "task": "ndctl",
    }


def test_known_bug_is_a_field_of_the_finding(tmp_path: Path) -> None:
    report = of_text(tmp_path, (FIELD / "transports/x_plain.txt").read_text())
    known = next(one.hit.known_bug for one in report.findings if one.rule.code == "OOP-01")
    assert known is not None
    assert known.commit == "d4234d131b0a"
    assert known.fixed_in == ("6.14", "6.13.8", "6.12.20", "6.6.84", "6.1.132")
    assert any("PMD" in one for one in known.supports)
    assert any("6.12.117 has the fix" in one for one in known.contradicts)


NEXT_ERA = """Unable to handle kernel paging request at virtual address {address}
swapper pgtable: 64k pages, 48-bit VAs, pgdp=0000000081230000
Internal error: Oops: 96000006 [#1] SMP
CPU: 2 PID: 1357 Comm: modprobe Not tainted {release} #1
x2 : 0000000000000001 x1 : 00000000c0000000 x0 : {register}
"""


@pytest.mark.parametrize(
    ("release", "register", "region"),
    [
        ("5.3.0-rc3+", "ffffffdfffe00000", "vmemmap"),  # VMEMMAP_START of 5.4 to 5.10
        ("5.3.0-rc3+", "0000000000000000", "linear"),
        ("5.3.18", "ffffffdfffe00000", "linear"),  # a release has the map of its series
    ],
)
def test_development_kernel_has_the_map_that_its_registers_show(
    tmp_path: Path, release: str, register: str, region: str
) -> None:
    text = NEXT_ERA.format(address="ffffffe000000040", release=release, register=register)
    assert [one.region for one in events(of_text(tmp_path, text))] == [region]


def test_page_that_is_printed_with_its_number_gives_the_layout() -> None:
    layout = audit(Request((FIELD / "logs/16-kasan-vmalloc-badpage-5.18.txt",))).facts.get(KernelLayout)
    assert layout is not None
    assert (layout.page_size, layout.va_bits_actual, layout.phys_offset) == (4096, 48, 0x80000000)


def test_faults_of_show_pte_are_one_event() -> None:
    oopses = audit(Request((FIELD / "logs/10-imx8mm-recursive-wrapped-5.7.txt",))).facts.get(Oopses)
    assert oopses is not None
    (oops,) = oopses.all
    assert oops.report.nested == (0xFFFF00007DFF8000, 0xFFFF00007DFF8008)
    assert oops.layout.phys_offset == 0x40000000


@pytest.mark.parametrize(
    ("address", "stack", "release", "region"),
    [
        ("ffff800082816318", "ffff800085e03b60", "6.18.0", "vmalloc"),
        ("ffff000085e03b60", "ffff800085e03b60", "6.18.0", "linear"),
        ("ffffff8001198880", "ffffff800b45b9a0", "4.14.128", "modules"),
        ("ffffffc001198880", "ffffff800b45b9a0", "4.14.128", "linear"),
        ("ffff800082816318", "", "6.18.0", "unknown"),  # with 47 bits it is linear
    ],
)
def test_region_without_page_size_is_what_every_layout_that_fits_says(
    tmp_path: Path, address: str, stack: str, release: str, region: str
) -> None:
    text = (
        f"Unable to handle kernel paging request at virtual address {address}\n"
        f"CPU: 1 PID: 2 Comm: sh Not tainted {release} #1\n" + (f"sp : {stack}\nx29: {stack}\n" if stack else "")
    )
    (event,) = events(of_text(tmp_path, text))
    assert event.region == region
    assert not [one for one in of_text(tmp_path, text).findings if one.severity >= Severity.HIGH]


HOST = """[    0.000000] Linux version 6.12.117 (root@vm) (gcc 12.2.0) #2 SMP
[    0.000000]   node   0: [mem 0x0000000040000000-0x00000000bfffffff]
[   20.000000] swapper pgtable: 4k pages, 48-bit VAs, pgdp=000000004adff000
"""
FAULT = """[   30.000000] Unable to handle kernel paging request at virtual address {address}
[   30.000000]   ESR = 0x0000000096000006
[   30.000000] swapper pgtable: 4k pages, {bits}-bit VAs, pgdp=000000004adff000
[   30.000000] [{address}] pgd=100000004ffe6003, pud=100000004ffe5003, pmd=0000000000000000
[   30.000000] CPU: 0 PID: 130 Comm: ndctl Not tainted {release} #2
[   30.000000] pc : memunmap_pages+0x1a8/0x2a8
"""


def fault(address: str, release: str, bits: int = 48) -> str:
    return FAULT.format(address=address, release=release, bits=bits)


def test_oops_of_another_kernel_is_decoded_by_its_own_release(tmp_path: Path) -> None:
    text = HOST + fault("fffffdffc2100000", "6.12.117") + fault("ffff80000c000000", "4.19.90")
    own, foreign = events(of_text(tmp_path, text))
    assert (own.region, own.release, own.current) == ("vmemmap", "6.12.117", True)
    assert (foreign.region, foreign.release, foreign.current) == ("linear", "4.19.90", False)
    assert foreign.pfn is None  # where this kernel's memory begins says nothing of another's
    assert "of another kernel" in foreign.text


def test_oops_after_the_console_of_a_guest_is_the_host_s(tmp_path: Path) -> None:
    guest = "[    0.000000] Linux version 5.10.3 (root@guest) (gcc 10.2.0) #1 SMP\n[    1.000000] KASLR enabled\n"
    found = events(of_text(tmp_path, HOST + guest + fault("fffffdffc2100000", "6.12.117")))
    assert [(one.release, one.region) for one in found] == [("6.12.117", "vmemmap")]


def test_oops_of_the_kernel_that_uname_names_and_of_another(tmp_path: Path) -> None:
    (tmp_path / "uname").write_text("Linux vm 6.12.117 #2 SMP aarch64 GNU/Linux\n")
    (tmp_path / "dmesg").write_text(fault("fffffdffc2100000", "6.12.117") + fault("fffffdffc2200000", "5.10.0"))
    found = events(audit(Request((tmp_path,))))
    assert [(one.release, one.current) for one in found] == [("6.12.117", True), ("5.10.0", False)]


def test_messages_of_every_log_of_the_boot_count_and_are_quoted_where_they_are(tmp_path: Path) -> None:
    refusal = "Block size [0x8000000] unaligned hotplug range: start 0x100001000, size 0x8000000\n"
    (tmp_path / "dmesg").write_text(HOST + fault("fffffdffc2100000", "6.12.117"))
    (tmp_path / "kern.log").write_text(f"[   20.500000] usb 1-1: new device\n[   21.000000] {refusal}")
    (tmp_path / "kern.log.1").write_text(
        f"[    0.000000] Linux version 5.10.3 (root@other) (gcc) #1 SMP\n[   22.000000] {refusal}"
    )
    report = audit(Request((tmp_path,)))
    (finding,) = (one for one in report.findings if one.rule.code == "SEC-11")
    assert [(Path(one.source).name, one.line) for one in finding.hit.evidence] == [("kern.log", 2)]
    assert "OOP-24" not in {one.rule.code for one in report.findings}


def test_timeline_has_what_every_log_says_once(tmp_path: Path) -> None:
    (tmp_path / "dmesg").write_text(HOST + "[   40.000000] Offlined Pages 32768\n")
    (tmp_path / "kern.log").write_text("[   40.000000] Offlined Pages 32768\n[   41.000000] Offlined Pages 4096\n")
    rows = operation_rows(audit(Request((tmp_path / "dmesg", tmp_path / "kern.log"))).facts)
    assert [(row.time, row.result) for row in rows] == [(40.0, "Offlined Pages 32768"), (41.0, "Offlined Pages 4096")]


def test_verdict_on_a_log_begins_with_what_happened() -> None:
    report = audit(Request((FIELD / "min/m1.txt",)))
    said = verdict_of(report).text
    assert said.startswith('blind: the log reports "Memory could not be taken offline [0x100000000, 0x108000000)')
    assert "(line 2). " in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "WARNING: CPU: 0 PID: 135 at f+0x200/0x294\nCPU: 0 PID: 135 Comm: a Not tainted 5.9.0 #1\n",
            "WARNING, a (135), 5.9.0",
        ),
        (
            "WARNING: CPU: 0 PID: 110 at drivers/iommu/rockchip- \niommu.c:989 f+0xac/0xbc\n",
            "WARNING at drivers/iommu/rockchip-iommu.c:989",
        ),
        (
            "Unable to handle kernel paging request at virtual address ffff8000dd1393ff\n  ESR = 0x0000000096000021\n",
            "not a torn mapping: the page is mapped (alignment fault)",
        ),
    ],
)
def test_words_of_a_report_that_lacks_something(tmp_path: Path, text: str, words: str) -> None:
    (event,) = events(of_text(tmp_path, text))
    assert words in event.text
    assert not event.related


def test_release_in_a_mail_besides_that_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "mail").write_text(
        fault("fffffdffc2100000", "6.12.0-rc1")
        + "\nLinux host 6.12.0-rc2 #11 SMP Sat Oct 12 16:56:57 aarch64 GNU/Linux\n"
    )
    (event,) = events(audit(Request((tmp_path / "mail",))))
    assert (event.release, event.current) == ("6.12.0-rc1", False)


def test_text_after_a_panic_is_not_a_page_table_dump() -> None:
    report = audit(Request((FIELD / "lists/first-page-frame-6.2.txt",)))
    assert not report.sources.unread, '"---[ end Kernel panic" begins as a marker of a dump does'


BOOT = """[    0.000000] Linux version 6.6.33 (a@b) (gcc 12.2.0) #1 SMP
[    0.000000] Dentry cache hash table entries: {entries} (order: {order}, {size} bytes, linear)
[    0.000000] Inode-cache hash table entries: {entries} (order: {order}, {size} bytes, linear)
"""


@pytest.mark.parametrize(
    ("order", "size", "page_size"), [(10, 4194304, 4096), (8, 4194304, 16384), (6, 4194304, 65536), (9, 4194304, None)]
)
def test_page_size_follows_from_the_hash_tables_of_the_boot(
    tmp_path: Path, order: int, size: int, page_size: int | None
) -> None:
    layout = of_text(tmp_path, BOOT.format(entries=size // 8, order=order, size=size)).facts.get(KernelLayout)
    assert layout is not None
    assert layout.get("page_size") == page_size
    if page_size is not None:
        assert layout.facts["page_size"].source.endswith("dmesg:2")

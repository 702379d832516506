"""Oopses are read whatever has happened to the log on its way."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parsers.dmesg import parse_dmesg
from parsers.esr import Esr, Fault
from parsers.lines import without_transport
from parsers.oops import MAX_REPORTS, Report, ReportKind, Reports, find_reports

FIXTURES = Path(__file__).parents[2] / "fixtures"
OOPS = (FIXTURES / "oops/pmem-6.12-vuln.txt").read_bytes()


def read(name: str) -> Reports:
    return find_reports(without_transport((FIXTURES / name).read_bytes()), name)


def one(data: bytes) -> Report:
    (report,) = parse_dmesg(data, "log").reports.reports
    return report


def facts(report: Report) -> tuple[object, ...]:
    """What must survive any transport."""
    assert report.address is not None
    assert report.esr is not None
    assert report.walk is not None
    return (
        report.kind,
        report.address.value,
        report.esr.value,
        report.page_size,
        report.va_bits,
        report.walk.entries,
        report.comm,
        report.pid,
        report.release.split()[0],
        report.pc,
        report.trace,
        len(report.registers),
    )


EXPECTED = facts(one(OOPS))


def test_every_field_of_an_oops_is_read() -> None:
    report = one(OOPS)
    assert report.address is not None
    assert (report.kind, report.line, report.time) == (ReportKind.ABORT, 1, 8.548711)
    assert (report.address.value, report.address.tag) == (0xFFFFFDFFC2100000, None)
    assert report.esr == Esr(0x96000006)
    assert (report.page_size, report.va_bits, report.user_table) == (4096, 48, False)
    assert report.walk is not None
    assert [name for name, _ in report.walk.entries] == ["pgd", "p4d", "pud", "pmd"]
    assert report.walk.last == ("pmd", 0)
    assert (report.cpu, report.pid, report.comm, report.taint, report.release) == (0, 130, "ndctl", "", "6.12.117 #2")
    assert (report.pc, report.lr) == ("memunmap_pages+0x1a8/0x2a8", "memunmap_pages+0x1a4/0x2a8")
    assert report.trace[:2] == ("memunmap_pages", "devm_memremap_pages_release")
    assert (report.trace[-1], len(report.trace)) == ("el0t_64_sync", 27)
    assert report.registers["x28"] == 0xFFFFFDFFC0000000
    assert report.complete
    quote = report.quotes["walk"]
    assert OOPS.decode().splitlines()[quote.line - 1].strip() == quote.text


@pytest.mark.parametrize(
    ("name", "address", "fault", "last", "page_size", "va_bits"),
    [
        ("oops/pmem-5.10-4k.txt", 0xFFFFFE0001F00008, "level 2 translation fault on a read", "pmd", 4096, 48),
        ("oops/pmem-6.12-16k.txt", 0xFFFFFFBFC0812000, "level 3 translation fault on a read", "pte", 16384, 47),
        ("oops/pmem-6.12-64k.txt", 0xFFFFFFDFC0208000, "level 3 translation fault on a read", "pte", 65536, 48),
        ("oops/pmem-6.12-64k-cross.txt", 0xFFFFFFDFC0210034, "level 3 translation fault on a write", "pte", 65536, 48),
    ],
)
def test_other_kernels(name: str, address: int, fault: str, last: str, page_size: int, va_bits: int) -> None:
    (report,) = read(name).reports
    assert report.address is not None
    assert report.walk is not None
    assert (report.address.value, str(report.esr), report.walk.last) == (address, fault, (last, 0))
    assert (report.page_size, report.va_bits) == (page_size, va_bits)


def test_a_kernel_of_4_1x_prints_stars_and_a_virtual_pgd_and_no_esr() -> None:
    (report,) = read("host/samples/oops-4.1x-64k-48bit.txt").reports
    assert report.walk is not None
    assert [name for name, _ in report.walk.entries] == ["pgd", "pud", "pmd", "pte"]
    assert report.esr == Esr(0x96000047)
    assert (report.esr.level, report.esr.write, report.page_size) == (3, True, 65536)
    assert not report.complete


def test_tag_is_stripped_from_the_address() -> None:
    (report,) = read("host/samples/oops-6.10-52bit-4k-linear.txt").reports
    assert report.address is not None
    assert (report.address.value, report.address.tag) == (0xFFF0000006705000, 0xFE)
    assert report.walk is not None
    assert report.walk.get("pte") == 0x0068000046705406


def test_warning_says_what_and_where() -> None:
    (report,) = read("oops/pmem-mapdev-6.12-64k-warning.txt").reports
    assert (report.kind, report.place) == (ReportKind.WARNING, "mm/memremap.c:153")
    assert report.warning == "failed to free all reserved pages"
    assert report.function == "memunmap_pages"
    assert report.address is None


def journal(data: bytes, *, timed: bool = True) -> bytes:
    lines = []
    for number, line in enumerate(data.decode().splitlines()):
        stamp, _, text = line.partition("] ")
        entry = {"_TRANSPORT": "kernel", "MESSAGE": text, "_HOSTNAME": "h"}
        if timed:
            entry["_SOURCE_MONOTONIC_TIMESTAMP"] = stamp.strip("[ ").replace(".", "").lstrip("0") or "0"
        if number % 2:
            entry = dict(reversed(entry.items()))
        lines.append(json.dumps(entry))
    return "\n".join(lines).encode() + b"\n"


def dmesg_json(data: bytes) -> bytes:
    rows = []
    for line in data.decode().splitlines():
        stamp, _, text = line.partition("] ")
        rows.append(f'{{\n "pri": 1,\n "time": {stamp.strip("[ "):>12},\n "msg": {json.dumps(text)}\n }}')
    return ('{\n "dmesg": [\n ' + ",".join(rows) + "\n]\n}\n").encode()


def with_caller(data: bytes, caller: bytes) -> bytes:
    return re.sub(rb"(?m)^(\[ +[\d.]+\]) ", rb"\1[%8b] " % caller, data)


SHAPES = {
    "mailed": (FIXTURES / "oops/pmem-6.12-vuln-mailed.txt").read_bytes(),
    "quoted twice": b"".join(b"> > " + line for line in OOPS.splitlines(keepends=True)),
    "carriage returns": OOPS.replace(b"\n", b"\r\n"),
    "colours": b"".join(b"\x1b[31m" + line.rstrip() + b"\x1b[0m\n" for line in OOPS.splitlines()),
    "caller": with_caller(OOPS, b"T130"),
    "syslog": b"".join(b"Nov 21 03:00:00 host kernel: " + line for line in OOPS.splitlines(keepends=True)),
    "journalctl": b"".join(
        b"Nov 21 03:00:00 host kernel: " + line.split(b"] ", 1)[1] for line in OOPS.splitlines(keepends=True)
    ),
    "no stamps": b"".join(line.split(b"] ", 1)[1] for line in OOPS.splitlines(keepends=True)),
    "raw syslog": b"".join(b"<1>" + line for line in OOPS.splitlines(keepends=True)),
    "journal of json": journal(OOPS),
    "journal of json without times": journal(OOPS, timed=False),
    "dmesg of json": dmesg_json(OOPS),
    "console noise before": b"sh: write error" + OOPS,
    "noise between": OOPS.replace(b"\n", b"\nrandom words of a program\n", 30),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_shape_of_the_log_does_not_matter(shape: str) -> None:
    assert facts(one(SHAPES[shape])) == EXPECTED


def test_time_survives_json() -> None:
    assert one(journal(OOPS)).time == one(dmesg_json(OOPS)).time == 8.548711


def test_coloured_message_in_a_journal_is_an_array_of_bytes() -> None:
    lines = journal(OOPS).decode().splitlines()
    entry = json.loads(lines[0])
    entry["MESSAGE"] = list(b"\x1b[31m" + entry["MESSAGE"].encode() + b"\x1b[0m")
    assert facts(one("\n".join([json.dumps(entry), *lines[1:]]).encode())) == EXPECTED


def test_log_that_ends_with_the_tail_of_the_same_oops_has_one_report() -> None:
    tail = OOPS[OOPS.index(b"[    8.550056]") :]
    report = one(OOPS + b"Segmentation fault\n" + tail)
    assert facts(report) == EXPECTED
    assert report.repeats == 1


def test_fault_that_begins_in_the_middle_has_what_is_left_before_its_walk() -> None:
    whole = one(OOPS)
    _, info, rest = OOPS.partition(b"Mem abort info:")
    (report,) = parse_dmesg(info + rest, "log").reports.reports
    assert (report.page_size, report.va_bits, report.esr) == (whole.page_size, whole.va_bits, whole.esr)
    assert report.address == whole.address
    assert report.headline.startswith("] pgd=")
    assert report.text.startswith("Mem abort info:")
    assert report.line == 1 + (info + rest)[: (info + rest).index(b"] pgd=")].count(b"\n")


def test_lines_before_a_walk_are_not_taken_from_the_report_before() -> None:
    first = OOPS.replace(b"4k pages, 48-bit VAs", b"64k pages, 52-bit VAs").replace(b"PID: ", b"PID: 9")
    walk = OOPS[OOPS.rindex(b"\n", 0, OOPS.index(b"] pgd=")) :]
    assert b"---[ end trace" in first
    reports = parse_dmesg(first + walk, "log").reports.reports
    assert [report.page_size for report in reports] == [0x10000, None]


def test_second_copy_of_a_fault_fills_in_what_the_first_lacks() -> None:
    head = b"Unable to handle kernel paging request at virtual address ffffc04000004000\n"
    first = head + b"Mem abort info:\n  ESR = 0x0000000096000005\n"
    second = head + b"swapper pgtable: 16k pages, 47-bit VAs, pgdp=000000000148c000\n"
    report = one(first + second)
    assert (report.repeats, report.page_size, report.va_bits, report.pgd) == (1, 0x4000, 47, 0x148C000)
    assert report.esr == Esr(0x96000005)
    assert (report.quotes["esr"].line, report.quotes["pgtable"].line) == (3, 5)


def test_same_oops_in_two_boots_is_two_reports() -> None:
    banner = b"[    0.000000] Linux version 6.12.117 (a@b) #1 SMP\n"
    assert len(parse_dmesg(banner + OOPS + banner + OOPS, "log").reports.reports) == 2


def test_tasks_that_print_at_the_same_time_are_separated_by_their_caller() -> None:
    ours = with_caller(OOPS, b"T130").splitlines(keepends=True)
    theirs = OOPS.replace(b"fffffdffc2100000", b"fffffdffc3330008").replace(b"PID: 130", b"PID: 131")
    theirs = with_caller(theirs, b"T131")
    mixed = b"".join(line for pair in zip(ours, theirs.splitlines(keepends=True), strict=True) for line in pair)
    first, second = parse_dmesg(mixed, "log").reports.reports
    assert facts(first) == EXPECTED
    assert second.address is not None
    assert (second.address.value, second.pid, second.line) == (0xFFFFFDFFC3330008, 131, 2)


@pytest.mark.parametrize(
    ("text", "kind", "check"),
    [
        (
            b"Internal error: synchronous external abort: 0000000096000010 [#1] SMP\n",
            ReportKind.DIED,
            lambda report: report.esr.fault is Fault.EXTERNAL_ABORT,
        ),
        (
            b"SError Interrupt on CPU3, code 0x00000000be000011 -- SError\n"
            b"CPU: 3 PID: 7 Comm: a b Not tainted 5.10.1 #1\n",
            ReportKind.SERROR,
            lambda report: report.esr.is_serror and report.comm == "a b",
        ),
        (
            b"------------[ cut here ]------------\nkernel BUG at arch/arm64/mm/mmu.c:421!\n"
            b"Internal error: Oops - BUG: 00000000f2000800 [#1] SMP\n",
            ReportKind.BUG,
            lambda report: report.place == "arch/arm64/mm/mmu.c:421",
        ),
        (
            b"WARNING: [!pte_none(x)] arch/arm64/mm/mmu.c:1032 at free_empty_tables+0x10/0x20, CPU#0: sh/12\n",
            ReportKind.WARNING,
            lambda report: report.function == "free_empty_tables" and report.place == "arch/arm64/mm/mmu.c:1032",
        ),
        (
            b"BUG: Bad page state in process kworker/u8:1  pfn:58d40\npage_type: f2(table)\n"
            b"page dumped because: nonzero _mapcount\n",
            ReportKind.BAD_PAGE,
            lambda report: report.pfn == 0x58D40 and "f2(table)" in report.text,
        ),
        (
            b"page dumped because: VM_BUG_ON_PAGE(PagePoisoned(page))\n------------[ cut here ]------------\n"
            b"kernel BUG at include/linux/page-flags.h:315!\n",
            ReportKind.PAGE_DUMP,
            lambda report: "PagePoisoned" in report.warning,
        ),
        (
            b"rcu: INFO: rcu_sched self-detected stall on CPU\nCall trace:\n unmap_hotplug_range+0x1/0x2\n",
            ReportKind.STALL,
            lambda report: report.passes("unmap_hotplug_") == "unmap_hotplug_range",
        ),
    ],
)
def test_other_reports(text: bytes, kind: ReportKind, check: object) -> None:
    report = one(text)
    assert report.kind is kind
    assert check(report)  # type: ignore[operator]


def test_panic_lines() -> None:
    text = b"Kernel Offset: 0x2f1d6c400000 from 0xffff800080000000\nPHYS_OFFSET: 0xfff1000080000000\n"
    offset, phys = find_reports(text, "log").panics
    assert (offset.kernel_offset, phys.phys_offset, phys.line) == (0x2F1D6C400000, 0xFFF1000080000000, 2)


@pytest.mark.parametrize(
    ("code", "fault", "level"),
    [
        (0x04, Fault.TRANSLATION, 0),
        (0x07, Fault.TRANSLATION, 3),
        (0x0F, Fault.PERMISSION, 3),
        (0x10, Fault.EXTERNAL_ABORT, None),
        (0x11, Fault.TAG_CHECK, None),
        (0x13, Fault.EXTERNAL_ABORT_ON_WALK, -1),
        (0x16, Fault.EXTERNAL_ABORT_ON_WALK, 2),
        (0x21, Fault.ALIGNMENT, None),
        (0x2B, Fault.TRANSLATION, -1),
        (0x30, Fault.TLB_CONFLICT, None),
        (0x3F, Fault.OTHER, None),
    ],
)
def test_fault_status_codes(code: int, fault: Fault, level: int | None) -> None:
    esr = Esr(0x96000000 | code)
    assert (esr.fault, esr.level) == (fault, level)


def test_cache_maintenance_is_not_a_write() -> None:
    assert Esr(0x96000146).write is None


def test_reports_are_bounded() -> None:
    many = b"".join(b"WARNING: CPU: 0 PID: 1 at mm/a.c:%d f+0x1/0x2\n" % number for number in range(MAX_REPORTS + 50))
    reports = find_reports(many, "log")
    assert len(reports.reports) == MAX_REPORTS
    assert "50 more" in reports.diagnostics[0].message


def test_large_log_without_reports_is_quick() -> None:
    line = b"[    1.234567] usb 1-1: new device, nothing to see here 0x%08x\n"
    log = b"".join(line % number for number in range(200_000))
    yardstick = time.perf_counter()
    log.decode().splitlines()
    yardstick = time.perf_counter() - yardstick
    start = time.perf_counter()
    assert find_reports(log, "log").reports == ()
    assert time.perf_counter() - start < 40 * yardstick + 0.5


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_log_is_read_as_far_as_it_goes(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(OOPS)))
    stop = data.draw(st.integers(start, len(OOPS)))
    junk = data.draw(st.binary(max_size=40))
    for report in find_reports(OOPS[:start] + junk + OOPS[stop:], "log").reports:
        assert 1 <= report.line <= OOPS.count(b"\n") + junk.count(b"\n") + 1


@pytest.mark.parametrize(
    "line",
    [
        b"(kms_writeback:554) DEBUG: Test requirement passed: fb_id > 0",
        b'+\tpr_crit("SError Interrupt on CPU%d, code 0x%08lx -- %s\\n",',
        b'    pr_err("BUG: KASAN: %s in %pS\\n",',
    ],
)
def test_what_looks_like_a_start_and_is_not(line: bytes) -> None:
    assert not find_reports(line + b"\n", "log").reports


def test_syndrome_with_doubled_digits_is_not_read() -> None:
    log = (
        b"Unable to handle kernel paging request at virtual address ffffff802a0d8d71\n  ESR = 0x9600002121\n"
        b"Internal error: Oops: 96000021 [#1] PREEMPT SMP\n"
    )
    (report,) = find_reports(log, "log").reports
    assert report.esr is not None
    assert report.esr.value == 0x96000021


def test_page_that_kasan_dumps_is_of_its_report() -> None:
    log = b"BUG: KASAN: use-after-free in f+0x1/0x2\npage:fffffe00001\npage dumped because: kasan: bad access\n"
    assert [report.kind for report in find_reports(log, "log").reports] == ["sanitizer"]


def test_panic_of_an_serror_is_one() -> None:
    log = (
        b"Kernel panic - not syncing: Asynchronous SError Interrupt\n"
        b"CPU: 0 PID: 1 Comm: a Not tainted 5.4.30\n"
        b"---[ end Kernel panic - not syncing: Asynchronous SError Interrupt ]---\n"
    )
    (report,) = find_reports(log, "log").reports
    assert (report.kind, report.release) == ("serror", "5.4.30")


@pytest.mark.parametrize(
    ("end", "levels"), [("", ["pgd", "pud", "pmd"]), ("12", ["pgd", "pud"]), ("5403", ["pgd", "pud"])]
)
def test_a_descriptor_that_is_cut_is_no_entry_of_the_walk(end, levels):
    """All have sixteen digits; where the log ends, the last may have fewer."""
    value = "18000000ffff5403"
    last = value if not end else value[: -len(end)]
    log = (
        "[    1.000000] Unable to handle kernel paging request at virtual address ffff000199600000\n"
        "[    1.000000] swapper pgtable: 4k pages, 48-bit VAs, pgdp=0000000043c5e000\n"
        f"[    1.000000] [ffff000199600000] pgd=18000000ffff7403, pud=18000000ffff6403, pmd={last}"
    )
    (report,) = parse_dmesg(log.encode(), "dmesg").reports.reports
    assert [name for name, _ in report.walk.entries] == levels


@pytest.mark.parametrize(
    ("said", "taint"),
    [
        ("Tainted: G        W        --------  ---  5.18.0-0.rc3.31.fc37.aarch64", "GW"),
        ("Kdump: loaded Tainted: G           OE    --------- -  - 4.18.0-193.el8.aarch64", "GOE"),
        ("Kdump: loaded Tainted: P           OE  ------------   4.14.0-115.el7a.0.1.aarch64", "POE"),
        ("Kdump: loaded Not tainted --------- -  - 4.18.0-240.el8.aarch64", ""),
        ("Tainted: G S          O        6.12.9", "GSO"),
    ],
)
def test_release_follows_the_dashes_that_distributions_add_to_the_taint(said: str, taint: str) -> None:
    report = one(
        f"[    1.000000] kernel BUG at mm/slub.c:1!\n[    1.000001] CPU: 1 PID: 7 Comm: a b {said} #1\n".encode()
    )
    assert (report.comm, report.taint, report.release.split()[0]) == ("a b", taint, said.rsplit(maxsplit=1)[-1])


@pytest.mark.parametrize(
    "title",
    [
        b"Subject: Re: Unable to handle kernel paging request at virtual address ffff800008c0b000\n",
        b"Subject: [Bug 215804] xfs:\n Unable to handle kernel paging request at virtual address fffffbffff000008\n",
        b"TITLE: BUG: unable to handle kernel paging request in blk_rq_map_sg\n",
    ],
)
def test_title_of_a_mail_is_not_a_report(title: bytes) -> None:
    oops = b"[    1.000000] kernel BUG at mm/slub.c:1!\n"
    assert [each.kind for each in find_reports(title + b"\n" + oops, "mail").reports] == [ReportKind.BUG]


@pytest.mark.parametrize(
    ("line", "kind", "comm"),
    [
        (b"INFO: task kworker/u8:3:126 blocked for more than 120 seconds.", ReportKind.HUNG, "kworker/u8:3"),
        (b"INFO: task udevd:5612 blocked in I/O wait for more than 143 seconds.", ReportKind.HUNG, "udevd"),
        (b"WARNING: possible circular locking dependency detected", ReportKind.CHECK, ""),
        (b"WARNING: suspicious RCU usage", ReportKind.CHECK, ""),
        (b"WARNING: HARDIRQ-safe -> HARDIRQ-unsafe lock order detected", ReportKind.CHECK, ""),
        (b"[ INFO: possible recursive locking detected ]", ReportKind.CHECK, ""),
    ],
)
def test_locks_and_tasks_that_wait_are_reports(line: bytes, kind: ReportKind, comm: str) -> None:
    report = one(b"[  610.334229][ T1478] " + line + b"\n[  610.366182][ T1478] Call trace:\n")
    assert (report.kind, report.comm) == (kind, comm)


@pytest.mark.parametrize(
    "line", [b"WARNING: RO_VPD is uninitialized or empty.", b"WARNING: region 0:", b"INFO: 0x1-0x2. First byte 0x98"]
)
def test_warnings_of_firmware_are_not_reports(line: bytes) -> None:
    assert not find_reports(line + b"\n", "log").reports


@pytest.mark.parametrize(
    "before",
    [
        "INFO: task ndctl:130 blocked for more than 120 seconds.",
        "WARNING: possible circular locking dependency detected",
    ],
)
def test_a_later_panic_is_not_a_part_of_what_does_not_panic(before: str) -> None:
    log = f"[   10.000000] {before}\n[  900.000000] Kernel panic - not syncing: {{}}\n"
    found = find_reports(log.format("VFS: Unable to mount root fs").encode(), "log")
    assert ReportKind.PANIC in {report.kind for report in found.reports}
    one_story = log.format("panic_on_warn set ..." if "WARN" in before else "hung_task: blocked tasks").encode()
    assert len(find_reports(one_story, "log").reports) == 1

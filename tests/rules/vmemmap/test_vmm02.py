"""VMM-02: Valid memory whose struct pages are not mapped."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from parsers.arm64 import PMD
from parsers.layout import KernelLayout
from parsers.uname import KernelRelease
from rules.engine import Outcome
from rules.finding import Claim, Severity
from tests.cases import CAPTURES, FIXTURES, case, case_file
from tests.rules.captures import begun_late, findings, verdict_in
from tests.rules.drawn import BLOCK, MIB, NORMAL, RAM, Drawn, memory_blocks
from tests.rules.dumps import pfns_of, struct_page_address, the_finding
from tests.rules.replays import LOST, audited, events
from tests.rules.vmemmap.machines import NVDIMM, all_pfns, namespaces, verdict_on


def test_a_trace_without_harm_proves_nothing():
    trace = FIXTURES / "captures" / "pmem-6.12-fixed" / "02-one-removed" / "trace"
    assert verdict_on("VMM-02", trace).outcome is Outcome.UNDECIDED


def test_sections_that_lost_their_struct_pages_are_reported_one_by_one(tmp_path):
    machine = namespaces((0, 128), (512, 640))
    machine = replace(machine, pages=machine.pages[:1])
    assert all_pfns(machine.verdict(tmp_path, "VMM-02")) == [[(0x80000, 0x88000)], [(0xA0000, 0xA8000)]]


def test_without_sections_the_linear_map_stands_for_them(tmp_path):
    machine = replace(namespaces((0, 128)), files={"iomem": ""})
    assert machine.verdict(tmp_path, "VMM-02").outcome is Outcome.UNDECIDED
    (finding,) = replace(machine, pages=machine.pages[:1]).verdict(tmp_path, "VMM-02").findings
    assert finding.severity is Severity.HIGH


def test_struct_pages_alone_prove_nothing(tmp_path):
    dump = Drawn().dump()
    files = {"iomem": "", "kernel_page_tables": dump[dump.index("---[ vmemmap start") :]}
    verdict = replace(Drawn(), files=files).verdict(tmp_path, "VMM-02")
    assert verdict.outcome is Outcome.UNDECIDED
    assert "section table" in verdict.reason


def test_an_oops_on_boot_memory_is_not_a_loss_to_hotplug(tmp_path):
    """The same oops, on a machine that had the memory at boot."""
    boot = case_file("OOP-01/quiet-boot", "dmesg").read_text()
    oops = (FIXTURES / "oops/pmem-6.12-vuln.txt").read_text()
    early = "[    0.000000]   node   0: [mem 0x0000000080000000-0x000000009fffffff]\n"
    for more, outcome in (("", Outcome.FIRED), (early, Outcome.UNDECIDED)):
        lines = boot.splitlines(keepends=True)
        last = max(at for at, line in enumerate(lines) if "node   0: [mem" in line)
        (tmp_path / "dmesg").write_text("".join([*lines[: last + 1], more, *lines[last + 1 :]]) + oops)
        assert verdict_on("VMM-02", tmp_path / "dmesg").outcome is outcome


def test_devices_that_nothing_lists_are_seen_in_the_linear_map(tmp_path):
    """Without iomem; the struct pages of the last block of RAM are gone too, which is reported once."""
    machine = namespaces((0, 128))
    files = {"iomem": "", "memory_blocks": memory_blocks(tuple(range(8, 16)))}
    rows = ((RAM, NVDIMM - 128 * MIB, "PMD", BLOCK),)
    machine = replace(machine, pages=rows, files=files, boot=((RAM, NVDIMM - 128 * MIB),))
    verdict = machine.verdict(tmp_path, "VMM-02")
    assert all_pfns(verdict) == [[(0x78000, 0x80000)], [(0x80000, 0x88000)]]


def test_devices_that_nothing_lists_need_a_whole_linear_map(tmp_path):
    files = {"iomem": "", "memory_blocks": memory_blocks(tuple(range(8, 16)))}
    machine = replace(Drawn(), files=files)
    assert machine.verdict(tmp_path, "VMM-02").outcome is Outcome.PASSED
    dump = machine.dump()
    lines = dump.splitlines(keepends=True)
    for part in (dump[dump.index("---[ vmemmap start") :], "".join(lines[:2] + lines[3:])):
        verdict = replace(machine, files=files | {"kernel_page_tables": part}).verdict(tmp_path, "VMM-02")
        assert verdict.outcome is Outcome.UNDECIDED
        assert verdict.reason.startswith("which device memory has struct pages is not known")


def test_memory_in_a_trace_and_in_the_blocks_is_not_an_unlisted_device(tmp_path):
    """Of boot section 8, too, the struct pages are gone; that is VMM-13's."""
    for file in case("VMM-02/fires").iterdir():
        if file.name not in {"iomem", "expected.json"}:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "vmcoreinfo").write_text(replace(Drawn(), release="6.12.117").vmcoreinfo(0))
    (tmp_path / "trace").write_bytes(case_file("WIT-01/quiet-damage", "trace").read_bytes())
    dump = (tmp_path / "kernel_page_tables").read_text()
    first = next(line for line in dump.splitlines() if line.startswith("0xfffffdffc1000000"))
    there = first.replace("c1000000-", "c1200000-").replace(" 4M", " 2M")
    gone = f"0xfffffdffc1000000-0xfffffdffc1200000 {'2M':>13} PMD"
    for changed in (dump, dump.replace(first, f"{gone}\n{there}")):
        (tmp_path / "kernel_page_tables").write_text(changed)
        (finding,) = verdict_on("VMM-02", tmp_path).findings
        assert finding.hit.title == "A removal took the struct pages of valid memory away"


def test_empty_entries_of_a_table_are_lost_where_sections_are_not_read_from_a_dump(tmp_path):
    files = {"memory_blocks": memory_blocks(tuple(range(8, 17)))}
    section = (NVDIMM, NVDIMM + 128 * MIB)
    rows = ((NVDIMM, NVDIMM + 64 * MIB, "PTE", NORMAL), (NVDIMM + 64 * MIB, NVDIMM + 128 * MIB, "PTE", ""))
    machine = replace(
        Drawn(),
        linear=(*Drawn().linear, (*section, "PMD", BLOCK)),
        pages=(*Drawn().pages, *rows),
        iomem=(*Drawn().iomem, (*section, "System RAM")),
        files=files,
    )
    assert all_pfns(machine.verdict(tmp_path, "VMM-02")) == [[(0x84000, 0x88000)]]


def test_a_cleared_block_of_hot_added_struct_pages(dimm):
    codes, verdicts = dimm.caused({dimm.entry(struct_page_address(0x88000), PMD): 0})
    assert codes == {"VMM-02"}
    finding = the_finding(verdicts, "VMM-02")
    assert (finding.hit.claim, finding.severity, pfns_of(finding)) == (
        Claim.PROVEN,
        Severity.CRITICAL,
        [(0x88000, 0x90000)],
    )


def test_a_block_of_struct_pages_that_is_not_valid(after, pmem):
    entry = pmem.entry(struct_page_address(0x80000), PMD)
    codes, verdicts = pmem.caused({entry: pmem.word(entry) & ~1})
    assert "VMM-02" in codes
    finding = the_finding(verdicts, "VMM-02")
    assert (finding.severity, finding.hit.claim) == (Severity.CRITICAL, Claim.PROVEN)
    assert "they were damaged" in finding.hit.message
    boot = after.entry(struct_page_address(0x48000), PMD)
    assert "VMM-13" in after.caused({boot: after.word(boot) & ~1})[0]


def test_evidence_of_lost_struct_pages_is_the_hole() -> None:
    (finding,) = findings("pmem-6.12-vuln/02-one-removed", "VMM-02")
    line = finding.hit.evidence[0]
    assert line.line is not None
    dump = CAPTURES / "pmem-6.12-vuln/02-one-removed/kernel_page_tables"
    assert dump.read_text().splitlines()[line.line - 1] == line.text
    # 0xfffffdffc0000000 + 0x80000 * 64: the hole begins before it and ends after it.
    start, end = (int(word, 16) for word in line.text.split()[0].split("-"))
    assert start <= 0xFFFFFDFFC2000000
    assert end >= 0xFFFFFDFFC2200000


AGAIN = case("VMM-02/fires-mapped-again-64k")


def test_a_trace_that_begins_later_shows_the_same_loss(tmp_path):
    """What is valid at the end and was added by no call of the trace was valid before the removal too."""
    shutil.copytree(AGAIN, tmp_path / "again")
    whole = audit(Request((AGAIN,)))
    (tmp_path / "again/trace").write_text(begun_late((AGAIN / "trace").read_text()))
    late = audit(Request((tmp_path / "again",)))

    def lost(report):
        return [(one.hit.pfns.tuples(), one.hit.claim) for one in report.findings if one.rule.code == "VMM-02"]

    assert lost(late) == lost(whole)
    assert [pfns for pfns, _ in lost(late)] == [[(0x8000, 0x8100), (0x8200, 0x8400)]]


def test_without_iomem_struct_pages_of_devices_are_missed_in_the_linear_map(changed_capture):
    """VMCOREINFO gives PHYS_OFFSET, so the memory blocks make a section table: no list names the namespaces."""
    info = b"PAGESIZE=65536\nNUMBER(VA_BITS)=48\nNUMBER(PHYS_OFFSET)=0x40000000\n"
    offset = audit(Request((CAPTURES / "pmem-6.12-64k/02-one-removed",))).facts.get(KernelLayout).phys_offset
    info = info.replace(b"0x40000000", b"%#x" % offset)
    report = changed_capture(
        "pmem-6.12-64k/02-one-removed", iomem=None, trace=None, dmesg=None, vmcoreinfo=lambda _: info
    )
    [lost] = [one for one in report.findings if one.rule.code == "VMM-02"]
    assert lost.hit.pfns.tuples() == [(0x8000, 0x8100), (0x8200, 0x8400)]
    assert lost.hit.claim is Claim.SUSPECTED


@pytest.mark.parametrize(
    ("moment", "freed", "removed"),
    [
        ("pmem-6.12-vuln/02-one-removed", "0xfffffdffc2080000-0xfffffdffc2100000", "0x82000000"),
        ("pmem-5.10-4k/02-one-removed", "0xfffffe0001e80000-0xfffffe0001f00000", "0x82000000"),
        ("pmem-6.12-64k/02-one-removed", "0xffffffdfc0204000-0xffffffdfc0208000", "0x81000000"),
        ("pmem-6.12-16k/02-one-removed", "0xffffffbfc0800000-0xffffffbfc0812000", "0x80000000"),
    ],
)
def test_lost_struct_pages_name_the_event_that_took_them(moment, freed, removed):
    found = [one for one in audited(CAPTURES / moment).findings if one.rule.code == "VMM-02"]
    assert found
    for finding in found:
        cause = finding.hit.cause
        assert cause.event == "vmemmap_free"
        assert freed in cause.text
        assert f"under arch_remove_memory of {removed} " in cause.text
        assert "stack: vmemmap_free < " in cause.text
        assert re.search(r" by ndctl-\d+ at \d+\.\d{6}", cause.text)


@pytest.mark.parametrize("boot", ["pmem-6.12-vuln", "pmem-6.12-64k", "pmem-6.12-16k", "pmem-5.10-4k"])
def test_trace_alone_predicts_the_same_damage(boot):
    with_tables = audited(CAPTURES / boot / "02-one-removed")
    alone = audited(CAPTURES / boot / "02-one-removed" / "trace")
    (seen,) = [one.hit.pfns for one in with_tables.findings if one.rule.code == "VMM-02"]
    predicted = [one.hit.pfns for one in alone.findings if one.rule.code == "VMM-02"]
    suspected = [one.hit.pfns for one in alone.findings if one.rule.code == "TRC-07"]
    # A kernel whose trace alone does not show how it populates is suspected.
    assert predicted == [seen] or (boot == "pmem-5.10-4k" and suspected == [seen])


@pytest.mark.parametrize(
    "boot", ["pmem-6.12-fixed", "pmem-mapdev-6.12-4k", "dimm-6.12-memmap-on-memory", "vmem-6.12-16k"]
)
def test_trace_alone_of_a_good_kernel_predicts_nothing(boot):
    for path in sorted((CAPTURES / boot).glob("*/trace")):
        assert audited(path).findings == []


def test_ring_buffer_dumped_into_the_log_is_replayed(tmp_path):
    lines = events(CAPTURES / "pmem-6.12-vuln" / "02-one-removed" / "trace")
    found = [re.match(r" *(\S+)-(\d+) +\[(\d+)\] (\S+) +(\d+)\.(\d+): (.*)", line).groups() for line in lines]
    dumped = [
        f"[    5.{number:06d}] {comm:>8.8}-{pid:<7} {int(cpu)}{flags} {int(s) * 10**6 + int(us)}us : {rest}"
        for number, (comm, pid, cpu, flags, s, us, rest) in enumerate(found)
    ]
    rule = "-" * 33
    log = [
        "[    0.000000] Linux version 6.12.117 (root@vm) (gcc 12.2.0) #2 SMP",
        "[    4.999990] Dumping ftrace buffer:",
        f"[    4.999991] {rule}",
        *dumped,
        f"[    5.900000] {rule}",
        "[    5.900001] Offlined Pages 32768",
    ]
    path = tmp_path / "serial.log"
    path.write_text("\n".join(log) + "\n")
    report = audited(path)
    assert LOST in [one.hit.pfns for one in report.findings if one.rule.code == "VMM-02"]
    assert report.facts.get(KernelRelease).raw == "6.12.117"


def test_a_leaf_that_others_share_may_have_been_mapped_again(changed_capture):
    """Two of three namespaces share a block; only a trace from their first day, or a dump, shows it was never torn."""
    home = "pmem-6.12-vuln/01-three-namespaces"
    assert verdict_in(changed_capture(home), "VMM-02").outcome is Outcome.PASSED


def halved(trace):
    return trace[: len(trace) // 2]


def headless(trace):
    """Nothing says how many entries it had."""
    return re.sub(rb"(?m)^#.*\n", b"", trace)


@pytest.mark.parametrize("change", [None, halved, headless])
def test_without_a_whole_trace_of_a_shared_leaf_nothing_is_decided(changed_capture, change):
    verdict = verdict_in(changed_capture("pmem-6.12-vuln/01-three-namespaces", trace=change), "VMM-02")
    assert verdict.outcome is Outcome.UNDECIDED
    assert "share leaves of struct pages" in verdict.reason

"""Captures with one file cut short, or taken from another machine or boot: rules are undecided, never wrong."""

import shutil
from pathlib import Path

import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from parsers.errors import UsageError
from parsers.layout import KernelLayout
from rules.engine import Outcome
from rules.finding import Claim, Severity
from tests.cases import case

CAPTURES = Path(__file__).parents[2] / "fixtures" / "captures"
VULNERABLE = "pmem-6.12-vuln/02-one-removed"
DIMM = "dimm-6.1-4k-kaslr-blocks/02-dimm-online"


@pytest.fixture
def changed(tmp_path):
    """Audits a capture in which files hold something else: bytes, or what another capture has; None for no file."""

    def audited(capture, **files):
        copy = tmp_path / "capture"
        shutil.copytree(CAPTURES / capture, copy)
        for name, content in files.items():
            if content is None:
                (copy / name).unlink()
            else:
                old = read(capture, name) if (CAPTURES / capture / name).exists() else b""
                (copy / name).write_bytes(content(old) if callable(content) else read(content, name))
        return audit(Request((copy,)))

    return audited


def read(capture, name):
    return (CAPTURES / capture / name).read_bytes()


def without_head(data):
    lines = data.splitlines(keepends=True)
    return b"".join(lines[len(lines) // 3 :])


def alarms(report):
    return {finding.rule.code for finding in report.findings if finding.severity >= Severity.HIGH}


def verdict(report, code):
    return next(one for one in report.verdicts if one.rule.code == code)


def test_a_log_without_its_head_does_not_tell_boot_memory(changed):
    """memory0 holds no-map memory only; without the first lines of the log it looked hot-added and torn."""
    report = changed(VULNERABLE, dmesg=without_head)
    assert b"node   0: [mem" in without_head(read(VULNERABLE, "dmesg"))
    assert verdict(report, "LIN-03").outcome is not Outcome.FIRED
    assert alarms(report) == alarms(changed_nothing(VULNERABLE))


def changed_nothing(capture):
    return audit(Request((CAPTURES / capture,)))


def test_boot_memory_that_iomem_does_not_know_is_another_boots(changed):
    def more_memory(data):
        return data.replace(b"0x000000004fffffff]", b"0x000000005fffffff]")

    report = changed(VULNERABLE, dmesg=more_memory)
    assert more_memory(read(VULNERABLE, "dmesg")) != read(VULNERABLE, "dmesg")
    assert verdict(report, "VMM-13").outcome is Outcome.UNDECIDED


def test_zones_that_are_not_listed_prove_nothing(changed):
    report = changed(DIMM, zoneinfo=lambda data: data[: data.index(b"zone  Movable")])
    assert verdict(report, "SEC-03").outcome is Outcome.UNDECIDED
    assert "cut short" in verdict(report, "SEC-03").reason


def test_zones_of_the_moment_before_prove_nothing(changed):
    """The blocks say that they are in zone Movable, and the zone is empty."""
    report = changed("two-dimms-one-offline-6.12-4k-80/01-both-there", zoneinfo="pmem-6.12-fixed/02-one-removed")
    assert verdict(report, "SEC-03").outcome is Outcome.UNDECIDED
    assert "has no start of zone Movable" in verdict(report, "SEC-03").reason


@pytest.mark.parametrize("kept", [slice(2), slice(1, None)], ids=["head", "tail"])
def test_a_configuration_cut_short_says_nothing_of_what_it_does_not_name(changed, kept):
    """The kernel has the optimisation; the line that says so is lost, and its struct pages are read-only."""
    menus = [b"# Linux/arm64 6.1.192 Kernel Configuration\n", b"# end of General setup\n", b"# end of Kernel hacking\n"]
    report = changed("hvo-6.1-4k/01-hvo-allocated", config=lambda _: b"CONFIG_ARM64_4K_PAGES=y\n".join(menus[kept]))
    assert "HVO-02" not in alarms(report)
    assert verdict(report, "HVO-02").outcome is Outcome.UNDECIDED
    assert "cut short" in verdict(report, "ATT-08").reason


def test_a_configuration_of_another_series_is_refused(changed):
    with pytest.raises(UsageError, match=r"two machines or two boots: the kernel series is 6\.12 in .* and 5\.10 in"):
        changed(VULNERABLE, config=lambda data: b"# Linux/arm64 5.10.262 Kernel Configuration\n" + data)


def test_configurations_of_other_kernels_installed_are_left_out(changed, tmp_path):
    """A host has one of each page size in /boot; the running kernel's bears its release."""
    own, others = read(VULNERABLE, "config"), read("pmem-6.12-64k/02-one-removed", "config")
    for name, data in {"6.12.117": own, "6.12.117+64k": others, "6.12.90": others}.items():
        (tmp_path / f"config-{name}").write_bytes(data)
    report = audit(Request((CAPTURES / VULNERABLE, *sorted(tmp_path.glob("config-*")))))
    assert report.sources.captured.config.page_size == 4096
    assert {Path(path).name for path in report.sources.ignored} >= {"config-6.12.117+64k", "config-6.12.90"}


def test_page_sizes_of_configuration_and_dump_disagree(changed):
    """Read with the wrong granule, a healthy kernel has torn leaves and broken contiguous runs everywhere."""
    report = changed(VULNERABLE, config="pmem-6.12-64k/02-one-removed", dmesg=None, trace=None)
    assert alarms(report) == set()
    reason = verdict(report, "VMM-02").reason
    assert "of another kernel: the dump's markers fit page_size 4096" in reason
    assert "says page_size 65536" in reason


def test_a_dump_of_another_generation_of_kernels(changed):
    report = changed(VULNERABLE, kernel_page_tables=DIMM, trace=None)
    assert alarms(report) == set()
    assert "kernels from 5.11 to 6.8, not of 6.12.117" in verdict(report, "VMM-02").reason


def test_a_trace_of_another_boot(changed):
    """Of the same kernel, but the linear map was elsewhere."""
    report = changed(VULNERABLE, trace="kaslr-pmem-6.12-4k-a72/02-one-removed")
    assert verdict(report, "TRC-07").outcome is Outcome.UNDECIDED
    assert "the trace is of another boot" in verdict(report, "TRC-07").reason


@pytest.mark.parametrize("end", [b"System R", b"9fffff"], ids=["name", "address"])
def test_a_list_of_resources_that_ends_early_proves_no_absence(changed, end):
    """The line of the hot-added memory is half there."""

    def upto(data):
        return data[: data.index(end, data.index(b"80000000-9fffffff : System RAM\n")) + len(end)]

    report = changed(DIMM, iomem=upto)
    assert alarms(report) == set()
    assert verdict(report, "SEC-04").outcome is Outcome.UNDECIDED
    assert "cut short" in verdict(report, "SEC-04").reason


def test_a_list_that_lost_its_last_line_end_is_whole(changed):
    report = changed(DIMM, iomem=lambda data: data.rstrip(b"\n"))
    assert verdict(report, "SEC-04").outcome is Outcome.PASSED


@pytest.mark.parametrize("lacking", ["iomem", "memory_blocks"])
def test_memory_that_one_list_does_not_have_is_suspected_at_most(changed, lacking):
    """A DIMM that was unplugged between two files of the capture: nothing maps it, and one list still has it."""
    before = "dimm-6.12-16k/04-dimm-removed"
    report = changed("dimm-6.12-16k/02-dimm-online", kernel_page_tables=before, trace=None, **{lacking: before})
    torn = [one for one in report.findings if one.rule.code in {"LIN-03", "VMM-02"}]
    assert {one.hit.claim for one in torn} == {Claim.SUSPECTED}
    assert "SEC-04" in alarms(report)


AGAIN = case("VMM-02/fires-mapped-again-64k")


def begun_late(trace):
    """The trace from the first removal on: everything there was added before."""
    head, lines = trace.splitlines(keepends=True)[:1], trace.splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if "arch_remove_memory: " in line)
    return "".join(head + lines[first:])


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


@pytest.mark.parametrize("moment", ["pmem-6.12-fixed/02-one-removed", "dimm-6.12-16k/04-dimm-removed"])
def test_a_trace_that_begins_later_makes_no_alarm(changed, moment):
    report = changed(moment, trace=lambda data: begun_late(data.decode()).encode())
    assert verdict(report, "TRC-07").outcome is not Outcome.ERROR
    assert alarms(report) == set()


def test_a_list_of_resources_that_begins_with_a_child_lost_its_head(changed):
    report = changed(DIMM, iomem=lambda data: data[data.index(b"  ") :])
    assert "cut short" in verdict(report, "SEC-04").reason


def test_without_iomem_struct_pages_of_devices_are_missed_in_the_linear_map(changed):
    """VMCOREINFO tells PHYS_OFFSET, so the memory blocks make a section table: no list names the namespaces."""
    info = b"PAGESIZE=65536\nNUMBER(VA_BITS)=48\nNUMBER(PHYS_OFFSET)=0x40000000\n"
    offset = audit(Request((CAPTURES / "pmem-6.12-64k/02-one-removed",))).facts.get(KernelLayout).phys_offset
    info = info.replace(b"0x40000000", b"%#x" % offset)
    report = changed("pmem-6.12-64k/02-one-removed", iomem=None, trace=None, dmesg=None, vmcoreinfo=lambda _: info)
    [lost] = [one for one in report.findings if one.rule.code == "VMM-02"]
    assert lost.hit.pfns.tuples() == [(0x8000, 0x8100), (0x8200, 0x8400)]
    assert lost.hit.claim is Claim.SUSPECTED


def test_vmcoreinfo_of_another_boot_does_not_move_the_linear_map(changed):
    info = b"OSRELEASE=6.12.117\nPAGESIZE=4096\nNUMBER(VA_BITS)=48\nNUMBER(PHYS_OFFSET)=0xffffa50080000000\n"
    report = changed(VULNERABLE, trace=None, vmcoreinfo=lambda _: info)
    assert alarms(report) == set()
    assert "the dump is of another boot: it fits PHYS_OFFSET 0x0, VMCOREINFO says" in verdict(report, "LIN-03").reason

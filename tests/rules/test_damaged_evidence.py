"""Captures with one file cut short, or taken from another machine or boot: rules are undecided, never wrong."""

from pathlib import Path

import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from parsers.errors import UsageError
from rules.engine import Outcome
from rules.finding import Claim
from tests.cases import CAPTURES
from tests.rules.captures import DIMM, VULNERABLE, alarms, file_of, verdict_in


@pytest.mark.parametrize("kept", [slice(2), slice(1, None)], ids=["head", "tail"])
def test_a_truncated_configuration_leaves_open_what_it_does_not_name(changed_capture, kept):
    """The kernel has the optimisation; the line that says so is lost, and its struct pages are read-only."""
    menus = [b"# Linux/arm64 6.1.192 Kernel Configuration\n", b"# end of General setup\n", b"# end of Kernel hacking\n"]
    report = changed_capture(
        "hvo-6.1-4k/01-hvo-allocated", config=lambda _: b"CONFIG_ARM64_4K_PAGES=y\n".join(menus[kept])
    )
    assert "HVO-02" not in alarms(report)
    assert verdict_in(report, "HVO-02").outcome is Outcome.UNDECIDED
    assert "cut short" in verdict_in(report, "ATT-08").reason


def test_a_configuration_of_another_series_is_refused(changed_capture):
    with pytest.raises(UsageError, match=r"two machines or two boots: the kernel series is 6\.12 in .* and 5\.10 in"):
        changed_capture(VULNERABLE, config=lambda data: b"# Linux/arm64 5.10.262 Kernel Configuration\n" + data)


def test_configurations_of_other_kernels_installed_are_left_out(changed_capture, tmp_path):
    """A host has one of each page size in /boot; the running kernel's bears its release."""
    own, others = file_of(VULNERABLE, "config"), file_of("pmem-6.12-64k/02-one-removed", "config")
    for name, data in {"6.12.117": own, "6.12.117+64k": others, "6.12.90": others}.items():
        (tmp_path / f"config-{name}").write_bytes(data)
    report = audit(Request((CAPTURES / VULNERABLE, *sorted(tmp_path.glob("config-*")))))
    assert report.sources.captured.config.page_size == 4096
    assert {Path(path).name for path in report.sources.ignored} >= {"config-6.12.117+64k", "config-6.12.90"}


def test_page_sizes_of_configuration_and_dump_disagree(changed_capture):
    """Read with the wrong granule, a healthy kernel has torn leaves and broken contiguous runs everywhere."""
    report = changed_capture(VULNERABLE, config="pmem-6.12-64k/02-one-removed", dmesg=None, trace=None)
    assert alarms(report) == set()
    reason = verdict_in(report, "VMM-02").reason
    assert "of another kernel: the dump's markers fit page_size 4096" in reason
    assert "says page_size 65536" in reason


def test_a_dump_of_another_generation_of_kernels(changed_capture):
    report = changed_capture(VULNERABLE, kernel_page_tables=DIMM, trace=None)
    assert alarms(report) == set()
    assert "kernels from 5.11 to 6.8, not of 6.12.117" in verdict_in(report, "VMM-02").reason


def test_a_trace_of_another_boot(changed_capture):
    """Of the same kernel, but the linear map was elsewhere."""
    report = changed_capture(VULNERABLE, trace="kaslr-pmem-6.12-4k-a72/02-one-removed")
    assert verdict_in(report, "TRC-07").outcome is Outcome.UNDECIDED
    assert "the trace is of another boot" in verdict_in(report, "TRC-07").reason


@pytest.mark.parametrize("lacking", ["iomem", "memory_blocks"])
def test_memory_that_one_list_does_not_have_is_suspected_at_most(changed_capture, lacking):
    """A DIMM that was unplugged between two files of the capture: nothing maps it, and one list still has it."""
    before = "dimm-6.12-16k/04-dimm-removed"
    report = changed_capture("dimm-6.12-16k/02-dimm-online", kernel_page_tables=before, trace=None, **{lacking: before})
    torn = [one for one in report.findings if one.rule.code in {"LIN-03", "VMM-02"}]
    assert {one.hit.claim for one in torn} == {Claim.SUSPECTED}
    assert "SEC-04" in alarms(report)

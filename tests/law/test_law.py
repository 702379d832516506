"""A sample of the laws; all of them is ``python -m tests.law`` (CONTRIBUTING.md)."""

from __future__ import annotations

import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from parsers.errors import FormatError
from rules.engine import Outcome
from rules.finding import Severity
from tests.cases import FIXTURES
from tests.law.damage import DAMAGES, Case, severe_rules, violations
from tests.law.dumps import damaged_dumps
from tests.law.fixtures import Fixture, fixtures

LISTS = (
    "removed",
    "emptied",
    "zeroed",
    "cut at 75 %",
    "cut at a line, 75 %",
    "thinned to 1 of 2 lines",
    "without its head",
)
SAMPLE = [
    ("captures/pmem-6.12-vuln/02-one-removed", "iomem", LISTS),
    ("captures/pmem-6.12-64k/02-one-removed", "iomem", LISTS),
    ("captures/pmem-6.12-64k/02-one-removed", "kernel_page_tables", ("cut at a line, 50 %", "thinned to 1 of 2 lines")),
    ("captures/pmem-6.12-16k-cross/01-namespaces", "iomem", ("cut at a line, 75 %", "thinned to 1 of 2 lines")),
    ("captures/pmem-6.12-64k-va52/02-one-removed", "iomem", ("removed", "error page", "cut at 95 %")),
    ("captures/hvo-6.1-4k/03-all-freed", "cmdline", ("removed", "error page", "cut at 25 %")),
    ("captures/hvo-6.1-4k/03-all-freed", "config", ("removed", "cut at a line, 50 %", "without its head")),
    ("captures/two-dimms-one-offline-6.12-4k-80/03-one-removed", "iomem", ("cut at a line, 95 %", "removed")),
    ("captures/two-dimms-one-offline-6.12-4k-80/01-both-there", "memory_blocks", ("removed", "without its head")),
    ("captures/pmem-7.3-64k/01-namespaces", "memory_blocks", ("removed", "cut at 50 %")),
    ("rules/OOP-01/fires-oops-alone", "dmesg", tuple(DAMAGES)),
    ("rules/OOP-05/fires", "dmesg", ("cut at a line, 75 %", "thinned to 2 of 3 lines", "without its middle")),
    ("rules/ATT-05/fires", "dmesg", ("cut at 75 %", "cut at a line, 75 %", "without its middle")),
    ("field", "m14.txt", tuple(DAMAGES)),
    ("rules/HVO-04/fires-block", "config", ("cut at 50 %", "cut at a line, 75 %", "without its middle")),
    ("rules/HVO-01/fires-switched-off", "kernel_page_tables", ("removed", "cut at a line, 25 %")),
    ("rules/TRC-07/fires", "trace", ("thinned to 2 of 3 lines", "cut at 75 %", "without its head")),
    ("rules/TRC-03/fires", "trace", ("cut at a line, 75 %", "thinned to 1 of 2 lines", "without its head")),
    ("rules/TRC-06/fires", "trace", ("without its middle",)),
    ("rules/TRC-11/fires", "trace", ("cut at 25 %", "without its middle")),
    ("rules/VMM-02/fires-mapped-again-64k", "trace", ("removed", "zeroed", "cut at a line, 50 %")),
    ("rules/WIT-01/fires", "trace", ("removed", "cut at 75 %")),
    ("rules/MOM-12/fires", "dmesg", ("cut at 95 %", "cut at a line, 50 %")),
    ("rules/MOM-12/fires", "iomem", ("cut at a line, 50 %",)),
    ("rules/SEC-03/fires", "iomem", ("removed", "cut at a line, 25 %", "thinned to 1 of 2 lines")),
    ("rules/SEC-03/fires-other-zone", "memory_blocks", ("cut at 75 %",)),
    ("rules/SEC-03/fires-other-node", "memory_nodes", ("removed",)),
    ("rules/MOM-12/fires", "memory_blocks", ("without its middle",)),
    ("rules/LIN-07/fires", "iomem", ("cut at a line, 25 %", "without its middle")),
    ("rules/ENV-03/fires", "memory_blocks", ("cut at a line, 25 %",)),
    ("rules/ENV-06/fires-80-bytes", "kernel_page_tables", ("without its middle",)),
    ("kcore/namespaces.kcore", "iomem", ("cut at 50 %", "thinned to 1 of 2 lines")),
    ("kcore/shared-block.kcore", "iomem", ("cut at a line, 50 %",)),
    ("rules/CNT-05/fires-no-log", "earlier_page_tables", ("without its head", "thinned to 1 of 2 lines")),
    ("rules/TBL-03/fires", "earlier_page_tables", ("removed", "cut at 75 %", "without its head")),
    ("rules/TBL-03/fires", "kernel_page_tables", ("removed", "zeroed", "cut at a line, 95 %")),
    ("rules/SEC-02/fires-online", "memory_blocks", ("removed", "cut at 25 %", "cut at a line, 95 %")),
    ("rules/VMM-13/fires-twice", "memory_blocks", ("cut at a line, 50 %", "without its middle")),
    ("rules/SEC-03/fires-other-zone", "zoneinfo", ("without its middle",)),
    ("rules/SEC-03/fires-other-node", "memory_blocks", ("thinned to 2 of 3 lines", "thinned to 1 of 2 lines")),
    ("rules/MOM-12/fires", "iomem", ("thinned to 2 of 3 lines",)),
    ("rules/LIN-06/fires-valid", "iomem", ("cut at a line, 95 %",)),
    ("rules/OOP-04/fires-real", "iomem", ("cut at a line, 25 %", "cut at a line, 95 %")),
    ("rules/OOP-06/fires", "dmesg", ("without its middle",)),
    ("rules/HVO-04/quiet-64k", "config", ("without its middle",)),
    ("rules/ATT-10/fires", "dmesg", ("cut at a line, 50 %",)),
    ("rules/CNT-07/fires", "dmesg", ("cut at a line, 25 %",)),
]


GONE = (
    "struct pages excluded",
    "struct pages zeroed",
    "pages 1/8 excluded",
    "pages 1/8 zeroed",
    "section table excluded",
    "subsection maps excluded",
    "subsection maps zeroed",
    "tables of level 2 zeroed",
    "the last table zeroed",
)


def damaged(folder, core, gone):
    """A core without some of its pages."""
    parts = damaged_dumps(FIXTURES / f"vmcore/{core}.core.zst")
    (folder / "core").write_bytes(next(data for what, data in parts if what == gone))
    return folder / "core"


@pytest.mark.parametrize("gone", GONE)
def test_a_dump_without_the_pages_that_a_rule_reads_does_not_reassure(tmp_path, gone):
    verdicts = audit(Request((damaged(tmp_path, "pmem-6.12-readded", gone),)), only=("VMM-01", "VMM-02")).verdicts
    assert not {one.outcome for one in verdicts} & {Outcome.PASSED, Outcome.NOT_APPLICABLE}


@pytest.mark.parametrize(("fixture", "file", "damages"), SAMPLE, ids=lambda one: one if isinstance(one, str) else "")
def test_a_rule_that_fired_does_not_reassure_when_evidence_is_damaged(fixture, file, damages):
    case = Case(next(one for one in fixtures() if one.name.startswith(fixture) and file in one.files), file)
    fired = severe_rules(case.fixture)
    assert fired
    assert [str(one) for one in violations(case, fired, damages)] == []


QUIET = [
    ("captures/pmem-6.12-fixed/02-one-removed", "iomem", ("cut at a line, 75 %", "thinned to 2 of 3 lines")),
    ("captures/pmem-6.12-fixed/02-one-removed", "iomem", ("without its middle", "without its head")),
    ("captures/pmem-6.12-fixed/02-one-removed", "memory_blocks", ("cut at 50 %", "thinned to 1 of 2 lines")),
    ("captures/dimm-5.10-4k/02-dimm-online", "zoneinfo", ("cut at a line, 75 %",)),
    ("captures/dimm-6.12/01-dimm-added-offline", "iomem", ("cut at a line, 75 %",)),
    ("captures/dimm-6.12/02-dimm-online", "memory_blocks", ("removed", "emptied", "cut at a line, 95 %")),
    ("captures/dimm-6.12/02-dimm-online", "kernel_page_tables", ("cut at 50 %", "zeroed", "without its middle")),
    ("captures/dimm-6.1-4k-kaslr-blocks/04-dimm-removed", "trace", ("without its middle", "thinned to 1 of 2 lines")),
    ("captures/kmem-6.12-4k-mom/02-system-ram", "trace", ("thinned to 1 of 2 lines",)),
    ("rules/TRC-10/quiet", "trace", ("thinned to 1 of 2 lines",)),
    ("rules/HVO-07/undecided", "trace", ("without its middle",)),
    ("whatif/selfhosted-7.3-4k/02-online", "cmdline", ("removed",)),
    ("rules/CNT-05/quiet-bbml2", "dmesg", ("removed", "cut at a line, 75 %")),
    ("rules/ENV-03/quiet", "kernel_page_tables", ("cut at 50 %",)),
    ("rules/ATT-10/quiet-a-page", "dmesg", ("cut at 75 %",)),
    ("rules/MOM-14/quiet", "dmesg", ("without its head",)),
    ("pairs/pmem-6.12-fixed", "before/kernel_page_tables", ("removed", "cut at a line, 75 %", "without its middle")),
    ("pairs/pmem-6.12-fixed", "after/kernel_page_tables", ("removed", "emptied", "cut at a line, 50 %")),
    ("rules/CNT-05/quiet-added", "kernel_page_tables", ("removed", "zeroed", "error page")),
    ("rules/CNT-05/quiet-bbml2", "dmesg", ("thinned to 1 of 2 lines",)),
    ("rules/ENV-03/quiet-7.3-4k-software-tags", "kernel_page_tables", ("thinned to 1 of 2 lines",)),
    ("rules/ENV-03/quiet-software-tags", "kernel_page_tables", ("thinned to 2 of 3 lines",)),
    ("rules/LIN-03/quiet-crash-kernel", "memory_blocks", ("thinned to 2 of 3 lines",)),
    ("rules/LIN-01/quiet-end-of-ram-inside-a-leaf", "dmesg", ("thinned to 2 of 3 lines", "without its middle")),
    ("rules/CNT-04/undecided-no-iomem", "dmesg", ("thinned to 2 of 3 lines",)),
    ("rules/VMM-01/quiet-whole-section", "iomem", ("cut at a line, 95 %", "thinned to 2 of 3 lines")),
    ("rules/VMM-01/quiet-tail-of-boot-section", "iomem", ("cut at a line, 95 %",)),
    ("rules/VMM-05/quiet-boot-memory", "kernel_page_tables", ("thinned to 2 of 3 lines", "without its middle")),
]
MACHINE = "dimm-6.12-mixed-online"
ZEROED = ("section table", "subsection maps", "memory blocks", "tables of level 2", "the last table", "pages 8/8")


@pytest.mark.parametrize(("fixture", "file", "damages"), QUIET, ids=lambda one: one if isinstance(one, str) else "")
def test_nothing_severe_is_reported_of_a_sound_machine_when_evidence_is_damaged(fixture, file, damages):
    case = Case(next(one for one in fixtures() if one.name.startswith(fixture) and file in one.files), file)
    assert severe_rules(case.fixture) == set()
    assert [str(one) for one in violations(case, set(), damages)] == []


@pytest.mark.parametrize(
    "gone", [*(f"{what} zeroed" for what in ZEROED), "pages 8/8 excluded", "kdump, symbols and types excluded"]
)
def test_nothing_severe_is_reported_of_a_sound_machine_whose_dump_lacks_pages(tmp_path, gone):
    report = audit(Request((damaged(tmp_path, MACHINE, gone),)))
    assert [one.hit.title for one in report.findings if one.severity >= Severity.HIGH] == []


LARGE_PAGES = ("even pages", "odd pages", "every page of 2", "holes of 64 KiB, 2/3")


@pytest.mark.parametrize("gone", [f"{what} zeroed" for what in LARGE_PAGES])
@pytest.mark.parametrize("core", ["kernel-zone-7.3.kcore", "namespaces.hypervisor"])
def test_nothing_severe_is_reported_where_holes_are_smaller_than_a_page(tmp_path, core, gone):
    """A page of 16K is four parts of a file with holes."""
    parts = damaged_dumps(FIXTURES / f"kcore/{core}.zst")
    (tmp_path / "core").write_bytes(next(data for what, data in parts if what == gone))
    report = audit(Request((tmp_path / "core",)))
    assert [one.hit.title for one in report.findings if one.severity >= Severity.HIGH] == []


@pytest.mark.parametrize("what", ["kimage_voffset of another boot", "PHYS_OFFSET of another boot"])
@pytest.mark.parametrize("core", ["pmem-6.12-vuln-after", "dimm-6.12-mixed-online", "pmem-6.12-64k-namespaces"])
def test_a_dump_with_the_vmcoreinfo_of_another_boot_is_refused(tmp_path, core, what):
    with pytest.raises(FormatError, match="of another boot"):
        audit(Request((damaged(tmp_path, core, what),)))


def test_removing_the_log_beside_a_dump_or_the_dump_does_not_reassure():
    """The dump's page tables show what the log's oops reports, and either is enough."""
    fixture = next(one for one in fixtures() if one.name == "vmcore/pmem-6.12-vuln-after.core")
    fired = severe_rules(fixture)
    assert fired
    for file in fixture.files:
        assert [str(one) for one in violations(Case(fixture, file), fired, ("removed", "emptied", "zeroed"))] == []


CUT = [name for name in DAMAGES if name.startswith(("cut", "thinned", "without"))]


def test_a_damaged_log_of_the_crash_beside_a_dump_does_not_reassure():
    """The dump has a log of its own, without the oops."""
    files = {"core": FIXTURES / "vmcore/pmem-6.12-vuln-after.core.zst", "log.txt": FIXTURES / "oops/pmem-6.12-vuln.txt"}
    fixture = Fixture("a dump and a log", files)
    fired = severe_rules(fixture)
    assert "OOP-01" in fired
    assert [str(one) for one in violations(Case(fixture, "log.txt"), fired, CUT)] == []

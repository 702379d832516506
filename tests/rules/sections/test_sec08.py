"""SEC-08: Memory that the kernel booted with went offline, or has lost the mark that keeps it from being removed."""

from dataclasses import replace

import numpy as np
import pytest

from parsers.dmesg import parse_dmesg
from parsers.vmcore.rows import SectionRows
from rules.engine import Outcome
from rules.finding import Severity
from tests.rules.dumps import EARLY, NOWHERE, facts_of, proven, verdict_about
from tests.rules.logs import STEPS


def test_boot_memory_that_lost_its_mark(dimm):
    codes, verdicts = dimm.caused(dimm.flags(9, take=EARLY))
    assert "SEC-08" in codes
    assert proven(verdicts, "SEC-08", Severity.HIGH) == [(9 << 15, 10 << 15)]


def test_boot_memory_that_lost_all_its_marks(dimm):
    rows = facts_of(dimm).get(SectionRows)
    lost = rows.section_nr == 9
    changed = replace(rows, present=rows.present & ~lost, early=rows.early & ~lost)
    (finding,) = verdict_about("SEC-08", facts_of(dimm, changed)).findings
    assert finding.hit.pfns.tuples() == [(9 << 15, 10 << 15)]


def test_sections_without_their_table_leave_boot_memory_open(dimm):
    log = boot_log((0x40000000, 0x80000000))
    assert verdict_about("SEC-08", facts_of(dimm, log)).outcome is Outcome.FIRED
    for left_out in ("SectionTable", "SectionRows"):
        assert verdict_about("SEC-08", facts_of(dimm, log), **{left_out: None}).outcome is Outcome.PASSED


def boot_log(last):
    return parse_dmesg(
        b"[    0.000000] Linux version 6.12.117 (root@vm) #1 SMP\n[    0.000000] Early memory node ranges\n"
        b"[    0.000000]   node   0: [mem 0x%016x-0x%016x]\n[    0.000000] Kernel command line: nokaslr\n"
        % last
        + b"".join(b"[    0.600000] %s\n" % step.encode() for step in STEPS),
        "dmesg",
    )


@pytest.mark.parametrize(
    ("memory", "sections"),
    [
        ((0x40000000, 0x7FFFFFFF), []),  # ends where the DIMM begins
        ((0x40000000, 0x80000000), [(16 << 15, 17 << 15)]),
        ((NOWHERE << 27, (NOWHERE + 1 << 27) - 1), []),  # not present
    ],
)
def test_the_log_says_which_sections_are_boot_memory(dimm, memory, sections):
    verdict = verdict_about("SEC-08", facts_of(dimm, boot_log(memory)))
    assert [lo for one in verdict.findings for lo in one.hit.pfns.tuples()] == sections


def test_kernels_that_do_not_mark_sections(dimm):
    """Without the flag (before 5.12, before 5.3) nothing follows from it."""
    facts = facts_of(dimm)
    rows = facts.get(SectionRows)
    flags = {"SECTION_MARKED_PRESENT": 1, "SECTION_HAS_MEM_MAP": 2, "SECTION_IS_ONLINE": 4}
    unmarked = replace(rows, flags=flags, early=np.zeros(len(rows), dtype=np.bool_))
    changed = facts_of(dimm, unmarked, boot_log((0x40000000, 0x5FFFFFFF)))
    assert verdict_about("SEC-08", changed).outcome is Outcome.PASSED
    assert verdict_about("SEC-09", changed).outcome is Outcome.NOT_APPLICABLE

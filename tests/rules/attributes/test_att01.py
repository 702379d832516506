"""ATT-01: Kernel memory is writable and executable."""

from __future__ import annotations

import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from rules.engine import Outcome
from rules.finding import Severity
from tests.cases import FIXTURES
from tests.rules.attributes.machines import HALF, outcome
from tests.rules.drawn import BLOCK, GIB, RAM, Drawn

WX = "RW x  SHD AF        BLK UXN    MEM/NORMAL"


@pytest.mark.parametrize(
    ("cmdline", "expected"),
    [("", Outcome.FIRED), ("console=ttyAMA0\n", Outcome.FIRED), ("rodata=off\n", Outcome.NOT_APPLICABLE)],
)
def test_writable_and_executable_memory(tmp_path, cmdline, expected):
    """Without a log, which holds the command line too."""
    machine = Drawn(linear=((RAM, HALF, "PMD", BLOCK), (HALF, RAM + GIB, "PMD", WX)), files={"cmdline": cmdline})
    assert outcome(machine, tmp_path, "ATT-01") is expected


@pytest.mark.parametrize(("protected", "severity"), [("1M", Severity.HIGH), ("4K", Severity.MEDIUM)])
def test_text_that_is_never_protected_may_be_what_rodata_off_leaves(tmp_path, protected, severity):
    """Without the command line; the trampolines stay read-only."""
    home = FIXTURES / "whatif/selfhosted-7.3-4k/02-online"
    for name in ("uname", "iomem", "memory_blocks"):
        (tmp_path / name).write_bytes((home / name).read_bytes())
    dump = (home / "kernel_page_tables").read_text()
    row = "0xffff8000813dd000-0xffff8000813de000           4K PTE       ro x"
    assert row in dump
    if protected == "1M":
        dump = dump.replace(row, "0xffff8000813dd000-0xffff8000814dd000           1M PTE       ro x")
    (tmp_path / "kernel_page_tables").write_text(dump)
    (verdict,) = audit(Request((tmp_path,)), only=["ATT-01"]).verdicts
    assert [one.severity for one in verdict.findings] == [severity]

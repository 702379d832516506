"""A log that a crash ended: die() jumps to the crash kernel before it prints "end trace"."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from parsers.dmesg import parse_dmesg
from parsers.vmcore.texts import until_the_crash
from rules.engine import Outcome, builtin_rules, run
from rules.model.captured import Captured, build_facts
from tests.rules.logs import STEPS
from tests.rules.patched import Machine

OOPS = Path(__file__).parents[3] / "fixtures" / "oops" / "pmem-6.12-vuln.txt"
BANNER = (
    "[    0.000000] Linux version 6.12.117 (root@vm) (gcc 12.2.0) #2 SMP\n"
    "[    0.000000] Kernel command line: console=ttyAMA0\n" + "".join(f"[    0.659318] {step}\n" for step in STEPS)
)
JUMP = "[   99.000001] SMP: stopping secondary CPUs\n[   99.000002] Starting crashdump kernel...\n[   99.000003] Bye!\n"
RULES = [f"OOP-{number:02}" for number in range(1, 22)]


def log(*, end: str) -> str:
    """The boot and the oops up to where die() asks whether there is a crash kernel."""
    text = BANNER + OOPS.read_text()
    first = text[: text.index("---[ end trace")]
    return first[: first.rindex("\n") + 1] + end


def outcomes(folder: Path, text: str) -> dict[str, Outcome]:
    (folder / "dmesg").write_text(text)
    return {one.rule.code: one.outcome for one in audit(Request((folder,)), only=("OOP",)).verdicts}


def test_crash_kernel_ends_the_report(tmp_path):
    whole = outcomes(tmp_path, BANNER + OOPS.read_text())
    assert Outcome.FIRED in whole.values()
    assert outcomes(tmp_path, log(end=JUMP)) == whole


def test_log_that_is_merely_cut_decides_no_less_and_no_more(tmp_path):
    cut = outcomes(tmp_path, log(end=""))
    assert cut["OOP-01"] is Outcome.FIRED
    assert Outcome.PASSED not in {cut[code] for code in ("OOP-03", "OOP-09", "OOP-12")}


@pytest.mark.parametrize("end", ["", JUMP])
def test_last_report_of_the_log_in_a_dump_is_whole(end):
    dump = Machine("pmem-6.12-vuln-after.core.zst").dump()
    crashed = until_the_crash(parse_dmesg(log(end=end).encode(), "vmcore"))
    dump = replace(dump, texts=replace(dump.texts, log=crashed))
    facts = build_facts(Captured(vmcore=dump))
    found = {one.rule.code: one.outcome for one in run(builtin_rules(), facts)}
    assert found["OOP-01"] is Outcome.FIRED
    assert {code for code in RULES if found[code] is Outcome.UNDECIDED} == set()

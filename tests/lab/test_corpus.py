"""The corpus that a kernel under test is played: its entries, and the KTAP of what comes of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from fixtures.lab.explore import __main__ as program
from fixtures.lab.explore.__main__ import MACHINES
from fixtures.lab.explore.corpus import Entry, Outcome, corpus, ktap, outcome
from fixtures.lab.explore.operations import parse
from fixtures.lab.explore.referees import Blame, Case
from fixtures.lab.explore.sequence import Played

ENTRIES = corpus()
TEST = Entry(
    "two-dimms", "…", "dimm", (parse("plug d1 128M 0x100000000"), parse("unplug d1")), bug="VMM-05: since 5.12"
)


def played(*cases):
    return Played(operations=list(TEST.steps), cases=list(cases))


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda one: one.name)
def test_entry_can_be_played(entry):
    verbs = set(MACHINES[entry.machine]["verbs"])
    assert {inner.verb for step in entry.steps for inner in step.every} <= verbs
    assert set(entry.pages) <= {"4k", "16k", "64k"}
    assert entry.what


def test_every_known_bug_has_an_entry():
    page = (Path(__file__).parents[2] / "docs/kernel-findings.md").read_text()
    bugs = {entry.bug.partition(":")[0] for entry in ENTRIES if entry.bug}
    assert {"VMM-05", "VMM-06", "VMM-14", "LIN-04", "MOM-14", "d4234d131b0a"} <= bugs
    assert all(bug in page for bug in bugs)


def test_passed_test_is_one_line():
    assert list(ktap(3, outcome(TEST, played()))) == ["ok 3 two-dimms"]


def test_kernels_case_fails_a_test_and_names_the_known_bug():
    case = Case("findings", Blame.KERNEL, "VMM-05", "VMM-05 high:\nTwo sections in a block", 2, "VMM-05")
    assert list(ktap(1, outcome(TEST, played(case)))) == [
        "# kernel, findings: VMM-05 after step 2, unplug d1: VMM-05 high: Two sections in a block",
        "# known bug: VMM-05: since 5.12",
        "not ok 1 two-dimms",
    ]


def test_known_bug_of_another_test_is_named():
    case = Case("findings", Blame.KERNEL, "VMM-01", "VMM-01 high: One block", 1, "d4234d131b0a")
    assert "# known bug: d4234d131b0a: 5.12 to 6.13, 6.12.19" in ktap(1, outcome(TEST, played(case)))


def test_another_case_is_not_blamed_on_the_known_bug_of_its_test():
    case = Case("findings", Blame.KERNEL, "VMM-02", "VMM-02 critical:\nStruct pages are gone", 2, "")
    assert list(ktap(1, outcome(TEST, played(case)))) == [
        "# kernel, findings: VMM-02 after step 2, unplug d1: VMM-02 critical: Struct pages are gone",
        "not ok 1 two-dimms",
    ]


def test_allocations_that_a_test_lets_fail_are_made_on_its_machine():
    failing = [one for one in ENTRIES if "failing vmemmap_populate" in str(one.steps[0])]
    assert failing
    assert all("memmap_on_memory" not in MACHINES[one.machine].get("command_line", "") for one in failing)


def test_tools_case_is_a_remark():
    case = Case("log", Blame.TOOL, "x failed", "no finding quotes: x failed", 1)
    *remarks, result = ktap(1, outcome(TEST, played(case)))
    assert result == "ok 1 two-dimms"
    assert remarks == ["# tool, log: x failed after step 1, plug d1 128M 0x100000000: no finding quotes: x failed"]


def test_skipped_test_says_why():
    assert list(ktap(2, Outcome(TEST, ok=True, skipped="no fail_page_alloc"))) == [
        "ok 2 two-dimms # SKIP no fail_page_alloc"
    ]


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        ({1: "Error: no devdax mode\n@refused create:33554432\n\nstatus 0"}, "Error: no devdax mode"),
        ({1: "", 2: "x"}, "no word of why"),
    ],
)
def test_test_without_its_memory_is_skipped_and_not_passed(refused, said):
    result = outcome(TEST, Played(operations=list(TEST.steps), refused=refused))
    assert list(ktap(1, result)) == [f"ok 1 two-dimms # SKIP step 1, plug d1 128M 0x100000000, changed nothing: {said}"]


def test_memory_that_the_kernel_lost_is_its_case_and_no_skip():
    case = Case("findings", Blame.KERNEL, "OOP-24", "OOP-24 medium: the add failed", 1)
    result = outcome(TEST, Played(operations=list(TEST.steps), cases=[case], refused={1: "status 1"}))
    assert not result.ok
    assert not result.skipped


def test_refusal_after_the_memory_came_is_judged_by_the_referees_alone():
    assert outcome(TEST, Played(operations=list(TEST.steps), refused={2: "still there"})) == Outcome(TEST, ok=True)


def test_tests_that_begin_with_a_refusal_need_no_memory():
    refused = {entry.name: entry.premise for entry in ENTRIES if entry.refused or entry.steps[0].verb == "failing"}
    assert set(refused.values()) == {0}
    assert "namespace-that-hosts-itself" in refused
    assert all(entry.premise for entry in ENTRIES if entry.name not in refused)


@pytest.mark.parametrize("refused", [{}, {1: "no driver"}])
def test_captures_of_a_skipped_test_are_not_kept(tmp_path, monkeypatch, refused):
    monkeypatch.setattr(program, "LAB", tmp_path)

    def replay(_machine, steps, folder, _needs):
        (folder / "01-plug").mkdir(parents=True)
        return Played(operations=steps, refused=refused)

    kernel = SimpleNamespace(page=4096, name="debian-5.10")
    result = program.tested(SimpleNamespace(kernel=kernel, kaslr=True, replay=replay), TEST)
    assert bool(result.skipped) == bool(refused)
    assert (tmp_path / "explored/debian-5.10/corpus/two-dimms-debian-5.10-kaslr").exists() != bool(refused)

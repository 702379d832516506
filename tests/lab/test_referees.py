"""What the referees make of a step: the kernel's log, the witnesses, what was predicted, failures of the tool."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.lab.explore.auditor import Found, Seen, WarmAuditor, look, predict
from fixtures.lab.explore.guest import Result
from fixtures.lab.explore.operations import Operation
from fixtures.lab.explore.referees import Blame, Prediction, Step, judge, known_bug, oopsed
from fixtures.lab.explore.sequence import asked, play

CAPTURES = Path(__file__).parents[2] / "fixtures" / "captures"
DISABLE = Operation("disable", "namespace0.1")
LOST = Found("VMM-02", "critical", "proven", "Struct pages are gone", "", ((0x80000, 0x82000),))
QUIET = Step(1, DISABLE, "", Seen(), Seen())


def cases(**changes):
    return [(one.referee, str(one.blame), one.key) for one in judge(replace(QUIET, **changes))]


def lines(*texts):
    return tuple((number, f"[   12.345678] {text}") for number, text in enumerate(texts, 200))


def test_quiet_step_has_no_case():
    assert cases(log=lines("random: crng init done"), predicted=(told("safe", done=True),)) == []


# Findings.


def test_new_grave_finding_is_the_kernels():
    assert cases(after=Seen((LOST,))) == [("findings", "kernel", "VMM-02")]
    assert cases(before=Seen((LOST,)), after=Seen((LOST,))) == []


def test_grave_finding_that_the_dump_does_not_have_is_the_tools():
    assert cases(after=Seen((LOST,)), exact=Seen()) == [("findings", "tool", "VMM-02 on text only")]


def test_small_findings_are_not_a_case_unless_they_are_a_known_bug():
    assert cases(after=Seen((replace(LOST, rule="VMM-03", severity="low"),))) == []
    (case,) = judge(replace(QUIET, after=Seen((replace(LOST, rule="LIN-04", severity="low"),))))
    assert (case.key, case.bug) == ("LIN-04", "LIN-04")


def test_finding_that_the_operation_asks_for_is_no_case():
    poisoned = Seen((replace(LOST, rule="ENV-02", severity="medium"),))
    assert cases(after=poisoned, operation=Operation("poison", address=0x140000000)) == []
    assert cases(after=poisoned) == [("findings", "kernel", "ENV-02")]
    covered = Seen((replace(LOST, rule="LIN-02", severity="medium"),))
    assert cases(after=covered, operation=Operation("plug", "d1", 0x140000000, 1 << 30)) == []
    assert cases(after=covered) == [("findings", "kernel", "LIN-02")]


def test_every_bug_of_the_findings_page_is_known():
    page = (Path(__file__).parents[2] / "docs/kernel-findings.md").read_text()
    for code in ("VMM-05", "VMM-06", "VMM-14", "LIN-04", "MOM-14"):
        assert f"[{code}](#" in page
        assert known_bug(code) == code


# Errors.


def test_rule_that_fails_is_the_tools():
    assert cases(after=Seen(errors=("VMM-02: KeyError: 5",))) == [("errors", "tool", "VMM-02")]
    assert cases(exact=Seen(errors=("Traceback\n  x\nValueError: at 0x80200000",))) == [
        ("errors", "tool", "ValueError: at N")
    ]


# Witnesses.


def test_disagreement_is_a_case_once():
    torn = Seen(disagreements={"trace: valid": [(0x80000, 0x88000)]})
    assert cases(after=torn) == [("witnesses", "model", "trace: valid")]
    assert cases(before=torn, after=torn) == []


def test_disagreement_within_a_finding_is_explained():
    half = replace(LOST, rule="VMM-04", severity="low", pfns=((0x80000, 0x86000),))
    seen = Seen((half,), disagreements={"lists: valid": [(0x80000, 0x84000)]})
    assert cases(after=seen) == []
    beyond = replace(seen, disagreements={"lists: valid": [(0x80000, 0x88000)]})
    (case,) = judge(replace(QUIET, after=beyond))
    assert (case.blame, case.text) == (Blame.TOOL, "disagree on lists: valid: 0x86000-0x88000")


# What was predicted.


def told(answer, *, done, **changes):
    return replace(Prediction("remove:0x82000000-0x84000000", answer, "why", (), done), **changes)


@pytest.mark.parametrize(
    ("predicted", "key"),
    [
        (told("refused", done=True), "remove predicted refused, was done"),
        (told("safe", done=False), "remove predicted safe, was refused"),
        (told("breaks", done=True, rules=("VMM-02",)), "remove predicted to break (VMM-02), did not"),
    ],
)
def test_wrong_answer_is_the_models(predicted, key):
    assert cases(predicted=(predicted,)) == [("prediction", "model", key)]
    assert cases(predicted=(replace(predicted, claim="suspected"),)) == []
    failing = Operation("failing", "vmemmap_populate", how="60", parts=(DISABLE,))
    assert cases(operation=failing, predicted=(predicted,)) == []


@pytest.mark.parametrize(
    "predicted",
    [
        told("refused", done=False),
        told("unknown", done=False),
        told("safe", done=False, notes="memory33 (zone Normal) may hold unmovable pages: -EBUSY then"),
    ],
)
def test_right_or_guarded_answer_is_not_a_case(predicted):
    assert cases(predicted=(predicted,)) == []


def test_damage_that_was_predicted_is_only_the_kernels():
    breaks = told("breaks", done=True, rules=("VMM-02",))
    assert cases(after=Seen((LOST,)), predicted=(breaks,)) == [("findings", "kernel", "VMM-02")]


def test_damage_that_was_not_predicted_is_also_the_models():
    found = cases(after=Seen((LOST,)), predicted=(told("safe", done=True),))
    assert found == [("findings", "kernel", "VMM-02"), ("prediction", "model", "predicted safe, VMM-02 came")]


def test_damage_that_only_a_dump_shows_may_be_older_than_the_step():
    safe = told("safe", done=True)
    assert cases(exact=Seen((LOST,), dumped=True), predicted=(safe,)) == [("findings", "kernel", "VMM-02")]
    both = cases(before=Seen(dumped=True), exact=Seen((LOST,), dumped=True), predicted=(safe,))
    assert ("prediction", "model", "predicted safe, VMM-02 came") in both


def test_what_was_asked_is_by_the_trace_where_there_is_one():
    before = Seen(units={"namespace0.1": (0x80000000, 0x82000000)}, states=((0x80000, 0x82000, "valid linear:+2M"),))
    result = Result("", {"online:memory33": True, "destroy:namespace0.1": True, "walk:x": True})
    block, named = ("online:memory33", True), ("remove:0x80000000-0x82000000", True)
    assert asked(result, before, []) == [block, named]
    assert asked(result, before, [("remove:0x0-0x1", True)]) == [block, ("remove:0x0-0x1", True)]
    refused = Result("", {"unplug:0x80000000-0x88000000": False})
    assert asked(refused, before, []) == [("remove:0x80000000-0x88000000", False)]


def test_device_whose_add_failed_takes_no_memory_along():
    states = ((0x80000, 0x88000, "valid struct:+2M linear:-"),)
    before = Seen(units={"namespace0.1": (0x80000000, 0x82000000)}, states=states)
    assert asked(Result("", {"destroy:namespace0.1": True}), before, []) == []


# The log.

WARN = (
    "------------[ cut here ]------------",
    "WARNING: mm/memremap.c:128 at memunmap_pages+0x234/0x250, CPU#0: ndctl/666",
    "Call trace:",
    " memunmap_pages+0x234/0x250 (P)",
    "---[ end trace 0000000000000000 ]---",
)


def test_trouble_that_no_finding_quotes_is_the_tools():
    (case,) = judge(replace(QUIET, log=lines(*WARN)))
    assert (case.referee, case.blame) == ("log", Blame.TOOL)
    assert case.key == "WARNING: mm/memremap.c:N at memunmap_pages+N/N, CPU#N: ndctl/N"


@pytest.mark.parametrize("line", [201, 203, 204])
def test_report_is_explained_by_any_of_its_lines(line):
    assert cases(log=lines(*WARN), before=Seen((LOST,)), after=Seen((replace(LOST, log_lines=(line,)),))) == []


def test_report_is_not_explained_by_a_line_after_it():
    found = cases(log=lines(*WARN, "nothing"), before=Seen((LOST,)), after=Seen((replace(LOST, log_lines=(205,)),)))
    assert [one[0] for one in found] == ["log"]


def test_message_is_explained_by_one_like_it():
    many = lines(*(f"[{n}40000000 {n}48000000] splits a leaf entry in linear map" for n in (1, 2, 3)))
    quoting = Seen((replace(LOST, log_lines=(200,)),))
    assert cases(log=many, before=Seen((LOST,)), after=quoting) == []
    other = (*many, (203, "[   12.345678] memory memory40: Offline failed."))
    assert [one[0] for one in cases(log=other, before=Seen((LOST,)), after=quoting)] == ["log"]


def test_message_is_explained_by_one_like_it_that_was_quoted_in_an_earlier_step():
    line = (260, "[   44.602751] kmem dax0.1: probe with driver kmem failed with error -22")
    quoting = Seen(
        (replace(LOST, log_lines=(200,), log_texts=("kmem dax0.0: probe with driver kmem failed with error -22",)),)
    )
    assert cases(log=(line,), before=quoting, after=quoting) == []
    assert [one[0] for one in cases(log=((260, line[1].replace("kmem", "cxl")),), before=quoting, after=quoting)] == [
        "log"
    ]


def test_lost_guest_is_the_kernels():
    (case,) = judge(replace(QUIET, lost="HungError in disable"))
    assert (case.blame, case.key) == (Blame.KERNEL, "disable lost the guest, silence")
    assert oopsed(["[ 1.0] Unable to handle kernel paging request at virtual address fffffdffc2100000"])


def test_guest_that_the_sequence_filled_is_nobodys():
    full = lines(
        "Out of memory and no killable processes...", "Kernel panic - not syncing: System is deadlocked on memory"
    )
    assert cases(lost="DeadError in resize 0", log=full) == []
    assert cases(lost="DeadError in resize 0", log=lines("Kernel panic - not syncing: Oops")) == [
        ("guest", "kernel", "disable lost the guest, oops")
    ]


def test_log_without_page_size_is_looked_at(tmp_path):
    log = tmp_path / "serial.log"
    log.write_text("[  150.405826] Kernel panic - not syncing: System is deadlocked on memory\n")
    assert look((log,)).errors == ()


# The tool on real captures.

ONE, TWO = CAPTURES / "pmem-6.12-vuln/01-three-namespaces", CAPTURES / "pmem-6.12-vuln/02-one-removed"


class Recorded:
    """A guest that shows the captures of a real one."""

    def __init__(self):
        self.moments = [ONE, TWO]

    def perform(self, operation, _world):
        return Result("", {f"{operation.verb}:{operation.what}": True})

    def capture(self, into):
        shutil.copytree(self.moments.pop(0), into)

    def dump(self, into):
        into.write_bytes(b"")

    def console(self):
        return ""

    def close(self):
        """Nothing to end."""


class Here:
    """Audits in this process."""

    def look(self, *paths):
        return look(paths[:1])

    def predict(self, capture, operations):
        return predict(capture, operations)

    def distill(self, dump, into):
        """No dump is real here."""

    def close(self):
        """Nothing to end."""


def test_real_removal_is_predicted_and_found(tmp_path):
    plan = iter([DISABLE, None])
    found = play(Recorded(), Here(), lambda _: next(plan), tmp_path / "run", lambda _: True)
    assert found.predicted == {"breaks": 1}
    assert {(one.referee, str(one.blame)) for one in found.cases} == {("findings", "kernel")}
    assert "VMM-02" in found.shown()
    assert any("valid device struct:-" in after for _, _, after in found.transitions)


def test_what_the_tool_sees_is_what_the_explorer_needs():
    seen = look((ONE,))
    assert seen.errors == ()
    assert seen.units["dax0.1"] == (0x82000000, 0x84000000)
    assert ("add", 0x82000000, 0x84000000, True) in seen.calls
    assert any(one.rule == "VMM-01" and one.grave for one in seen.findings)
    assert all(end > start for start, end, _ in seen.states)


def test_unreadable_capture_is_an_error_and_no_crash(tmp_path):
    assert look((tmp_path / "nothing",)).errors
    assert predict(tmp_path / "nothing", ["remove:memory33"])[0]["answer"] == "unasked"


@pytest.mark.slow
def test_warm_auditor_sees_the_same():
    auditor = WarmAuditor()
    try:
        assert auditor.look(ONE) == look((ONE,))
        assert auditor.predict(ONE, ["remove:namespace0.1"]) == predict(ONE, ["remove:namespace0.1"])
    finally:
        auditor.close()


def test_warning_of_struct_pages_that_do_not_fit_is_for_namespaces_that_hold_them():
    warned = told("safe", done=False, notes="if they do not fit, the add fails with -ENOMEM (VMM-14)")
    for how, expected in (("devdax dev 4K", 0), ("devdax mem 4K", 1)):
        assert len(cases(operation=Operation("create", size=400 << 20, how=how), predicted=(warned,))) == expected

"""Audits of a running kernel whose memory changes while it is read: what is in flux is unknown, the rest is judged."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import cycle

import numpy as np
import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from analyzer.verdict import State
from analyzer.whatif.answer import Kind
from analyzer.whatif.foresight import what_if
from parsers.vmcore import extract as extracting
from parsers.vmcore.extract import extract
from parsers.vmcore.moment import find_flux, without_flux
from rules.engine import Outcome, builtin_rules, run
from rules.facts import AUDIT_AGAIN
from rules.model.captured import Captured, build_facts
from tests.parsers.vmcore.conftest import FIXTURES
from tests.parsers.vmcore.kcores import room_for_kcore
from tests.parsers.vmcore.test_kcore import kcore_of

HOSTED = FIXTURES / "dimm-6.12-memmap-on-memory-online.core.zst"
READDED = FIXTURES / "pmem-6.12-readded.core.zst"
AFTER = FIXTURES / "pmem-6.12-vuln-after.core.zst"
BEFORE = FIXTURES / "pmem-6.12-vuln-before.core.zst"


@pytest.fixture(scope="module")
def room():
    with room_for_kcore() as directory:
        yield directory


def without(facts, *numbers, per_block=1):
    """The facts as they are read while sections are removed."""
    rows = facts.sections
    kept = ~np.isin(rows.section_nr, numbers)
    names = ("section_nr", "section_mem_map", "present", "has_memmap", "online", "early", "device", "subsections")
    names += ("subsections_known", "usage", "pa")
    later = replace(rows, **{name: getattr(rows, name)[kept] for name in names})
    return find_flux((facts.walk, rows), (facts.walk, later), facts.addresses, 64, per_block)


@pytest.fixture
def unquiet(room, monkeypatch):
    """The path of a kernel's memory, of which a section was removed whenever it was read again."""
    before, after = extract(BEFORE), extract(AFTER)
    flux = find_flux((before.walk, before.sections), (after.walk, after.sections), before.addresses, 64)
    monkeypatch.setattr(extracting, "_find_flux", lambda *_: flux)
    monkeypatch.setattr(extracting.time, "sleep", lambda _: None)
    return kcore_of(room, AFTER)


class Events:
    """A kernel with events of other devices: ``steps``, over and over, come before each look at the counter."""

    def __init__(self, monkeypatch, *steps):
        self.steps, self.now, self.looks = cycle(steps), 100, 0
        monkeypatch.setattr(extracting.time, "sleep", lambda _: None)
        monkeypatch.setattr(extracting, "read_events", lambda _: self.look())
        whole = extracting.read_generation
        monkeypatch.setattr(extracting, "read_generation", lambda dump: replace(whole(dump), events=self.look()))

    def look(self):
        self.looks += 1
        self.now += next(self.steps)
        return self.now


def test_memory_of_drivers_is_judged_where_events_pause_for_a_second_reading(room, monkeypatch) -> None:
    """Containers that start and stop send events without end: the audit began before one, and read again after it."""
    path = kcore_of(room, BEFORE)
    quiet = audit(Request((path,)))
    Events(monkeypatch, 0, 3, 2, 1, 0)  # the first second reading has an event in it, the next one has not
    noisy = audit(Request((path,)))
    assert noisy.overall.text == quiet.overall.text
    assert noisy.overall.state is State.AT_RISK
    assert "VMM-01, proven" in noisy.overall.text
    outcomes = [[(one.rule.code, one.outcome) for one in report.verdicts] for report in (noisy, quiet)]
    assert outcomes[0] == outcomes[1]


def test_memory_of_drivers_is_unknown_where_events_never_pause(room, monkeypatch) -> None:
    path = kcore_of(room, BEFORE)
    events = Events(monkeypatch, 1)
    report = audit(Request((path,)))
    assert report.overall.missing == ("memory of one moment",)
    assert report.overall.state is State.BLIND
    assert events.looks <= 50, "a bounded number of readings"


def test_struct_pages_that_differ_between_events_are_in_flux(room, monkeypatch) -> None:
    """Memory of drivers that was removed and added again while its struct pages were read."""
    path = kcore_of(room, READDED)
    Events(monkeypatch, 0, 1, 0)
    whole, calls = extracting.read_struct_pages, []

    def torn(dump, sections, walk):
        rows = whole(dump, sections, walk)
        calls.append(rows)
        return replace(rows, blank=~rows.blank) if len(calls) % 2 else rows  # as the first reading finds them

    assert len(extract(READDED).struct_pages)
    monkeypatch.setattr(extracting, "read_struct_pages", torn)
    report = audit(Request((path,)))
    assert report.overall.missing == ("memory of one moment",)
    assert not [one.rule.code for one in report.findings if one.severity > 0]


def test_the_verdict_is_that_memory_changed_and_to_audit_again(unquiet) -> None:
    report = audit(Request((unquiet,)))
    assert report.overall.state is State.BLIND
    assert report.overall.missing == ("memory of one moment",)
    assert report.overall.text.endswith(
        "could not look: memory changed while it was read. Audit again when hotplug is quiet."
    )
    outcomes = {one.rule.code: one for one in report.verdicts}
    assert outcomes["SEC-02"].collect == ("audit again when hotplug is quiet",)
    assert "changed while they were read" in outcomes["SEC-02"].reason
    assert {outcomes[code].outcome for code in ("VMM-02", "SEC-02", "SEC-04")} == {Outcome.UNDECIDED}


def test_the_report_does_not_ask_for_memory_blocks_or_a_dump(ptaudit, unquiet) -> None:
    verdict = json.loads(ptaudit("audit", unquiet, "--format", "json").out)["verdict"]
    assert verdict["missing"] == ["memory of one moment"]
    assert "audit again when hotplug is quiet" in ptaudit("audit", unquiet, "--verbose").out.lower()


def test_blocks_that_did_not_change_are_judged_and_no_rule_takes_the_others_for_absent() -> None:
    whole = extract(HOSTED)
    last = int(whole.blocks.start_section_nr[-1])
    left = without_flux(whole, without(whole, last))
    assert left.blocks.start_section_nr.tolist() == whole.blocks.start_section_nr.tolist()[:-1]
    assert len(left.blocks.state) == len(left.blocks)
    assert last not in left.self_hosted.section_nr
    assert len(left.self_hosted) == np.count_nonzero(whole.self_hosted.section_nr != last)
    verdicts = run(builtin_rules(), build_facts(Captured(vmcore=left)))
    fired = {one.rule.code for one in verdicts if one.outcome in {Outcome.FIRED, Outcome.ERROR}}
    assert fired <= {"ENV-01"}, "the release alone"


def test_a_wrong_state_is_found_beside_memory_in_flux() -> None:
    """One block that did not change says offline, and its section says online."""
    whole = extract(HOSTED)
    changed = replace(whole, blocks=replace(whole.blocks, state=("offline", *whole.blocks.state[1:])))
    left = without_flux(changed, without(whole, int(whole.blocks.start_section_nr[-1])))
    verdicts = {one.rule.code: one for one in run(builtin_rules(), build_facts(Captured(vmcore=left)))}
    assert verdicts["SEC-02"].outcome is Outcome.FIRED


def test_blocks_in_flux_may_be_those_that_hold_their_own_struct_pages() -> None:
    whole = extract(HOSTED)
    per_block, start = whole.blocks.sections_per_block, whole.blocks.start_section_nr
    hosting = start[whole.blocks.nr_vmemmap_pages > 0].astype(np.int64)
    moved = (hosting[:, None] + np.arange(per_block)).ravel()
    flux = find_flux((whole.walk, whole.sections), (whole.walk, whole.sections), whole.addresses, 64, per_block, moved)
    left = without_flux(whole, flux)
    assert left.blocks.in_flux == hosting.size > 0
    verdicts = {one.rule.code: one for one in run(builtin_rules(), build_facts(Captured(vmcore=left)))}
    for code in ("MOM-01", "MOM-08"):
        assert (verdicts[code].outcome, verdicts[code].collect) == (Outcome.UNDECIDED, (AUDIT_AGAIN,)), code


def test_what_an_operation_on_memory_in_flux_would_do_is_unknown() -> None:
    whole = extract(HOSTED)
    last = int(whole.blocks.start_section_nr[-1])
    number = last // whole.blocks.sections_per_block
    iomem = whole.iomem
    left = replace(without_flux(whole, without(whole, last)), iomem=iomem)
    facts = build_facts(Captured(vmcore=left))
    answer, other = what_if(facts, [f"offline:memory{number}", "offline:memory8"])
    assert (answer.kind, answer.collect) == (Kind.UNKNOWN, AUDIT_AGAIN)
    assert f"sections {last}" in answer.why
    assert other.kind is Kind.REFUSED, "memory of the boot"
    (before,) = what_if(build_facts(Captured(vmcore=whole)), [f"offline:memory{number}"])
    assert before.kind is not Kind.UNKNOWN


def test_all_sections_of_a_block_are_in_flux_with_one() -> None:
    whole = extract(AFTER)
    assert without(whole, 9).sections.tolist() == [9]
    assert without(whole, 9, per_block=2).sections.tolist() == [8, 9]
    left = without_flux(
        replace(whole, blocks=replace(whole.blocks, sections_per_block=2)), without(whole, 9, per_block=2)
    )
    assert left.blocks.start_section_nr.tolist() == [0]

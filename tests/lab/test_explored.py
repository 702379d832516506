"""Steps that the explorer played, judged again by the tool as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fixtures.lab.explore.auditor import predict
from fixtures.lab.explore.operations import from_record
from fixtures.lab.explore.referees import Blame
from fixtures.lab.explore.sequence import judge_again
from tests.lab.test_referees import Here

EXPLORED = Path(__file__).parents[2] / "fixtures" / "explored"
STEPS = sorted(path.name for path in EXPLORED.iterdir() if path.is_dir())
KERNELS = {
    "struct-pages-do-not-fit": {"MOM-05", "OOP-12", "OOP-24", "TRC-06", "VMM-04"},
    "two-namespaces-in-one-page": {"VMM-06"},
}
"""What is the kernel's fault, by step; of the others nothing is."""


def record_of(name):
    return json.loads((EXPLORED / name / "case.json").read_text())


def judged(name, **changes):
    path = EXPLORED / name
    return judge_again(Here(), path / "before", path / "after", None, {**record_of(name), **changes})


@pytest.mark.parametrize("name", STEPS)
def test_step_is_only_the_kernels_fault(name):
    cases = judged(name)
    assert [one.key for one in cases if one.blame is not Blame.KERNEL] == []
    assert {one.key for one in cases} == KERNELS.get(name, set())


@pytest.mark.parametrize("name", STEPS)
def test_record_names_what_led_there(name):
    record = record_of(name)
    assert record["step"] == len([from_record(one) for one in record["operations"]])
    assert record["kernel"]
    assert record["what"]


def test_refusal_that_was_predicted_is_a_case_if_it_does_not_come():
    (what, _), *_ = record_of("range-in-use-until-reboot")["record"]["done"]
    cases = judged("range-in-use-until-reboot", record={"done": [[what, True]]})
    assert [one.key for one in cases] == ["add predicted refused, was done"]


def test_sections_that_a_failed_add_left_are_known_without_a_dump():
    (answer,) = predict(EXPLORED / "range-in-use-until-reboot/before", ["add:0x80000000-0x88000000"])
    assert answer["answer"] == "refused"
    assert "VMM-14" in answer["why"]

"""ptaudit timeline: the replayed operations as text and as JSON."""

from __future__ import annotations

import json

from click.testing import CliRunner

from analyzer.timeline.timeline_command import command
from tests.cases import CAPTURES


def test_timeline_command_shows_states_and_marks_damage():
    moment = CAPTURES / "pmem-6.12-vuln" / "02-one-removed"
    result = CliRunner().invoke(command, [str(moment / "trace")])
    assert result.exit_code == 0, result.output
    free = next(line for line in result.output.splitlines() if "  free  " in line)
    assert "16: 48 of 64 valid, pmd -> none, 48 LOST" in free
    assert "TRC-07 DAMAGE" in free


def test_timeline_as_json_is_complete():
    moment = CAPTURES / "pmem-6.12-vuln" / "02-one-removed"
    result = CliRunner().invoke(command, [str(moment / "trace"), "--format", "json"])
    operations = json.loads(result.output)["operations"]
    (free,) = [one for one in operations if one["operation"] == "free"]
    assert free["damage"] == [{"start": "0x80000", "end": "0x82000"}, {"start": "0x84000", "end": "0x88000"}]
    assert free["sections"] == [16]
    assert (free["before"]["leaf"], free["after"]["leaf"], free["after"]["lost"]) == ("pmd", "none", 48)
    assert free["trouble"] == ["TRC-07"]
    assert free["stack"][:2] == ["vmemmap_free", "sparse_remove_section"]
    lines = (moment / "trace").read_text().splitlines()
    assert all(one["task"] in lines[one["line"] - 1].strip() for one in operations)


def test_pointer_that_a_call_returns_is_not_an_error():
    moment = CAPTURES / "pmem-6.12-64k-va52" / "01-namespaces"
    assert "ret=0xfff0000080000000" in (moment / "trace").read_text()
    result = CliRunner().invoke(command, [str(moment / "trace"), "--format", "json"])
    results = {one["result"] for one in json.loads(result.output)["operations"] if one["operation"] == "map device"}
    assert results == {"ok"}

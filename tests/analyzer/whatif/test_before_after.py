"""What-if on a capture predicts the page tables and the sections of the next one, entry for entry."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from analyzer.whatif.foresight import what_if
from parsers.uname import KernelRelease, parse_uname
from rules.facts import Facts
from rules.model.memory.regions import LinearMap, Vmemmap
from rules.model.memory.sections import SectionTable
from rules.model.replay.entries import Entries
from tests.analyzer.whatif.pairs import PAIRS, Pair


@cache
def facts_of(path: Path) -> Facts:
    return audit(Request((path,)), only=["ENV-01"]).facts


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_the_next_moment_is_predicted_entry_for_entry(pair: Pair) -> None:
    before, after = (facts_of(path) for path in pair.moments)
    if pair.release:
        known = {**before.known, KernelRelease: parse_uname(pair.release.encode(), "uname")}
        before = replace(before, known=known)
    answers = what_if(before, pair.operations, in_sequence=True)
    expected = pair.answers or ("safe",) * len(pair.operations)
    assert [(str(one.operation), str(one.kind)) for one in answers] == list(zip(pair.operations, expected, strict=True))
    predicted = answers[-1].after
    assert predicted is not None
    for entries, kind in ((predicted.linear, LinearMap), (predicted.vmemmap, Vmemmap)):
        region = after.get(kind)
        assert region is not None
        assert entries.rows == Entries.of(region).rows, kind.__name__
    sections = after.get(SectionTable)
    assert sections is not None
    assert predicted.valid == sections.valid
    assert predicted.online == sections.online

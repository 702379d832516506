"""What breaks is what the rules find afterwards; what is safe leaves nothing critical: machines and sequences drawn."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.audit import audit
from analyzer.sources.read import Request
from parsers.ranges import EMPTY, Ranges
from rules.engine import Outcome
from rules.finding import Severity
from tests.analyzer.whatif.hosts import JUDGES, Host, Story

MIB = 1 << 20
PMEM = [
    Host("pmem-6.12-fixed"),
    Host("pmem-6.12-vuln", "6.12.19"),
    Host("pmem-5.10-4k"),
    Host("kaslr-pmem-6.12-4k-a72"),
    Host("pmem-6.12-16k"),
    Host("pmem-6.12-64k"),
]
REGION = 0x80000000
DIMMS = [Host("dimm-6.12"), Host("dimm-6.12-memmap-on-memory")]


@st.composite
def namespaces(draw: st.DrawFn) -> list[str]:
    """Devices of whole subsections side by side or apart, all added, then some removed."""
    at, ranges = REGION, []
    for _ in range(draw(st.integers(1, 4))):
        at += 2 * MIB * draw(st.sampled_from([0, 0, 0, 1, 3, 8, 32]))
        size = 2 * MIB * draw(st.integers(1, 40))
        if at + size > REGION + 144 * MIB:
            break
        ranges.append((at, at + size))
        at += size
    names = [f"{lo:#x}-{hi:#x}" for lo, hi in ranges]
    gone = draw(st.lists(st.sampled_from(names), unique=True, max_size=3)) if names else []
    return [*(f"add:{one}" for one in names), *(f"remove:{one}" for one in gone)]


@st.composite
def dimms(draw: st.DrawFn) -> list[str]:
    """DIMMs of whole blocks; each goes online, and leaves whole or block by block."""
    block = 128 * MIB
    at, ranges = REGION, []
    for _ in range(draw(st.integers(1, 3))):
        at += block * draw(st.sampled_from([0, 0, 1, 8]))
        size = block * draw(st.integers(1, 17))
        ranges.append((at, at + size))
        at += size
    operations = [f"add:{lo:#x}-{hi:#x}" for lo, hi in ranges]
    blocks = [number for lo, hi in ranges for number in range(lo // block, hi // block)]
    online = draw(st.lists(st.sampled_from(blocks), unique=True, max_size=3))
    operations += [f"online:memory{number}" for number in online]
    whole = [f"remove:{lo:#x}-{hi:#x}" for lo, hi in ranges]
    single = [f"remove:{number * block:#x}-{(number + 1) * block:#x}" for number in blocks]
    return operations + draw(st.lists(st.sampled_from(whole + single), unique=True, max_size=2))


def agree(host: Host, operations: list[str], *, device: bool) -> None:
    """The rules find, at the end of the story, what was predicted, and nothing critical besides."""
    story = Story.of(host, operations)
    if not story.answers or not story.there():
        return
    with tempfile.TemporaryDirectory() as folder:
        report = audit(Request((story.capture(Path(folder) / "host", device),)), only=JUDGES)
        assert not [one for one in report.verdicts if one.outcome is Outcome.ERROR]
        found = {
            code: _union(one.hit.pfns for one in report.findings if one.rule.code == code)
            for code in ("VMM-02", "VMM-13", "LIN-03")
        }
        critical = {one.rule.code for one in report.findings if one.severity is Severity.CRITICAL}
    assert found["VMM-02"] == story.lost("VMM-02"), operations
    assert found["VMM-13"] == story.lost("VMM-13"), operations
    if not device:  # the rule looks at RAM
        assert found["LIN-03"] == story.lost("LIN-03"), operations
    predicted = {one.rule for answer in story.answers for one in answer.breaks if one.severity is Severity.CRITICAL}
    assert ("CNT-01" in critical) == bool(story.machine.linear.incomplete_runs())
    assert critical <= predicted, operations


def _union(parts) -> Ranges:
    found = EMPTY
    for part in parts:
        found = found | part
    return found


@pytest.mark.parametrize("host", PMEM, ids=lambda host: host.boot)
@settings(max_examples=12)
@given(operations=namespaces())
def test_rules_find_what_was_predicted_of_namespaces(host: Host, operations: list[str]) -> None:
    agree(host, operations, device=True)


@pytest.mark.parametrize("host", DIMMS, ids=lambda host: host.boot)
@settings(max_examples=12)
@given(operations=dimms())
def test_rules_find_what_was_predicted_of_dimms(host: Host, operations: list[str]) -> None:
    agree(host, operations, device=False)

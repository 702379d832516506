"""Looking up what a block of calls does gives what applying every call gives."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parsers import ftrace
from rules.model.replay import repeats
from rules.model.replay.state import State
from rules.model.replay.timeline import Timeline
from tests.cases import FIXTURES
from tests.rules.drawn import MIB
from tests.rules.traces import TRACED_BASE, Tracer

KERNELS = st.sampled_from(
    [
        {},
        {"whole_sections_only": False},
        {"struct_page": 80},
        {"page_size": 16384},
        {"page_size": 65536, "section": 512 * MIB},
    ]
)
STEPS = st.tuples(
    st.sampled_from(["add", "remove", "online", "offline"]),
    st.integers(0, 7).map(lambda place: place * 64),
    st.sampled_from([2, 64, 128, 192, 512]),
    st.sampled_from([0, 0, 0, -12, None]),
    st.sampled_from([0, 0x1000]),
)
PROBES = ("mhp_sec_add:", "mhp_sec_rem:", "mhp_vmm_pop:", "mhp_vmm_free:", "_ret:", "mhp_vmm_huge:", "mhp_arch_add:")
UNTRACED = st.sets(st.sampled_from(PROBES), max_size=2)


def said(trace: ftrace.Trace, least: int, monkeypatch: pytest.MonkeyPatch) -> tuple[object, ...]:
    """Everything that a replay comes to, with repetition looked for from ``least`` blocks of a kind on."""
    monkeypatch.setattr(repeats, "MIN_REPEATS", least)
    timeline = Timeline.replay(trace, None, None)
    state = {one.name: getattr(timeline.state, one.name).tolist() for one in fields(State)}
    anomalies = [(one.trouble, one.call, one.pfns.tuples(), one.text, one.certain) for one in timeline.anomalies]
    return state, anomalies, timeline.blind, timeline.counts


def assert_alike(text: str) -> None:
    trace = ftrace.read(text.encode(), path="trace")
    with pytest.MonkeyPatch.context() as patch:
        assert said(trace, 0, patch) == said(trace, 1 << 40, patch)


@settings(max_examples=150)
@given(
    KERNELS, st.lists(STEPS, min_size=1, max_size=6), st.integers(1, 5), st.sets(st.sampled_from(PROBES), max_size=2)
)
def test_repeated_operations_end_as_if_each_was_applied(
    kernel: dict[str, object], steps: list[tuple[str, int, int, int | None, int]], times: int, untraced: set[str]
) -> None:
    tracer = Tracer(**kernel)  # type: ignore[arg-type]
    for _ in range(times):
        for word, start, size, ret, altmap in steps:
            where = TRACED_BASE + start * MIB, size * MIB
            if word == "add":
                tracer.add(*where, altmap=altmap, ret=ret or 0)
            elif word == "remove":
                tracer.remove(*where, altmap=altmap)
            else:
                getattr(tracer, word)(*where, ret=ret)
    tracer.lines = [line for line in tracer.lines if not any(probe in line for probe in untraced)]
    assert_alike(tracer.text)


@pytest.mark.parametrize("path", sorted((FIXTURES / "rules").glob("TRC-*/*/trace")), ids=lambda path: path.parent.name)
def test_recorded_operations_end_as_if_each_was_applied(path) -> None:
    lines = [line for line in path.read_text().splitlines(keepends=True) if not line.startswith("#")]
    assert_alike("# tracer: nop\n#\n" + "".join(lines * 3))


def test_a_cycle_is_applied_once_and_looked_up_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    tracer = Tracer()
    for _ in range(100):
        for place in (0, 1024, 4096):
            tracer.add(TRACED_BASE + place * MIB, 512 * MIB)
            tracer.online(TRACED_BASE + place * MIB, 512 * MIB)
            tracer.offline(TRACED_BASE + place * MIB, 512 * MIB)
            tracer.remove(TRACED_BASE + place * MIB, 512 * MIB)
    applied = []
    apply = repeats._Memory.run
    monkeypatch.setattr(repeats._Memory, "run", lambda memory: applied.append(memory) or apply(memory))
    timeline = tracer.replay()
    assert len(applied) == 1
    assert len(applied[0].states) <= 8
    assert not timeline.anomalies

"""The one pass over a long trace finds what the expressions for names and for lost events find."""

from __future__ import annotations

from pathlib import Path

import pytest

from parsers import ftrace
from parsers.ftrace import scan
from parsers.ftrace.naming import EVENT_NAMES, SYMBOLS
from parsers.ftrace.scan import landmarks, wanted, wanted_in

FIXTURES = Path(__file__).parents[3] / "fixtures"
TRACES = sorted(path for path in FIXTURES.rglob("trace") if path.is_file() and path.stat().st_size)
HEAD = b"           sh-58      [001] d..2.  2048.204800"
ENDS = [
    *(f": {prefix}{name}: (f+0x0/0x8) nr=1" for name in EVENT_NAMES for prefix in ("", "mhp_", "mhp:", "mhp:mhp_")),
    *(f":   {prefix}{name}_0: (f+0x0/0x8)" for name in SYMBOLS for prefix in ("p_", "r_", "probe:", "kprobes:r_")),
    *(f": (+698)   {name}:      (f+0x0/0x8) nr=1" for name in SYMBOLS),
    *(f": own: ({name}+0x0/0x8)" for name in SYMBOLS),
    *(f": own: (caller+0x1/0x8 <- {name})" for name in SYMBOLS),
    *(f": function:             {name} <-caller" for name in SYMBOLS),
    *(f": funcgraph_entry:      + 1.000 us |  {name}();" for name in SYMBOLS),
    *(": tlbi_range: (f)", ": mhp_tlbi: (f)", ": <stack trace>", ": <user stack trace>", ": kernel_stack: <stack>"),
    *(": test_pages_isolated: start_pfn=0x1", ": migrate:mm_migrate_pages: nr_succeeded=1", ": print: begin"),
    *(": tracing_mark_write: B", ": tracing_mark_write: B|7|frame", ": tracing_mark_write: begin of a test"),
    ": sched_switch: prev_comm=unmap",
]


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_WORTH_A_SCAN", 0)
    monkeypatch.setattr(scan, "_SPARSE", 1)


def test_each_spelling_is_found(always) -> None:
    data = b"".join(HEAD + end.encode() + b"\n" for end in ENDS)
    marks = landmarks(data)
    assert marks is not None
    expected = [match.span() for match in wanted().finditer(data)]
    assert [match.span() for match in wanted_in(data, marks)] == expected
    assert len(expected) == len(ENDS) - 3  # Android's markers of one letter, and sched_switch


@pytest.mark.parametrize("path", TRACES[::3], ids=lambda path: str(path.relative_to(FIXTURES)))
def test_a_trace_reads_the_same_in_one_pass(always, monkeypatch, path: Path) -> None:
    data = path.read_bytes()
    one_pass = ftrace.read(data)
    monkeypatch.setattr(scan, "_WORTH_A_SCAN", len(data) + 1)
    apart = ftrace.read(data)
    assert one_pass.events.line.tolist() == apart.events.line.tolist()
    assert one_pass.gaps == apart.gaps


def test_a_trace_full_of_events_is_left_to_the_expression(monkeypatch) -> None:
    monkeypatch.setattr(scan, "_WORTH_A_SCAN", 0)
    assert landmarks(b"".join(HEAD + b": online_pages: pfn=0x1\n" for _ in range(100))) is None

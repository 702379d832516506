"""What a trace quotes after it was read: the lines that were read, whatever became of the file."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from analyzer.audit import judge
from analyzer.sources.read import Request, read_sources
from parsers.ftrace import read
from rules.engine import Outcome
from rules.model.captured import build_facts
from tests.cases import case

FIRST = "sh-58      [001] d....     2.5: mhp_online: (online_pages+0x0/0x368) pfn=0x80000 nr=0x8000"
SECOND = "sh-58      [001] d....     3.5: mhp_online: (online_pages+0x0/0x368) pfn=0x88000 nr=0x8000"


@pytest.fixture
def trace_file(tmp_path):
    path = tmp_path / "trace"
    path.write_text(f"{FIRST}\n{SECOND}\n")
    return path


def appended(path):
    with path.open("a") as stream:
        stream.write(FIRST)


def replaced(path):
    path.rename(path.with_name("trace.1"))
    path.write_text("another trace\n")


@pytest.mark.parametrize("change", [Path.unlink, replaced, Path.exists], ids=["removed", "replaced", "as it was"])
def test_lines_that_were_read_are_quoted(trace_file, change):
    trace = read(trace_file)
    change(trace_file)
    assert [trace.quote(row) for row in range(2)] == [FIRST, SECOND]


@pytest.mark.parametrize(
    "change", [appended, lambda path: path.write_text(""), lambda path: os.utime(path, (1, 1))],
    ids=["appended", "emptied", "touched"],
)  # fmt: skip
def test_events_of_a_file_that_was_written_to_are_written_out(trace_file, change):
    trace = read(trace_file)
    change(trace_file)
    assert trace.quote(0) == trace.describe(0) != FIRST
    assert trace.describe(0).startswith("sh-58 [001] 2.500000: mhp_online: ")


def test_a_trace_in_memory_is_quoted_from_memory():
    assert read(f"{FIRST}\n{SECOND}".encode()).quote(1) == SECOND


def test_a_trace_that_is_forgotten_closes_its_file(trace_file):
    def opened():
        return [one for one in Path("/proc/self/fd").iterdir() if one.is_symlink() and one.exists()
                and one.resolve() == trace_file]  # fmt: skip

    trace = read(trace_file)
    assert len(opened()) == 1
    del trace
    gc.collect()
    assert opened() == []


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_text("")], ids=["removed", "emptied"])
def test_a_finding_survives_the_file_that_it_quotes(tmp_path, change):
    for file in case("TRC-07/fires").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    sources = read_sources(Request((tmp_path,)))
    facts = build_facts(sources.captured)
    change(tmp_path / "trace")
    (verdict,) = judge(sources, facts, only=["TRC-07"]).verdicts
    assert verdict.outcome is Outcome.FIRED, verdict.reason
    assert all(one.text for one in verdict.findings[0].hit.evidence)

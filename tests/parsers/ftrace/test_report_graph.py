"""The function_graph tracer in reports of trace-cmd: task, time, ranges and ends of calls."""

from __future__ import annotations

import pytest

from parsers import ftrace
from parsers.ftrace import scan
from parsers.ftrace.events import Origin, Phase
from parsers.ftrace.functions import Kind

from .conftest import rows

WORKER, SHELL = "    kworker/u8:1-38    [000]", "              sh-59    [001]"
# The head is of `trace-cmd report` of the buffer of fixtures/ftrace/run2-graph_min.txt.xz.
REPORT = f"""\
cpus=2
{SHELL}    31.578105: print:                tracing_mark_write: graph marker
{WORKER}    31.609293: offline:              (ffff800080262110) start_pfn=655360 nr_pages=32768 zname="Movable" nid=0
{WORKER}    31.609416: funcgraph_entry:                   |  offline_pages() {{
{WORKER}    31.609528: funcgraph_entry:                   |    walk_system_ram_range() {{
{WORKER}    31.609546: funcgraph_entry:      + 68.784 us  |      find_next_iomem_res();
{WORKER}    31.609773: funcgraph_entry:        5.856 us   |      count_system_ram_pages_cb();
{SHELL}    31.609790: funcgraph_exit:       ! 12.000 us   |  }}
{WORKER}    31.609800: funcgraph_exit:       ! 272.000 us |    }}
{SHELL}    31.609804: funcgraph_entry:        5.856 us   |  vmemmap_populate();
{WORKER}    31.610000: funcgraph_exit:       ! 584.000 us |  }}
"""


def story(trace):
    events = trace.events
    return [
        (Kind(int(events.kind[i])), Phase(int(events.phase[i])), int(events.pid[i]), int(events.time_ns[i]) // 1000)
        for i in range(len(trace))
        if events.origin[i] == Origin.GRAPH
    ]


CALLS = [
    (Kind.VMEMMAP_POPULATE, Phase.ENTRY, 59, 31609804),
    (Kind.VMEMMAP_POPULATE, Phase.RETURN, 59, 31609804),
    (Kind.OFFLINE_PAGES, Phase.RETURN, 38, 31610000),
]


def test_calls_have_task_time_range_and_end():
    trace = ftrace.read(REPORT.encode())
    assert trace.format == "trace-cmd report"
    # The probe has recorded the entry of offline_pages() with its range.
    assert story(trace) == CALLS
    (offline,) = trace.events.where(Kind.OFFLINE_PAGES, Phase.ENTRY)
    assert rows(trace)[offline]["args"] == {
        "start_pfn": 0xA0000,
        "nr_pages": 0x8000,
        "zone_name": "Movable",
        "nid": 0,
    }
    assert trace.quote(len(trace) - 1).endswith("|  }")
    assert trace.events.line.tolist() == [2, 3, 10, 10, 11]
    assert not trace.diagnostics


def test_the_end_of_a_call_may_be_in_the_next_block(monkeypatch):
    whole = story(ftrace.read(REPORT.encode()))
    monkeypatch.setattr(scan, "BLOCK_SIZE", 400)
    assert story(ftrace.read(REPORT.encode())) == whole == CALLS


@pytest.mark.parametrize("lost", [2, 3])
def test_a_call_without_its_end_has_no_return(lost):
    # Of another task, or at another depth, a brace ends another call.
    text = (
        REPORT.replace(f"{WORKER}    31.610000", f"{SHELL}    31.610000")
        if lost == 2
        else REPORT[: REPORT.rindex(WORKER)]
    )
    assert story(ftrace.read(text.encode())) == CALLS[:2]


def test_results_of_calls_are_read():
    text = REPORT.replace("584.000 us |  }", "584.000 us |  } /* offline_pages = -16 */")
    trace = ftrace.read(text.encode())
    assert trace.events.signed("ret")[0][trace.events.where(Kind.OFFLINE_PAGES, Phase.RETURN)].tolist() == [-16]


def test_the_time_since_the_last_event_changes_nothing():
    assert story(ftrace.read(REPORT.replace(": funcgraph", ": (+12)   funcgraph").encode())) == CALLS

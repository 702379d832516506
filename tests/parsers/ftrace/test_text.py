"""Text traces of every producer give the same events."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers import ftrace
from parsers.errors import FormatError, InputError
from parsers.ftrace import graph, scan
from parsers.ftrace.events import NO_TIME, Origin, Phase
from parsers.ftrace.functions import Kind

from .conftest import fixture_bytes, rows

ONLINE = "mhp_online: (online_pages+0x0/0x368) pfn=0x80200 nr=0x7e00 zone=0xffff00007fff9680 group=0x0"
ONLINE_ARGS = {"start_pfn": 0x80200, "nr_pages": 0x7E00, "zone": 0xFFFF00007FFF9680, "group": 0}


def one(text: str) -> dict[str, object]:
    found = rows(ftrace.read(text.encode()))
    assert len(found) == 1
    return found[0]


def test_a_capture_with_stacks(trace):
    found = trace("pmem.trace")
    events = found.events
    assert len(events) == 21
    frees = events.where(Kind.VMEMMAP_FREE, Phase.ENTRY)
    assert [hex(v) for v in events.column("start")[0][frees]] == ["0xfffffdffc2080000"]
    assert [hex(v) for v in events.column("end")[0][frees]] == ["0xfffffdffc2100000"]
    row = int(frees[0])
    stack = found.stacks[int(events.stack[row])]
    assert stack[0] == "vmemmap_free"
    assert "arch_remove_memory" in stack
    assert found.strings[int(events.comm[row])] == "ndctl"
    assert found.quote(row).startswith("ndctl-")
    assert "vmemmap_free: (vmemmap_free+0x0/0x80)" in found.quote(row)
    assert (events.stack >= 0).all()
    assert (np.diff(events.line) > 0).all()
    assert found.buffers[0].entries == 42
    text = fixture_bytes("pmem.trace").decode().splitlines()
    for line, offset in zip(events.line, events.offset, strict=True):
        assert text[line - 1].encode() == fixture_bytes("pmem.trace")[offset:].split(b"\n", 1)[0]


def test_default_and_latency_format_of_one_buffer_agree(trace):
    default, latency = trace("run1-default.txt"), trace("run1-latfmt.txt")
    assert latency.format == "latency"
    assert latency.release == "6.12.117"
    assert len(default) == 57
    assert rows(default) == rows(latency)
    shift = default.events.time_ns - latency.events.time_ns
    assert int(np.ptp(shift)) <= 1000


def test_trace_cmd_report_and_its_options_agree(trace):
    plain = rows(trace("run3-report-v6.txt"))
    assert len(plain) == 20
    for option in ("t", "l"):
        assert rows(trace(f"run3-v6.report-{option}.txt")) == plain
    exact, rounded = trace("run3-v6.report-t.txt").events.time_ns, trace("run3-report-v6.txt").events.time_ns
    assert int(np.abs(exact - rounded).max()) <= 500
    assert (exact % 1000 != 0).any()


def test_a_report_with_time_differences_has_the_same_events(trace):
    apart, plain = trace("pmem.report-ts-diff.xz"), trace("pmem.report.xz")
    assert rows(apart) == rows(plain)
    assert len(apart) == 21
    assert apart.events.time_ns.tolist() == plain.events.time_ns.tolist()
    assert (apart.events.stack >= 0).all()


def test_the_latency_format_of_a_report_with_time_differences():
    found = one(f"   ndctl-81      1d....     2.558162144: (+518848) {ONLINE}\n")
    assert (found["kind"], found["cpu"], found["args"]) == (Kind.ONLINE_PAGES, 1, ONLINE_ARGS)


def test_raw_report_has_the_same_numbers(trace):
    raw, plain = rows(trace("run3-v6.report-R.txt")), rows(trace("run3-report-v6.txt"))
    assert [(row["kind"], row["phase"]) for row in raw] == [(row["kind"], row["phase"]) for row in plain]
    assert [row["args"]["start_pfn"] for row in raw if "start_pfn" in row["args"]] == [
        row["args"]["start_pfn"] for row in plain if "start_pfn" in row["args"]
    ]


def test_return_order_of_trace_cmd_is_the_other_way_round(trace):
    found = trace("run3-report-v6.txt")
    row = int(found.events.where(Kind.ONLINE_PAGES, Phase.RETURN)[0])
    assert found.strings[int(found.events.caller[row])] == "0xffff8000804e9a34"
    kernel = trace("run4-final_cycle.txt")
    row = int(kernel.events.where(Kind.ONLINE_PAGES, Phase.RETURN)[0])
    assert kernel.strings[int(kernel.events.caller[row])].startswith("memory_subsys_online+0x")


def test_an_alias_of_a_function_is_known_by_its_event(trace):
    found = trace("run4-final_cycle.txt")
    row = int(found.events.where(Kind.CREATE_PGD_MAPPING_LOCKED)[0])
    assert found.strings[int(found.events.symbol[row])] == "create_kpti_ng_temp_pgd"
    assert int(found.events.column("virt")[0][row]) == 0xFFFF000080000000


def test_tlb_invalidations_are_points_within_a_function(trace):
    found = trace("run4-final_cycle.txt")
    flushes = found.events.where(Kind.TLBI)
    assert flushes.size == fixture_bytes("run4-final_cycle.txt").count(b": tlbi_") == 4
    assert (found.events.phase[flushes] == Phase.POINT).all()
    assert found.strings[int(found.events.symbol[flushes[0]])].startswith("unmap_hotplug_range+0x")


def test_inclusive_ends_become_exclusive(trace):
    events = trace("run3-cycle_mom.txt").events
    added = events.where(Kind.ADD_MEMORY_RESOURCE, Phase.ENTRY)[0]
    assert int(events.column("end")[0][added]) == 0x90000000
    pages = events.where(Kind.ADD_PAGES, Phase.ENTRY)[0]
    assert int(events.column("altmap_end_pfn")[0][pages]) == 0x88000


def test_fields_read_through_a_null_pointer_are_left_out():
    text = (
        " kworker/0:1-11    [000] d....     1.000001: mhp_pg_add: (__add_pages+0x0/0x158) nid=0 pfn=0x80000 nr=0x8000"
        " altmap=0x0 abase=0x801a5044ffff8000 aend=0x1 ares=0x0 afree=0x0\n"
    )
    assert one(text)["args"] == {"nid": 0, "start_pfn": 0x80000, "nr_pages": 0x8000, "altmap": 0}


def test_memmap_on_memory_is_understood(trace):
    found = trace("run3-cycle_mom.txt")
    events = found.events
    online = events.where(Kind.ONLINE_PAGES, Phase.ENTRY)
    assert {int(n) for n in events.column("nr_pages")[0][online]} == {0x7E00}
    assert {found.strings[int(i)] for i in events.text("zone_name")[online]} == {"Movable"}


def test_calls_that_tracer_and_probe_both_saw_are_one_event(trace):
    found = trace("run3-function.txt")
    assert set(found.events.origin.tolist()) <= {Origin.PROBE, Origin.FUNCTION}
    for kind in (Kind.ONLINE_PAGES, Kind.MHP_INIT_MEMMAP_ON_MEMORY):
        assert (
            found.events.where(kind, Phase.ENTRY).size
            == found.events.where(kind).size - found.events.where(kind, Phase.RETURN).size
        )
    text = fixture_bytes("run3-function.txt").decode()
    assert found.events.where(Kind.ONLINE_PAGES, Phase.ENTRY).size == text.count(": online: ")


def test_lost_events_are_a_gap_with_its_window(trace):
    found = trace("run3-trace_pipe_live.txt")
    (gap,) = found.gaps
    assert (gap.cpu, gap.count, gap.line) == (0, 252, 68)
    assert gap.start_ns == 27_687_773_000
    assert gap.end_ns == 27_740_251_000
    # The stack after the gap belongs to an event that was lost.
    before = int(np.flatnonzero(found.events.line == 67)[0])
    assert found.events.stack[before] == -1
    (issue,) = [issue for issue in found.health if issue.code == "lost-events"]
    assert issue.undecided
    assert (issue.start_ns, issue.end_ns) == (gap.start_ns, gap.end_ns)


def test_an_overwritten_buffer_is_reported(trace):
    (issue,) = [issue for issue in trace("run3-lost.txt").health if issue.code == "overwritten"]
    assert issue.count == 160 - 75
    assert issue.undecided
    assert issue.start_ns is None
    assert issue.end_ns == 27_461_894_000


def test_graph_log_without_any_columns(trace):
    found = trace("run2-graph_min.txt.xz")
    assert found.format == "function_graph"
    events = found.events
    assert (events.time_ns == NO_TIME).all()
    assert events.where(Kind.OFFLINE_PAGES, Phase.RETURN).size == 1
    free = int(events.where(Kind.VMEMMAP_FREE, Phase.ENTRY)[0])
    assert int(events.column("start")[0][free]) == 0xFFFFFDFFC2800000
    # Calls that have no return probe still return where their brace closes.
    opened = events.where(Kind.REMOVE_PFN_RANGE_FROM_ZONE, Phase.ENTRY)
    closed = events.where(Kind.REMOVE_PFN_RANGE_FROM_ZONE, Phase.RETURN)
    assert (events.line[opened].tolist(), events.line[closed].tolist()) == ([2861], [2875])
    assert set(events.pid.tolist()) == {38}


GRAPH = """\
# tracer: function_graph
#
  10.000001 |   0)     sh-58     |         |  online_pages(pfn=0x80000, nr_pages=32768) { /* <-device_online+0x1/0x2 */
  10.000002 |   1)   bash-99     |               |  offline_pages() {
  10.000003 |   1)   bash-99     |   0.100 us    |    lru_cache_disable();
  10.000004 |   1)   bash-99     |   9.000 us    |  } /* offline_pages = -16 */
  10.000005 |   0)     sh-58     |   1.000 us    |    move_pfn_range_to_zone();
  10.000006 |   0)     sh-58     | ! 200.0 us    |  } /* online_pages ret=0x0 */
  10.000007 |   0)     sh-58     |   0.300 us    |  arch_add_memory(); /* ret=-12 */
"""


def test_graph_log_with_arguments_and_return_values():
    found = ftrace.read(GRAPH.encode())
    got = [(Kind(row["kind"]).name, Phase(row["phase"]).name, row["pid"], row["args"]) for row in rows(found)]
    minus = 1 << 64
    assert got == [
        ("ONLINE_PAGES", "ENTRY", 58, {"start_pfn": 0x80000, "nr_pages": 32768}),
        ("OFFLINE_PAGES", "ENTRY", 99, {}),
        ("OFFLINE_PAGES", "RETURN", 99, {"ret": minus - 16}),
        ("MOVE_PFN_RANGE_TO_ZONE", "ENTRY", 58, {}),
        ("MOVE_PFN_RANGE_TO_ZONE", "RETURN", 58, {}),
        ("ONLINE_PAGES", "RETURN", 58, {"ret": 0}),
        ("ARCH_ADD_MEMORY", "ENTRY", 58, {}),
        ("ARCH_ADD_MEMORY", "RETURN", 58, {"ret": minus - 12}),
    ]
    assert found.events.time_ns[0] == 10_000_001_000
    assert found.strings[int(found.events.caller[0])] == "device_online+0x1/0x2"


@pytest.mark.parametrize(
    "context",
    [
        "              sh-58      [001] d....     2.020209: {}",
        "              sh-58      [001] d..2     2.020209: {}",
        "              sh-58      [001]     2.020209: {}",
        "              sh-58      (     58) [001] dNh3.     2.020209: {}",
        "              sh-58      (-------) [001] d....     2.020209: {}",
        "              sh-58    [001] (   58) d..1     2.020209: {}",
        "sh-58 [001] d.... 2.020209: {}",
        "      sh-58        1d.... 2020209us!: {}",
        "              sh      58   1 128 00000000 00000003 [001ed371] 2020.209ms (+1.234ms): {}",
        "   sh-58      1d....     2.020209: {}",
        "[    2.500000]       sh-58        1d.... 2020209us : {}",
        "              sh      58 [001]     2.020209: {}",
        "              sh    58/58 [001]     2.020209: {}",
    ],
)
def test_every_layout_of_the_context(context):
    text = context.format(ONLINE)
    if text.startswith("["):
        rule = "[    2.4] ---------------------------------\n".replace("2.4", "2.400000")
        text = f"[    2.300000] Dumping ftrace buffer:\n{rule}{text}\n{rule}[    2.600000] x\n"
    found = ftrace.read((text + "\n").encode())
    assert len(found) == 1
    assert rows(found)[0]["args"] == ONLINE_ARGS
    assert rows(found)[0]["pid"] == 58
    assert rows(found)[0]["cpu"] == 1
    assert found.strings[int(found.events.comm[0])] == "sh"
    assert int(found.events.time_ns[0]) == 2_020_209_000
    assert found.quote(0).endswith(ONLINE)


@pytest.mark.parametrize(
    "comm", ["we ird-1 [00", "a-1 [000] 1.0: x", "<...>", "x: y-2", "(sd-pam)", "kworker/u8:1", "é"]
)
def test_names_with_blanks_and_brackets(comm):
    found = ftrace.read(f"{comm.rjust(16)}-82      [001] d....     2.020209: {ONLINE}\n".encode("latin-1"))
    assert found.events.pid.tolist() == [82]
    assert found.strings[int(found.events.comm[0])].encode("utf-8", "replace")[:2] is not None
    assert found.events.cpu.tolist() == [1]
    if comm.isascii():
        assert found.strings[int(found.events.comm[0])] == comm


@pytest.mark.parametrize(
    ("message", "kind", "phase", "args"),
    [
        ("p_online_pages_0: (online_pages+0x0/0x368) pfn=1", Kind.ONLINE_PAGES, Phase.ENTRY, {"start_pfn": 1}),
        (
            "r_online_pages_0: (device_online+0x8/0x9 <- online_pages) arg1=0x0",
            Kind.ONLINE_PAGES,
            Phase.RETURN,
            {"arg1": 0},
        ),
        (
            "online_pages__exit: (device_online+0x8/0x9 <- online_pages) ret=-16",
            Kind.ONLINE_PAGES,
            Phase.RETURN,
            {"ret": -16},
        ),
        ("probe:online_pages: (ffff800080262110) pfn=0x1", Kind.ONLINE_PAGES, Phase.ENTRY, {"start_pfn": 1}),
        ("mine: (online_pages+0x4/0x368) nr_pages=5", Kind.ONLINE_PAGES, Phase.ENTRY, {"nr_pages": 5}),
        ("mine_done: (f+0x4/0x368 <- online_pages) ret=0xfffffff0", Kind.ONLINE_PAGES, Phase.RETURN, {"ret": -16}),
        ("x_ret: ([unknown/kretprobe'd] <- vmemmap_populate) ret=0", Kind.VMEMMAP_POPULATE, Phase.RETURN, {"ret": 0}),
        (
            "dax: (devm_memremap_pages+0x0/0x9 [dax] <- memremap_pages [m]) ret=1",
            Kind.MEMREMAP_PAGES,
            Phase.RETURN,
            {"ret": 1},
        ),
        (
            "sec_deact: (section_deactivate.isra.0+0x0/0x98) pfn=7",
            Kind.SECTION_DEACTIVATE,
            Phase.ENTRY,
            {"start_pfn": 7},
        ),
        ("online_pages <-memory_subsys_online", Kind.ONLINE_PAGES, Phase.ENTRY, {}),
        ("online_pages+0x4/0x10 <-memory_subsys_online+0x1/0x2", Kind.ONLINE_PAGES, Phase.ENTRY, {}),
        (
            "online_pages(pfn=0x5, nr_pages=3, zone=0x0) <-x",
            Kind.ONLINE_PAGES,
            Phase.ENTRY,
            {"start_pfn": 5, "nr_pages": 3, "zone": 0},
        ),
        ("function:             online_pages <-- memory_subsys_online", Kind.ONLINE_PAGES, Phase.ENTRY, {}),
        (
            "mhp_online: __probe_ip=0xffff8000 (-14) pfn=0x80000 (524288)",
            Kind.ONLINE_PAGES,
            Phase.ENTRY,
            {"start_pfn": 0x80000},
        ),
    ],
)
def test_every_way_to_name_a_call(message, kind, phase, args):
    row = one(f"              sh-58      [001] d....     2.020209: {message}\n")
    assert (row["kind"], row["phase"]) == (kind, phase)
    assert row["args"] == {name: value % 2**64 for name, value in args.items()}


@pytest.mark.parametrize(
    "message",
    [
        "map: IOMMU: iova=0x0 - 0x1000 paddr=0x80000000 size=4096",
        "online: state=1",
        "kmalloc: call_site=online_pages+0x10/0x20 ptr=0",
        "tracing_mark_write: B|12|online_pages",
        "middle: (online_pages+0x40/0x368) x=1",
        "sched_switch: prev_comm=online prev_pid=1",
    ],
)
def test_what_only_looks_like_hotplug_is_left_out(message):
    assert len(ftrace.read(f"              sh-58      [001] d....     2.020209: {message}\n".encode())) == 0


def test_markers_keep_their_text():
    found = ftrace.read(
        b"              sh-58      [001] .....     2.0: tracing_mark_write: mhp-audit: begin kernel=6.12\n"
    )
    assert rows(found)[0]["args"] == {"text": "mhp-audit: begin kernel=6.12"}


def test_user_and_kernel_stacks_go_to_the_event_of_their_task():
    text = (
        f"              sh-58      [001] d....     2.000001: {ONLINE}\n"
        "            bash-59      [000] d....     2.000002: sched_switch: prev_comm=bash\n"
        "            bash-59      [000] d....     2.000003: <stack trace>\n"
        " => noise\n"
        "              sh-58      [001] d....     2.000004: <stack trace>\n"
        " => online_pages+0x0/0x368\n => state_store <ffff800080000000>\n"
        "              sh-58      [001] d....     2.000005: <user stack trace>\n"
        " => /bin/sh[+0x10]\n =>  <0000aaaa>\n"
    )
    found = ftrace.read(text.encode())
    assert len(found) == 1
    assert found.stacks[int(found.events.stack[0])] == ("online_pages", "state_store")
    assert found.stacks[int(found.events.user_stack[0])][0] == "/bin/sh[+0x10]"


def test_a_stack_of_another_event_of_the_task_is_not_taken():
    text = (
        f"              sh-58      [001] d....     2.000001: {ONLINE}\n"
        "              sh-58      [001] d....     2.000003: sched_switch: x\n"
        "              sh-58      [001] d....     2.000004: <stack trace>\n => schedule\n"
    )
    assert ftrace.read(text.encode()).events.stack.tolist() == [-1]


def test_call_chains_of_perf_script():
    text = (
        "ndctl     81 [001]     2.556945: probe:vmemmap_free: (ffff800080029800) start=0x1000 end=0x2000\n"
        "\tffff800080029800 vmemmap_free+0x0 ([kernel.kallsyms])\n"
        "\tffff8000802a5824 section_deactivate+0x1d4 ([kernel.kallsyms])\n\n"
    )
    found = ftrace.read(text.encode())
    assert found.format == "perf script"
    assert found.stacks[int(found.events.stack[0])] == ("vmemmap_free", "section_deactivate")


def test_events_of_the_page_allocator_are_read_near_hotplug_only():
    page = "              sh-58      [001] d....     2.000001: mm_page_free: page=00000000{:08x} pfn=0x{:x} order=9\n"
    line = "              sh-58      [001] d....     2.000001: {}\n"
    near = line.format(ONLINE) + page.format(1, 2) + line.format(ONLINE)
    far = "".join(page.format(i, i) for i in range(3000))
    found = ftrace.read((far + near + far).encode())
    assert found.events.where(Kind.MM_PAGE_FREE).size == 1
    assert rows(found)[1]["args"] == {"start_pfn": 2, "order": 9}


def test_a_count_for_a_clock_is_reported():
    found = ftrace.read(f"              sh-58      [001] d....           17: {ONLINE}\n".encode())
    assert found.events.time_ns.tolist() == [17]
    assert "clock-without-time" in {issue.code for issue in found.health}


def test_hotplug_messages_of_a_kernel_log():
    text = (
        "[    5.834834] Built 1 zonelists, mobility grouping on.  Total pages: 90442\n"
        "[    6.000000] memory offlining [mem 0x80000000-0x87ffffff] failed due to signal backoff\n"
        "[    6.000001] usb 1-1: new device\n"
    )
    found = ftrace.read(text.encode())
    assert found.format == "dmesg"
    assert [row["kind"] for row in rows(found)] == [Kind.LOG, Kind.LOG]
    assert rows(found)[1]["args"]["end"] == 0x88000000


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (b"# tracer: nop\n#\n58 1 2020209 type: 1234\n", "raw"),
        (b"# tracer: nop\n#\n3a 00 00 00 01 00 00 00 9f\n", "hex"),
    ],
)
def test_options_that_leave_out_names_are_refused(text, word):
    with pytest.raises(FormatError, match=word):
        ftrace.read(text)


def test_a_file_without_line_ends_is_refused():
    with pytest.raises(FormatError, match="longer than"):
        ftrace.read(b"# tracer: nop\n" + b"x" * (20 << 20))


def test_a_file_that_does_not_exist(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        ftrace.read(tmp_path / "trace")


def test_a_file_is_read_in_blocks_with_the_same_result(tmp_path, monkeypatch):
    whole = ftrace.read(fixture_bytes("run2-cycle_stack.txt.xz"))
    path = tmp_path / "trace"
    path.write_bytes(fixture_bytes("run2-cycle_stack.txt.xz"))
    seen = []
    monkeypatch.setattr(scan, "BLOCK_SIZE", 4096)
    cut = ftrace.read(path, progress=lambda done, total: seen.append((done, total)))
    assert rows(cut) == rows(whole)
    assert cut.events.line.tolist() == whole.events.line.tolist()
    assert cut.events.offset.tolist() == whole.events.offset.tolist()
    assert [cut.stacks[i] for i in cut.events.stack] == [whole.stacks[i] for i in whole.events.stack]
    assert seen[-1] == (path.stat().st_size,) * 2
    assert len(seen) > 5
    assert cut.quote(0) == whole.quote(0)


@given(st.binary(max_size=400))
def test_damage_gives_errors_of_our_own_or_events(noise):
    text = f"              sh-58      [001] d....     2.020209: {ONLINE}\n".encode()
    try:
        found = ftrace.read(text + noise + b"\n" + text)
    except InputError:
        return
    assert len(found) >= 1


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.sampled_from(["0x{:x}", "{}"]))
def test_numbers_are_exact(address, seconds, style):
    message = f"x: (arch_add_memory+0x0/0x1) pgprot={style.format(address)}"
    found = ftrace.read(f"     sh-58      [001] d....     {seconds}.123456: {message}\n".encode())
    assert rows(found)[0]["args"] == {"pgprot": address}
    if seconds < 2**33:
        assert int(found.events.time_ns[0]) == seconds * 10**9 + 123456000


@pytest.mark.parametrize(
    ("name", "expected"),
    [("pmem.trace", True), ("pmem.dat", True), ("run3-report-v6.txt", True), ("run3-trace_pipe_live.txt", True)],
)
def test_traces_are_recognised(name, expected):
    assert ftrace.looks_like(fixture_bytes(name)[:4096]) is expected


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"00000000-03ffffff : reserved\n40000000-7fffffff : System RAM\n",
        b"[    0.000000] Booting Linux on physical CPU 0x0\n",
        b"0xffff000000000000-0xffff000000200000           2M PMD       RW NX SHD AF\n",
        b"Node 0, zone      DMA\n  per-node stats\n      nr_inactive_anon 0\n",
        b"\x7fELF\x02\x01\x01" + bytes(100),
    ],
)
def test_other_files_are_not_taken_for_traces(text):
    assert not ftrace.looks_like(text)


def test_a_graph_log_is_read_in_blocks_with_the_same_result(monkeypatch):
    whole = ftrace.read(fixture_bytes("run2-graph_min.txt.xz"))
    for size in (700, 5000):
        monkeypatch.setattr(scan, "BLOCK_SIZE", size)
        cut = ftrace.read(fixture_bytes("run2-graph_min.txt.xz"))
        assert rows(cut) == rows(whole)
        assert cut.events.line.tolist() == whole.events.line.tolist()
        assert cut.events.offset.tolist() == whole.events.offset.tolist()


def test_calls_that_never_end_do_not_take_forever(monkeypatch):
    monkeypatch.setattr(graph, "_MAX_OPEN", 16)
    log = "# tracer: function_graph\n" + " 0)               |  online_pages() {\n" * 2000
    found = ftrace.read(log.encode())
    assert found.events.where(Kind.ONLINE_PAGES, Phase.RETURN).size == 0
    assert len(found) == 2000
    assert "is not in the trace" in found.diagnostics[0].message


def test_a_ring_buffer_dumped_into_the_log_keeps_its_lines():
    rule = "[    2.400000] ---------------------------------\n"
    body = "".join(f"[    2.500000]       sh-58        1d.... {n}us : {ONLINE}\n" for n in range(1, 6))
    stack = "[    2.500000]       sh-58        1d.... 6us : <stack trace>\n[    2.500000]  => online_pages\n"
    text = f"[    2.300000] Dumping ftrace buffer:\n{rule}{body}{stack}{rule}[    2.600000] Kernel panic\n"
    found = ftrace.read(text.encode())
    assert found.events.line.tolist() == [3, 4, 5, 6, 7]
    for row, line in enumerate(found.events.line.tolist()):
        assert found.quote(row) == text.splitlines()[line - 1]
    assert found.stacks[int(found.events.stack[4])] == ("online_pages",)
    assert found.buffers[int(found.events.buffer[0])].name == "dump"
    assert ftrace.looks_like(text.encode())


def test_lost_events_of_a_graph_log_leave_everything_undecided():
    log = GRAPH + "CPU:1 [LOST 12 EVENTS]\n"
    (issue,) = [issue for issue in ftrace.read(log.encode()).health if issue.code == "lost-events"]
    assert (issue.cpu, issue.count, issue.line) == (1, 12, log.count("\n"))
    assert issue.undecided


def test_the_example_of_the_documentation_runs():
    assert doctest.testmod(ftrace) == (0, 3)

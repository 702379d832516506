"""What a trace cannot prove is said, with the window of time in which it cannot."""

from __future__ import annotations

import lzma

import pytest

from parsers import ftrace
from parsers.ftrace.functions import Kind
from parsers.ftrace.health import kprobe_misses
from tests.cases import FIXTURES


def line(time: float, message: str, pid: int = 58, cpu: int = 0) -> str:
    return f"              sh-{pid:<7} [{cpu:03d}] d....     {time:.6f}: {message}\n"


def call(
    time: float, name: str, arguments: str = "start=0xfffffdffc2000000 end=0xfffffdffc2200000", **where: int
) -> str:
    return line(time, f"mhp_{name}: ({FUNCTION[name]}+0x0/0x10) {arguments}", **where)


def returned(time: float, name: str, result: str = "ret=0", **where: int) -> str:
    return line(time, f"mhp_{name}_ret: (caller+0x8/0x10 <- {FUNCTION[name]}) {result}", **where)


FUNCTION = {
    "vmm_pop": "vmemmap_populate",
    "online": "online_pages",
    "arch_add": "arch_add_memory",
    "pg_add": "__add_pages",
}


def issues(text: str) -> dict[str, list]:
    found: dict[str, list] = {}
    for issue in ftrace.read(text.encode()).health:
        found.setdefault(issue.code, []).append(issue)
    return found


def test_complete_calls_are_healthy():
    text = call(1, "vmm_pop") + returned(2, "vmm_pop") + call(3, "vmm_pop") + returned(4, "vmm_pop")
    assert issues(text) == {}


def test_a_missed_return_is_undecided_until_the_next_entry():
    text = call(1, "vmm_pop") + call(3, "vmm_pop") + returned(4, "vmm_pop")
    (issue,) = issues(text)["missed-return"]
    assert (issue.start_ns, issue.end_ns) == (1_000_000_000, 3_000_000_000)
    assert issue.undecided
    assert issue.kinds == (Kind.VMEMMAP_POPULATE,)
    assert issue.rows == (0,)


def test_calls_of_different_tasks_do_not_pair():
    text = call(1, "vmm_pop", pid=58) + call(2, "vmm_pop", pid=59)
    text += returned(3, "vmm_pop", pid=58) + returned(4, "vmm_pop", pid=59)
    assert issues(text) == {}


def test_a_task_that_changes_its_cpu_still_pairs():
    assert issues(call(1, "vmm_pop", cpu=0) + returned(2, "vmm_pop", cpu=1)) == {}


def test_calls_over_the_ends_of_the_trace_only_explain():
    found = issues(returned(1, "vmm_pop") + call(2, "vmm_pop") + returned(3, "vmm_pop") + call(4, "vmm_pop"))
    assert not found["return-without-entry"][0].undecided
    assert found["return-without-entry"][0].rows == (0,)
    assert found["call-unfinished"][0].rows == (3,)


def test_a_function_without_return_probe_is_named():
    found = issues(call(1, "online", "pfn=0x80000 nr=0x8000"))
    assert found["missing-return-probe"][0].kinds == (Kind.ONLINE_PAGES,)


def test_calls_that_are_never_seen_inside_lack_a_probe():
    text = call(1, "arch_add", "nid=0 start=0x80000000 size=0x8000000") + returned(2, "arch_add")
    missing = {issue.kinds[0] for issue in issues(text)["missing-probe"]}
    assert missing == {Kind.ADD_PAGES, Kind.SPARSE_ADD_SECTION, Kind.VMEMMAP_POPULATE}


def test_a_clock_that_goes_back_is_reported_and_not_repaired():
    text = call(5, "vmm_pop") + returned(6, "vmm_pop") + call(2, "vmm_pop") + returned(3, "vmm_pop")
    found = ftrace.read(text.encode())
    (issue,) = [issue for issue in found.health if issue.code == "clock-goes-back"]
    assert (issue.start_ns, issue.end_ns) == (2_000_000_000, 6_000_000_000)
    assert issue.line == 3
    assert found.events.time_ns.tolist() == [s * 10**9 for s in (5, 6, 2, 3)]


@pytest.mark.parametrize(
    "arguments",
    ["start=0x5 end=0x7", "start=0xfffffdffc2200000 end=0xfffffdffc2000000", "start=0xfffffdffc2000000 nid=65536"],
)
def test_values_that_no_call_has_betray_a_reused_event(arguments):
    found = issues(call(1, "vmm_pop", arguments) + returned(2, "vmm_pop"))
    assert found["reused-event-id"][0].rows == (0,)
    assert found["reused-event-id"][0].undecided


def test_stale_bytes_after_a_pointer_that_is_not_null():
    text = call(1, "pg_add", "nid=0 pfn=0x80000 nr=0x8000 altmap=0xffff000043c09540 abase=0x801a5044ffff8000")
    assert issues(text + returned(2, "pg_add"))["stale-derived"][0].rows == (0,)


def test_calls_without_arguments_are_reported():
    assert issues(line(1, "vmemmap_free <-section_deactivate"))["no-arguments"][0].kinds == (Kind.VMEMMAP_FREE,)


def test_buffer_started_hides_what_was_before():
    text = "##### CPU 1 buffer started ####\n" + call(3, "vmm_pop", cpu=1) + returned(4, "vmm_pop", cpu=1)
    (issue,) = issues(text)["buffer-started"]
    assert (issue.cpu, issue.start_ns, issue.end_ns) == (1, None, 3_000_000_000)


@pytest.mark.parametrize("loss", ["CPU:1 [LOST 5 EVENTS]", "CPU:1 [LOST EVENTS]", "CPU:1 [5 EVENTS DROPPED]"])
def test_every_way_to_say_that_events_were_lost(loss):
    text = call(1, "vmm_pop", cpu=1) + loss + "\n" + line(1.5, "other: x", cpu=0) + returned(2, "vmm_pop", cpu=1)
    (issue,) = issues(text)["lost-events"]
    assert (issue.start_ns, issue.end_ns) == (1_000_000_000, 2_000_000_000)
    assert issue.count == (5 if "5" in loss else None)


def test_a_trace_without_hotplug_says_so():
    assert "no-events" in issues("# tracer: nop\n")


def test_misses_of_kretprobes():
    text = "  mhp/mhp_online            4               0\n  mhp/mhp_online_ret            3               1\n"
    assert kprobe_misses(text) == {"mhp_online_ret": 1}


HEAD = "# tracer: nop\n#\n# entries-in-buffer/entries-written: {0}/{0}   #P:2\n"
STACK = line(1.0, "<stack trace>") + " => vmemmap_populate\n => sparse_add_section\n"


def test_a_file_with_less_than_its_head_announces_lost_lines_somewhere():
    whole = HEAD.format(4) + (call(1.0, "vmm_pop") + STACK) * 2
    assert "entries-missing" not in issues(whole)
    [lost] = issues(whole[: whole.rindex(STACK)])["entries-missing"]
    assert lost.undecided
    assert (lost.start_ns, lost.end_ns, lost.count) == (None, None, 1)
    [cut] = issues(whole[: whole.rindex(STACK) + 9])["entries-missing"]
    assert (cut.start_ns, cut.end_ns, cut.count) == (1_000_000_000, None, 1)


def test_who_leaves_out_all_stacks_and_nothing_else_did_not_lose_anything():
    mark = line(0.5, "tracing_mark_write: begin")
    assert "entries-missing" not in issues(HEAD.format(4) + call(1.0, "vmm_pop") * 2)
    assert "entries-missing" not in issues(HEAD.format(5) + mark + call(1.0, "vmm_pop") * 2)
    assert "entries-missing" in issues(HEAD.format(4) + mark + call(1.0, "vmm_pop") * 2)
    assert "entries-missing" in issues(HEAD.format(3) + call(1.0, "vmm_pop") * 2)
    # Every second line may be lost as well.
    assert not ftrace.read((HEAD.format(4) + call(1.0, "vmm_pop") * 2).encode()).is_counted


@pytest.mark.parametrize("time", ["     1.500000", " 1500000000"])
@pytest.mark.parametrize("flags", ["d.... ", ""])
def test_entries_are_counted_whatever_the_clock_and_the_options(time, flags):
    entry = f"              sh-58      [001] {flags}{time}: vmm_pop: (vmemmap_populate+0x0/0x68) node=0\n"
    assert "entries-missing" not in issues(HEAD.format(2) + entry * 2)
    assert "entries-missing" in issues(HEAD.format(3) + entry * 2)


def test_entries_of_long_files_are_counted_too(monkeypatch):
    monkeypatch.setattr("parsers.ftrace.text._COUNTED", 0)
    whole = HEAD.format(4) + "# a comment\n" + (call(1.0, "vmm_pop") + STACK) * 2
    assert "entries-missing" not in issues(whole)
    assert "entries-missing" in issues(whole.replace(STACK, "", 1))


def test_a_trace_dat_that_is_cut_short_lost_events():
    data = lzma.decompress((FIXTURES / "ftrace/run3-v6.dat.xz").read_bytes())
    assert not any(issue.undecided for issue in ftrace.read(data).health)
    [cut, *_] = ftrace.read(data[: len(data) - 5000]).health
    assert (cut.code, cut.undecided) == ("damaged-file", True)


def test_only_heads_of_the_trace_file_and_trace_dat_count_entries():
    def is_counted(text):
        return ftrace.read(text.encode()).is_counted

    assert is_counted(HEAD.format(2) + call(1.0, "vmm_pop") * 2)
    assert not is_counted(call(1.0, "vmm_pop") * 2)
    assert not is_counted("cpus=2\n" + call(1.0, "vmm_pop") * 2)
    assert ftrace.read((FIXTURES / "ftrace/pmem.dat").read_bytes()).is_counted

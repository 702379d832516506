"""The replay: laws that hold for every trace, and what real traces replay to."""

from __future__ import annotations

import json
import lzma
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.audit import audit
from analyzer.sources.read import Request
from analyzer.timeline.timeline_command import command
from parsers import ftrace
from parsers.ftrace.functions import Kind
from parsers.layout import KernelLayout
from parsers.ranges import Ranges
from parsers.uname import KernelRelease, parse_uname
from rules.engine import Outcome
from rules.finding import UndecidedError
from rules.model.memory.regions import LinearMap, Vmemmap
from rules.model.memory.snapshots import Earlier
from rules.model.replay.behaviour import Leaf
from rules.model.replay.state import NO, UNKNOWN, YES, Trouble
from rules.model.replay.timeline import Timeline
from tests.parsers.ftrace.test_unnamed import unnamed
from tests.rules.traces import VMEMMAP, Tracer

FIXTURES = Path(__file__).parents[2] / "fixtures"
CAPTURES = FIXTURES / "captures"
REAL = sorted(CAPTURES.glob("*/*/trace"))
MIB = 1 << 20
LOST = Ranges.pairs([(0x80000, 0x82000), (0x84000, 0x88000)])


def replayed(text):
    data = text if isinstance(text, bytes) else text.encode()
    return Timeline.replay(ftrace.read(data, path="trace"), None, None)


def story(timeline):
    """The state after the last event and the anomalies, without the numbers of calls."""
    state = timeline.state
    columns = (state.valid, state.mapped, state.leaf, state.linear, state.online, state.lost, state.self_hosted)
    return (
        [column.tolist() for column in (state.start_pfn, *columns)],
        [(one.trouble, one.pfns, one.text) for one in timeline.anomalies],
    )


def events(path):
    """Lines of events of a trace, without headers and stacks."""
    lines = path.read_text().splitlines()
    return [line for line in lines if not line.startswith(("#", " =>")) and "<stack trace>" not in line]


def joined(lines):
    return "# tracer: nop\n#\n" + "".join(f"{line}\n" for line in lines)


def audited(*paths, only=()):
    return audit(Request(paths), only=only)


# Laws.


@pytest.mark.parametrize("path", REAL, ids=lambda path: f"{path.parent.parent.name}/{path.parent.name}")
def test_cpu_does_not_matter_and_pids_are_only_names(path):
    lines = events(path)
    moved = [re.sub(r"\[\d{3}\]", f"[{number % 4:03d}]", line, count=1) for number, line in enumerate(lines)]
    renamed = [re.sub(r"-(\d+)( +\[)", lambda m: f"-{int(m[1]) + 7000}{m[2]}", line, count=1) for line in moved]
    assert story(replayed(joined(lines))) == story(replayed(joined(renamed)))


@pytest.mark.parametrize("path", REAL, ids=lambda path: f"{path.parent.parent.name}/{path.parent.name}")
def test_stacks_do_not_matter(path):
    assert story(replayed(path.read_bytes())) == story(replayed(joined(events(path))))


@pytest.mark.parametrize("path", REAL, ids=lambda path: f"{path.parent.parent.name}/{path.parent.name}")
def test_what_was_noticed_stays_noticed_when_the_trace_goes_on(path):
    lines = events(path)
    whole = {(one.trouble, one.pfns) for one in replayed(joined(lines)).anomalies}
    for cut in (len(lines) // 3, len(lines) // 2, len(lines) - 1):
        earlier = {(one.trouble, one.pfns) for one in replayed(joined(lines[:cut])).anomalies}
        assert earlier <= whole


@pytest.mark.parametrize("path", REAL, ids=lambda path: f"{path.parent.parent.name}/{path.parent.name}")
def test_steps_lead_from_state_to_state(path):
    timeline = replayed(path.read_bytes())
    seen = {}
    for step in timeline.steps():
        key = (step.first_section, step.last_section)
        for section in range(step.first_section, step.last_section + 1):
            seen[section] = (key, step)
    for (first, last), step in seen.values():
        if all(seen[section][1] is step for section in range(first, last + 1)):
            pages = timeline.calibration.pages_per_section
            rows = (timeline.state.start_pfn >= first * pages) & (timeline.state.start_pfn < (last + 1) * pages)
            assert step.after.valid == int((timeline.state.valid[rows] == YES).sum())


def test_stray_returns_change_nothing():
    tracer = Tracer()
    tracer.add(2 << 30, 128 * MIB)
    tracer.online(2 << 30, 128 * MIB)
    whole = story(tracer.replay())
    stray = Tracer(lines=list(tracer.lines), pid=555)
    for name, function in (("mhp_online_ret", "online_pages"), ("mhp_vmm_free_ret", "vmemmap_free")):
        stray.event(name, function, "ret=0")
    stray.lines.insert(0, stray.lines.pop())
    assert story(stray.replay()) == whole


def test_a_task_may_move_between_entry_and_return():
    one, two = Tracer(), Tracer()
    for tracer in (one, two):
        tracer.event("mhp_arch_add", "arch_add_memory", "nid=0 start=0x80000000 size=0x8000000 altmap=0x0")
        if tracer is two:
            tracer.cpu = 3
            other = Tracer(pid=200, lines=two.lines)
            other.event("mhp_unmap", "unmap_hotplug_range", "addr=0xffff000090000000 end=0xffff000098000000 free=0")
        tracer.event("mhp_arch_add_ret", "arch_add_memory", "ret=0")
    calls = two.replay().calls
    (add,) = np.flatnonzero(calls.kind == calls.kind[0])
    assert calls.ret_known[add]
    assert calls.end_row[add] == 2
    assert story(one.replay()) == story(two.replay())


def test_returns_of_void_functions_are_not_needed():
    whole, bare = Tracer(whole_sections_only=False), Tracer(whole_sections_only=False)
    for tracer in (whole, bare):
        for start, size in ((0, 32), (32, 32), (64, 64)):
            tracer.add((2 << 30) + start * MIB, size * MIB)
        tracer.remove((2 << 30) + 32 * MIB, 32 * MIB)
    void = ("mhp_arch_rem_ret", "mhp_vmm_free_ret", "mhp_sec_rem_ret")
    bare.lines = [line for line in bare.lines if not any(name in line for name in void)]
    assert len(bare.lines) == len(whole.lines) - 3
    assert story(bare.replay()) == story(whole.replay())
    assert bare.replay().lost == LOST


UNITS = 24
STARTS = st.integers(0, UNITS - 1)


@st.composite
def histories(draw):
    """(add or remove, first unit, number of units): only what is there is removed, only what is not is added."""
    there, history = {}, []
    for _ in range(draw(st.integers(1, 14))):
        if there and draw(st.booleans()):
            start = draw(st.sampled_from(sorted(there)))
            history.append(("remove", start, there.pop(start)))
            continue
        start, size = draw(STARTS), draw(st.integers(1, 8))
        free = all(start + size <= other or other + length <= start for other, length in there.items())
        if free and start + size <= UNITS:
            there[start] = size
            history.append(("add", start, size))
    return history


def model(history, tracer, unit):
    """(valid, mapped) units by the definition: a removal clears every leaf that it touches, whole."""
    leaf_bytes = tracer.page_size
    valid, leaves, base = set(), {}, (2 << 30)

    def struct_pages(start, size):
        first = (base + start * unit) // tracer.page_size * tracer.struct_page
        return range(first, first + size * unit // tracer.page_size * tracer.struct_page)

    def span(address):
        return (2 << 20) if leaves.get(address // leaf_bytes) == "pmd" else leaf_bytes

    for what, start, size in history:
        addresses = struct_pages(start, size)
        units = set(range(start, start + size))
        if what == "add":
            valid |= units
            by_block = tracer.page_size == 4096 and not tracer.whole_sections_only
            step = (2 << 20) if by_block else leaf_bytes
            count = -(-(addresses.stop - addresses.start) // step) if not by_block else None
            first = addresses.start // step * step
            end = first + count * step if count is not None else -(-addresses.stop // step) * step
            for address in range(first, end, leaf_bytes):
                leaves.setdefault(address // leaf_bytes, "pmd" if by_block else "pte")
        else:
            valid -= units
            for address in range(addresses.start, addresses.stop, leaf_bytes):
                wide = span(address)
                low = address // wide * wide
                for part in range(low, low + wide, leaf_bytes):
                    leaves.pop(part // leaf_bytes, None)
            last = addresses.stop - 1
            wide = span(last)
            for part in range(last // wide * wide, last // wide * wide + wide, leaf_bytes):
                leaves.pop(part // leaf_bytes, None)
    mapped = {
        number for number in range(UNITS)
        if all(address // leaf_bytes in leaves for address in struct_pages(number, 1)[::leaf_bytes] )
        and (struct_pages(number, 1)[-1] // leaf_bytes) in leaves
    }  # fmt: skip
    return valid, mapped


@settings(max_examples=60, deadline=None)
@given(
    history=histories(),
    kernel=st.sampled_from([(4096, 128, True), (4096, 128, False), (16384, 128, True), (65536, 512, True)]),
)
def test_any_history_replays_to_the_set_model(history, kernel):
    page_size, section, whole_sections_only = kernel
    tracer = Tracer(page_size=page_size, section=section * MIB, whole_sections_only=whole_sections_only)
    unit, base = 2 * MIB, 2 << 30
    for what, start, size in history:
        getattr(tracer, what)(base + start * unit, size * unit)
    if not tracer.lines:
        return
    timeline = tracer.replay()
    valid, mapped = model(history, tracer, unit)
    state, pages = timeline.state, unit // page_size
    row = {int(pfn): number for number, pfn in enumerate(state.start_pfn.tolist())}
    for number in range(UNITS):
        here = row.get((base + number * unit) // page_size)
        if here is None:
            continue
        touched = any(start <= number < start + size for _, start, size in history)
        assert (state.valid[here] == YES) == (number in valid)
        assert (state.linear[here] == YES) == (number in valid)
        if touched:
            assert (state.mapped[here] == YES) == (number in mapped), (number, pages)
    lost = {
        number
        for number in valid
        if (base + number * unit) // page_size in row and state.lost[row[(base + number * unit) // page_size]]
    }
    assert valid - mapped <= lost | {
        number for one in timeline.of(Trouble.POPULATED_TOO_LITTLE) for number in range(UNITS)
        if one.pfns.contains([(base + number * unit) // page_size])[0]
    }  # fmt: skip


# What the kernel does.


def test_offline_without_a_return_is_not_known():
    tracer = Tracer()
    tracer.add(2 << 30, 128 * MIB)
    tracer.online(2 << 30, 128 * MIB)
    tracer.offline(2 << 30, 128 * MIB, ret=None)
    timeline = tracer.replay()
    assert (timeline.state.online == UNKNOWN).all()
    tracer.remove(2 << 30, 128 * MIB)
    assert Trouble.REMOVE_WHILE_ONLINE in tracer.replay().blind


def test_pages_that_leave_their_zone_are_offline():
    tracer = Tracer()
    tracer.add(2 << 30, 128 * MIB)
    tracer.online(2 << 30, 128 * MIB)
    tracer.offline(2 << 30, 128 * MIB, ret=None)
    tracer.event("mhp_zone_rem", "remove_pfn_range_from_zone", "zone=0xffff0000 pfn=0x80000 nr=0x8000")
    assert (tracer.replay().state.online == NO).all()


def test_failed_offline_leaves_memory_online():
    tracer = Tracer()
    tracer.add(2 << 30, 128 * MIB)
    tracer.online(2 << 30, 128 * MIB)
    tracer.offline(2 << 30, 128 * MIB, ret=-16)
    assert (tracer.replay().state.online == YES).all()


def test_struct_page_of_80_bytes_shares_blocks_between_sections():
    tracer = Tracer(struct_page=80)
    tracer.add(2 << 30, 128 * MIB)
    tracer.add((2 << 30) + 128 * MIB, 128 * MIB)
    timeline = tracer.replay()
    assert timeline.calibration.struct_page_size == 80
    tracer.remove((2 << 30) + 128 * MIB, 128 * MIB)
    timeline = tracer.replay()
    # Half a MiB of the first section's struct pages lies in the block that the second begins in.
    assert timeline.lost == Ranges.one(0x86600, 0x88000)


def test_blocks_shared_by_sections_are_predicted(tmp_path):
    tracer = Tracer(struct_page=80)
    tracer.add(2 << 30, 128 * MIB)
    tracer.add((2 << 30) + 128 * MIB, 128 * MIB)
    (tmp_path / "trace").write_text(tracer.text)
    (finding,) = [one for one in audited(tmp_path / "trace").findings if one.rule.code == "VMM-05"]
    assert "80 bytes" in finding.hit.message


def test_removal_of_part_of_a_whole_section_is_predicted_as_vmm_01c(tmp_path):
    tracer = Tracer()
    tracer.add(2 << 30, 128 * MIB)
    tracer.remove((2 << 30) + 64 * MIB, 32 * MIB)
    (tmp_path / "trace").write_text(tracer.text)
    found = [one for one in audited(tmp_path / "trace").findings if one.rule.code == "VMM-01"]
    assert [one.hit.title for one in found if "VMM-01c" in one.hit.title]
    assert tracer.replay().lost == Ranges.pairs([(0x80000, 0x84000), (0x86000, 0x88000)])


def test_two_tasks_at_the_same_time_are_noticed():
    tracer = Tracer()
    tracer.event("mhp_arch_add", "arch_add_memory", "nid=0 start=0x80000000 size=0x8000000 altmap=0x0")
    other = Tracer(pid=200, lines=tracer.lines)
    other.event("mhp_arch_add", "arch_add_memory", "nid=0 start=0x90000000 size=0x8000000 altmap=0x0")
    tracer.event("mhp_arch_add_ret", "arch_add_memory", "ret=0")
    other.event("mhp_arch_add_ret", "arch_add_memory", "ret=0")
    assert [one.pfns for one in tracer.replay().of(Trouble.CONCURRENT)] == [Ranges.one(0x90000, 0x98000)]


def test_remapped_struct_pages_are_no_block_any_more():
    tracer = Tracer()
    tracer.add(2 << 30, 128 * MIB)
    start = VMEMMAP + 0x80000 * 64
    tracer.event("mhp_hvo_walk", "vmemmap_remap_range", f"start={start:#x} end={start + 0x8000:#x}")
    assert set(tracer.replay().state.leaf.tolist()) == {Leaf.PTE}


def test_allocations_tell_the_fallback_that_no_probe_shows():
    tracer = Tracer()
    tracer.add(2 << 30, 128 * MIB)
    at = next(number for number, line in enumerate(tracer.lines) if "vmm_pop_ret" in line)
    asked = Tracer()
    asked.event("mhp_vmm_blk", "vmemmap_alloc_block_buf", "size=0x1000 nid=0 altmap=0x0")
    tracer.lines[at:at] = asked.lines
    assert set(tracer.replay().state.leaf.tolist()) == {Leaf.PTE}


@pytest.mark.parametrize(("order", "leaf"), [(9, Leaf.PMD), (0, Leaf.UNKNOWN)])
def test_page_allocator_tells_the_leaf_where_populate_has_no_probe(order, leaf):
    tracer = Tracer()
    tracer.event("mhp_arch_add", "arch_add_memory", "nid=0 start=0x80000000 size=0x2000000 altmap=0x0")
    tracer.event("mhp_pg_add", "__add_pages", "nid=0 pfn=0x80000 nr=0x2000 altmap=0x0")
    tracer.event("mm_page_alloc", "x", f"page=0xffff pfn=0x44000 order={order} migratetype=0 gfp_flags=GFP_KERNEL")
    tracer.lines[-1] = re.sub(r"\(x\+0x0/0x100\) ", "", tracer.lines[-1])
    tracer.event("mhp_arch_add_ret", "arch_add_memory", "ret=0")
    timeline = tracer.replay()
    assert timeline.state.leaf[timeline.state.valid == YES].tolist() == [leaf] * 16


def test_whole_sections_without_populate_probes_are_blocks_and_their_rest_is_not_known():
    tracer = Tracer()
    tracer.event("mhp_arch_add", "arch_add_memory", "nid=0 start=0x80000000 size=0xa000000 altmap=0x0")
    tracer.event("mhp_pg_add", "__add_pages", "nid=0 pfn=0x80000 nr=0xa000 altmap=0x0")
    tracer.event("mhp_arch_add_ret", "arch_add_memory", "ret=0")
    state = tracer.replay().state
    assert state.leaf[:64].tolist() == [Leaf.PMD] * 64
    assert state.leaf[64:80].tolist() == [Leaf.UNKNOWN] * 16


def test_junk_ranges_are_not_replayed():
    tracer = Tracer()
    tracer.add(2 << 30, 128 * MIB)
    before = story(tracer.replay())
    tracer.event("mhp_arch_rem", "arch_remove_memory", "start=0x0 size=0xffffffffffff0000 altmap=0x0")
    tracer.event("mhp_sec_rem", "sparse_remove_section", "pfn=0xffff00005fb03680 nr=532480 altmap=0x0")
    assert story(tracer.replay())[0][0] == before[0][0]


def test_lost_events_make_rules_about_order_undecided(tmp_path):
    tracer = Tracer()
    tracer.add(2 << 30, 128 * MIB)
    tracer.remove(2 << 30, 128 * MIB)
    tracer.lines.insert(5, "CPU:0 [LOST 12 EVENTS]")
    (tmp_path / "trace").write_text(tracer.text)
    report = audited(tmp_path / "trace", only=("TRC",))
    outcomes = {one.rule.code: one.outcome for one in report.verdicts}
    assert outcomes.pop("TRC-17") is Outcome.FIRED
    assert Outcome.PASSED not in outcomes.values()


def test_memory_of_before_the_trace_is_taken_from_an_earlier_dump(tmp_path):
    """A removal of one of three namespaces, traced alone: only the dump of before knows the other two."""
    case = CAPTURES / "pmem-6.12-vuln"
    lines = events(case / "02-one-removed" / "trace")
    first = next(number for number, line in enumerate(lines) if "arch_remove_memory:" in line)
    assert replayed(joined(lines[first:])).lost == Ranges.pairs([])
    before = audited(case / "01-three-namespaces").facts
    layout, linear, vmemmap = (before.get(kind) for kind in (KernelLayout, LinearMap, Vmemmap))
    trace = ftrace.read(joined(lines[first:]).encode(), path="trace")
    timeline = Timeline.replay(trace, layout, None, Earlier(linear, vmemmap))
    assert timeline.lost == LOST
    assert timeline.cause_of(LOST).event == "vmemmap_free"


# The cause of the damage.


@pytest.mark.parametrize(
    ("moment", "freed", "removed"),
    [
        ("pmem-6.12-vuln/02-one-removed", "0xfffffdffc2080000-0xfffffdffc2100000", "0x82000000"),
        ("pmem-5.10-4k/02-one-removed", "0xfffffe0001e80000-0xfffffe0001f00000", "0x82000000"),
        ("pmem-6.12-64k/02-one-removed", "0xffffffdfc0204000-0xffffffdfc0208000", "0x81000000"),
        ("pmem-6.12-16k/02-one-removed", "0xffffffbfc0800000-0xffffffbfc0812000", "0x80000000"),
    ],
)
def test_lost_struct_pages_name_the_event_that_took_them(moment, freed, removed):
    found = [one for one in audited(CAPTURES / moment).findings if one.rule.code == "VMM-02"]
    assert found
    for finding in found:
        cause = finding.hit.cause
        assert cause.event == "vmemmap_free"
        assert freed in cause.text
        assert f"under arch_remove_memory of {removed} " in cause.text
        assert "stack: vmemmap_free < " in cause.text
        assert re.search(r" by ndctl-\d+ at \d+\.\d{6}", cause.text)


@pytest.mark.parametrize("boot", ["pmem-6.12-vuln", "pmem-6.12-64k", "pmem-6.12-16k", "pmem-5.10-4k"])
def test_trace_alone_predicts_the_same_damage(boot):
    with_tables = audited(CAPTURES / boot / "02-one-removed")
    alone = audited(CAPTURES / boot / "02-one-removed" / "trace")
    (seen,) = [one.hit.pfns for one in with_tables.findings if one.rule.code == "VMM-02"]
    predicted = [one.hit.pfns for one in alone.findings if one.rule.code == "VMM-02"]
    suspected = [one.hit.pfns for one in alone.findings if one.rule.code == "TRC-07"]
    # A kernel of which the trace alone does not tell how it populates is suspected.
    assert predicted == [seen] or (boot == "pmem-5.10-4k" and suspected == [seen])


@pytest.mark.parametrize(
    "boot", ["pmem-6.12-fixed", "pmem-mapdev-6.12-4k", "dimm-6.12-memmap-on-memory", "vmem-6.12-16k"]
)
def test_trace_alone_of_a_good_kernel_predicts_nothing(boot):
    for path in sorted((CAPTURES / boot).glob("*/trace")):
        assert audited(path).findings == []


def test_binary_trace_replays_as_its_text():
    text = Timeline.replay(ftrace.read(FIXTURES / "ftrace" / "pmem.trace"), None, None)
    binary = Timeline.replay(ftrace.read(FIXTURES / "ftrace" / "pmem.dat"), None, None)
    assert story(text) == story(binary)
    assert text.lost == binary.lost
    assert bool(text.lost) == (Trouble.FREE_WIDER_THAN_REMOVE in {one.trouble for one in binary.anomalies})


def test_a_trace_whose_probes_name_no_argument_replays_with_the_signatures_of_its_kernel():
    text = (FIXTURES / "ftrace" / "pmem.trace").read_text()
    bare, release = ftrace.read(unnamed(text).encode(), path="trace"), parse_uname(b"6.12.117", "uname")
    timeline = Timeline.replay(bare, None, release)
    assert story(timeline) == story(Timeline.replay(ftrace.read(text.encode(), path="trace"), None, release))
    assert timeline.lost
    unknown = Timeline.replay(bare, None, None)
    assert not unknown.lost
    with pytest.raises(UndecidedError, match="arg1, arg2"):
        unknown.must_show(Kind.VMEMMAP_FREE)


def test_a_self_hosted_dimm_is_understood():
    timeline = replayed((CAPTURES / "dimm-6.12-memmap-on-memory" / "02-dimm-online" / "trace").read_bytes())
    online = timeline.where(timeline.state.online == YES)
    assert online == Ranges.one(0x80000, 0xA0000)
    assert set(timeline.state.self_hosted.tolist()) == {YES}
    assert timeline.anomalies == ()


def test_graph_and_function_logs_without_arguments_claim_nothing():
    graph = lzma.decompress((FIXTURES / "ftrace" / "run2-graph_min.txt.xz").read_bytes())
    function = (FIXTURES / "ftrace" / "run3-function.txt").read_bytes()
    for data in (graph, function):
        bare = b"\n".join(line for line in data.split(b"\n") if b"=0x" not in line)
        timeline = Timeline.replay(ftrace.read(bare, path="trace"), None, None)
        assert len(timeline.calls)
        assert not timeline.calls.start_known.any()
        assert timeline.anomalies == ()
        assert timeline.state.valid.size == 0


def test_function_log_without_arguments_leaves_every_rule_undecided(tmp_path):
    function = (FIXTURES / "ftrace" / "run3-function.txt").read_text().splitlines()
    (tmp_path / "trace").write_text("\n".join(line for line in function if "=0x" not in line) + "\n")
    report = audited(tmp_path / "trace", only=("TRC",))
    passed = {one.rule.code for one in report.verdicts if one.outcome is Outcome.PASSED}
    assert passed == {"TRC-17"}


# The command.


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


def test_log_lines_are_light_events(tmp_path):
    path = tmp_path / "dmesg"
    path.write_text(
        "[    0.000000] Linux version 6.12.117 (root@vm) (gcc 12.2.0) #2 SMP\n"
        "[    0.000000] Memory: 250368K/327680K available\n"
        "[   12.345678] Offlined Pages 32768\n"
    )
    result = CliRunner().invoke(command, [str(path)])
    assert result.exit_code == 0, result.output
    assert "Offlined Pages 32768" in result.output
    undecided = {one.rule.code: one.reason for one in audited(path, only=("TRC",)).verdicts}
    assert "words only" in undecided["TRC-01"]


def test_ring_buffer_dumped_into_the_log_is_replayed(tmp_path):
    lines = events(CAPTURES / "pmem-6.12-vuln" / "02-one-removed" / "trace")
    found = [re.match(r" *(\S+)-(\d+) +\[(\d+)\] (\S+) +(\d+)\.(\d+): (.*)", line).groups() for line in lines]
    dumped = [
        f"[    5.{number:06d}] {comm:>8.8}-{pid:<7} {int(cpu)}{flags} {int(s) * 10**6 + int(us)}us : {rest}"
        for number, (comm, pid, cpu, flags, s, us, rest) in enumerate(found)
    ]
    rule = "-" * 33
    log = [
        "[    0.000000] Linux version 6.12.117 (root@vm) (gcc 12.2.0) #2 SMP",
        "[    4.999990] Dumping ftrace buffer:",
        f"[    4.999991] {rule}",
        *dumped,
        f"[    5.900000] {rule}",
        "[    5.900001] Offlined Pages 32768",
    ]
    path = tmp_path / "serial.log"
    path.write_text("\n".join(log) + "\n")
    report = audited(path)
    assert LOST in [one.hit.pfns for one in report.findings if one.rule.code == "VMM-02"]
    assert report.facts.get(KernelRelease).raw == "6.12.117"


def test_evidence_of_a_finding_is_the_line_of_the_trace():
    path = CAPTURES / "pmem-6.12-vuln" / "02-one-removed" / "trace"
    (finding,) = [one for one in audited(path).findings if one.rule.code == "TRC-07"]
    lines = path.read_text().splitlines()
    for one in finding.hit.evidence:
        assert lines[one.line - 1].strip() == one.text


def test_fingerprint_does_not_depend_on_what_was_traced_before(tmp_path):
    lines = events(CAPTURES / "pmem-6.12-vuln" / "02-one-removed" / "trace")
    tracer = Tracer()
    tracer.add(6 << 30, 128 * MIB)
    tracer.remove(6 << 30, 128 * MIB)
    prints = []
    for name, before in (("one", []), ("two", tracer.lines)):
        (tmp_path / name).write_text(joined([*before, *lines]))
        found = audited(tmp_path / name, only=("TRC-07",)).findings
        prints.append([one.fingerprint for one in found])
    assert prints[0] == prints[1] != []

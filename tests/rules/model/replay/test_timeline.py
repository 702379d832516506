"""The replay: laws that hold for every trace, and what real traces replay to."""

from __future__ import annotations

import lzma
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parsers import ftrace
from parsers.ftrace.functions import Kind
from parsers.layout import KernelLayout
from parsers.ranges import Ranges
from parsers.uname import parse_uname
from rules.finding import UndecidedError
from rules.model.memory.regions import LinearMap, Vmemmap
from rules.model.memory.snapshots import Earlier
from rules.model.replay.behaviour import Leaf
from rules.model.replay.state import NO, UNKNOWN, YES, Trouble
from rules.model.replay.timeline import Timeline
from tests.cases import CAPTURES, FIXTURES
from tests.parsers.ftrace.test_unnamed import unnamed
from tests.rules.drawn import MIB
from tests.rules.replays import LOST, audited, events, joined
from tests.rules.traces import VMEMMAP, Tracer

REAL = sorted(CAPTURES.glob("*/*/trace"))


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


def set_model(history, tracer, unit):
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
    valid, mapped = set_model(history, tracer, unit)
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
    # Half a MiB of the first section's struct pages lies in the block that the second begins in: from the middle of one
    # of 80 bytes on, which is in the middle of a subsection.
    assert timeline.lost == Ranges.one(0x86666, 0x88000)
    (anomaly,) = timeline.of(Trouble.FREE_WIDER_THAN_REMOVE)
    assert anomaly.pfns == timeline.lost
    assert timeline.unmapped.start.tolist() == [0x86666]


def test_two_tasks_at_the_same_time_are_noticed():
    tracer = Tracer()
    tracer.event("mhp_arch_add", "arch_add_memory", "nid=0 start=0x80000000 size=0x8000000 altmap=0x0")
    other = Tracer(pid=200, lines=tracer.lines)
    other.event("mhp_arch_add", "arch_add_memory", "nid=0 start=0x90000000 size=0x8000000 altmap=0x0")
    tracer.event("mhp_arch_add_ret", "arch_add_memory", "ret=0")
    other.event("mhp_arch_add_ret", "arch_add_memory", "ret=0")
    assert [one.pfns for one in tracer.replay().of(Trouble.CONCURRENT)] == [Ranges.one(0x90000, 0x98000)]


def test_remapped_struct_pages_are_no_longer_a_block():
    tracer = Tracer()
    tracer.add(2 << 30, 128 * MIB)
    start = VMEMMAP + 0x80000 * 64
    tracer.event("mhp_hvo_walk", "vmemmap_remap_range", f"start={start:#x} end={start + 0x8000:#x}")
    assert set(tracer.replay().state.leaf.tolist()) == {Leaf.PTE}


def test_allocations_show_the_fallback_that_no_probe_shows():
    tracer = Tracer()
    tracer.add(2 << 30, 128 * MIB)
    at = next(number for number, line in enumerate(tracer.lines) if "vmm_pop_ret" in line)
    asked = Tracer()
    asked.event("mhp_vmm_blk", "vmemmap_alloc_block_buf", "size=0x1000 nid=0 altmap=0x0")
    tracer.lines[at:at] = asked.lines
    assert set(tracer.replay().state.leaf.tolist()) == {Leaf.PTE}


@pytest.mark.parametrize(("order", "leaf"), [(9, Leaf.PMD), (0, Leaf.UNKNOWN)])
def test_page_allocator_shows_the_leaf_where_populate_has_no_probe(order, leaf):
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

"""Memory that comes and goes and looks as before: which sections may have changed, and what an audit then claims."""

from dataclasses import replace

import numpy as np
import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from parsers.vmcore import extract as extracting
from parsers.vmcore import generation as generations
from parsers.vmcore.dump import Dump
from parsers.vmcore.extract import extract
from parsers.vmcore.generation import Generation, came_or_went, changed_sections, is_noisy, is_quiet, read_generation
from parsers.vmcore.memory import PhysicalMemory
from parsers.vmcore.moment import of_no_section
from parsers.vmcore.opening import open_dump
from rules.finding import Severity
from tests.parsers.vmcore.conftest import AFTER, FIXTURES
from tests.parsers.vmcore.cores import word

DIMM = FIXTURES / "dimm-6.12-mixed-online.core.zst"
NR_EVENTS = 600


@pytest.fixture(scope="module")
def facts():
    return extract(DIMM)


@pytest.fixture(scope="module")
def before(facts):
    blocks = facts.blocks
    identity = np.arange(len(blocks), dtype=np.uint64) + np.uint64(70)
    zones = {(0, name): 0 for name in ("DMA", "Movable", "Device")}
    return Generation(blocks, identity, zones, is_list_old=False, events=NR_EVENTS)


def hot(facts):
    """Sections that did not come with the boot."""
    return facts.sections.section_nr[~facts.sections.early].astype(np.int64).tolist()


def test_without_an_event_nothing_came_or_went(facts, before):
    other = replace(before, identity=before.identity + np.uint64(1))
    assert is_quiet(before, other)
    assert not came_or_went(before, other)
    assert changed_sections(before, other, facts.sections).size == 0


def test_an_event_of_another_device_changes_no_block(facts, before):
    other = replace(before, events=NR_EVENTS + 3)
    assert is_noisy(before, other)
    assert not came_or_went(before, other)
    assert changed_sections(before, other, facts.sections).size == 0


def test_a_block_that_was_added_again_is_another_one_though_all_else_is_equal(facts, before):
    identity = before.identity.copy()
    identity[-1] = 900
    other = replace(before, events=NR_EVENTS + 2, identity=identity)
    last = int(facts.blocks.start_section_nr[-1])
    assert came_or_went(before, other)
    assert changed_sections(before, other, facts.sections).tolist() == [
        number for number in hot(facts) if number // facts.blocks.sections_per_block == last
        // facts.blocks.sections_per_block
    ]  # fmt: skip


def test_an_old_list_of_ram_says_that_some_block_went_on_or_offline(facts, before):
    other = replace(before, is_list_old=True, events=NR_EVENTS + 2)
    assert came_or_went(before, other)
    assert changed_sections(before, other, facts.sections).tolist() == hot(facts) != []


def test_zones_count_the_blocks_that_come_into_them_before_5_15(facts, before):
    other = replace(before, zones={**before.zones, (0, "Movable"): 2}, events=NR_EVENTS + 2)
    changed = changed_sections(before, other, facts.sections).tolist()
    per_block = facts.blocks.sections_per_block
    movable = {
        int(first) // per_block
        for first, zone, state in zip(facts.blocks.start_section_nr, facts.blocks.zone, facts.blocks.state, strict=True)
        if zone == "Movable" or state != "online"
    }
    assert changed == [number for number in hot(facts) if number // per_block in movable] != []


def test_memory_of_drivers_has_no_blocks_and_any_event_may_be_its():
    pmem = extract(AFTER)
    one = Generation(pmem.blocks, np.zeros(len(pmem.blocks), np.uint64), {}, is_list_old=False, events=1)
    device = pmem.sections.section_nr[pmem.sections.device].astype(np.int64).tolist()
    assert changed_sections(one, replace(one, events=2), pmem.sections).tolist() == device != []
    assert changed_sections(one, replace(one, events=2), pmem.sections, is_steady=True).size == 0
    zones = {(0, "Device"): 2}  # before 5.15, which counts it
    moved = changed_sections(
        replace(one, zones={(0, "Device"): 0}), replace(one, events=2, zones=zones), pmem.sections, is_steady=True
    )
    assert moved.tolist() == device
    assert changed_sections(one, one, pmem.sections).size == 0


def test_a_kernel_without_these_counters_is_judged_by_its_blocks(facts):
    one = read_generation(Dump(open_dump(DIMM)))
    assert (one.events, one.is_list_old) == (None, False)
    assert one.zones[0, "Movable"] == 0
    assert not is_quiet(one, one)
    assert not came_or_went(one, one)
    gone = replace(one, blocks=replace(one.blocks, state=("offline", *one.blocks.state[1:])))
    assert came_or_went(one, gone)


def test_what_no_section_has_is_not_known_while_events_come(facts):
    """The pages that the linear map and vmemmap keep of a section which the table does not have."""
    whole = of_no_section(facts.walk, facts.sections, facts.addresses, 64)
    assert whole[0].size == 0
    kept = np.arange(len(facts.sections)) != len(facts.sections) - 1
    names = ("section_nr", "section_mem_map", "present", "has_memmap", "online", "early", "device", "usage", "pa")
    less = replace(facts.sections, **{name: getattr(facts.sections, name)[kept] for name in names})
    start, last = of_no_section(facts.walk, less, facts.addresses, 64)
    number = int(facts.sections.section_nr[-1])
    linear = facts.addresses.page_offset + (number << facts.sections.section_size_bits) - facts.addresses.phys_offset
    assert (start[0], int(last[0] - start[0]) + 1) == (linear % 2**64, 1 << facts.sections.section_size_bits)
    assert start.size == 2


# A simulated change between reads -------------------------------------------------------------------------------------


class Moving(PhysicalMemory):
    """Memory of which a block is offline from one read to another, and online before and after."""

    def __init__(self, memory, words, first, last):
        self.memory, self.words, self.first, self.last, self.reads = memory, words, first, last, 0

    @property
    def is_changed(self):
        return self.first <= self.reads < self.last

    @property
    def has_moved(self):
        return self.reads >= self.first

    @property
    def extents(self):
        return self.memory.extents

    def read_units(self, units):
        self.reads += 1
        data, present = self.memory.read_units(units)
        for pa, value in self.words.items() if self.is_changed else ():
            for row in np.flatnonzero(units == pa // 4096):
                data[row, pa % 4096 : pa % 4096 + 8] = np.frombuffer(value, np.uint8)
        return data, present


@pytest.fixture(scope="module")
def offline(facts):
    """What is written when the last block goes offline: its state, and the flags of its sections."""
    dump = Dump(open_dump(DIMM))
    block = int(facts.blocks.address[-1]) + dump.offset("memory_block", "state")
    (pa,), _ = dump.addresses.physical(np.array([block - block % 8], np.uint64))
    old = int.from_bytes(dump.read(block - block % 8, 8), "little")
    shift, bits = block % 8 * 8, dump.member_size("memory_block", "state") * 8
    words = {int(pa): word(old & ~(((1 << bits) - 1) << shift) | 1 << 2 << shift)}
    flag = facts.sections.flags["SECTION_IS_ONLINE"]
    first = int(facts.blocks.start_section_nr[-1])
    for row in np.flatnonzero(facts.sections.section_nr >= first).tolist():
        words[int(facts.sections.pa[row])] = word(int(facts.sections.section_mem_map[row]) & ~flag)
    return words


@pytest.fixture(scope="module")
def reads():
    """Reads of symbols and types, which only a first attempt needs, and those of everything else in any attempt."""
    raw = open_dump(DIMM)
    image, memory = Moving(raw.memory, {}, 0, 0), Moving(raw.memory, {}, 0, 0)
    first = Dump(replace(raw, memory=image, kind="kcore"))
    alone = image.reads
    again = replace(raw, memory=memory, kind="kcore")
    extracting._facts_of(Dump(again, like=first), again, with_dmesg=True, with_nodename=True)
    return alone, memory.reads


@pytest.fixture
def moved(monkeypatch, offline, reads):
    """An audit of memory whose last block is offline between two reads, by their share of those of an attempt."""
    raw = replace(open_dump(DIMM), kind="kcore")
    image, total = reads
    monkeypatch.setattr(extracting.time, "sleep", lambda _: None)
    memories = []

    def opened(*_, **__):
        before = 0 if memories else image
        moving = Moving(raw.memory, offline, *(before + share for share in window))
        memories.append(moving if len(memories) < times else raw.memory)
        return replace(raw, memory=memories[-1])

    def variable(dump, name, _):
        memory = dump.memory
        moving = isinstance(memory, Moving)
        return (NR_EVENTS if name == "uevent_seqnum" else 0) + int(moving and memory.has_moved)

    monkeypatch.setattr(extracting, "open_dump", opened)
    monkeypatch.setattr(generations, "_variable", variable)
    window, times = (0, 0), 9

    def run(first, last, attempts=9):
        nonlocal window, times
        window, times = (int(total * first), int(total * last)), attempts
        memories.clear()
        return audited(extract(DIMM))

    return run


def audited(facts):
    report = audit(Request((), running=facts))
    return report, {one.rule.code for one in report.findings if one.severity > Severity.INFO}


@pytest.fixture(scope="module")
def quiet(facts):
    """What the machine has when nothing moves."""
    return audited(facts)[1]


def test_the_quiet_machine_is_judged_as_its_dump_is(moved, quiet):
    report, findings = moved(2, 3)
    assert findings == quiet
    assert not report.sources.captured.vmcore.flux.matters


@pytest.mark.parametrize("first", [0.02, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9])
def test_a_block_that_was_offline_meanwhile_is_not_judged(moved, quiet, first):
    """Whatever was read of the one state and of the other, two equal readings at the ends do not hide it."""
    for length in (0.01, 0.05, 0.2):
        report, findings = moved(first, first + length)
        assert findings <= quiet, length
        assert report.sources.captured.vmcore.flux.matters


def test_it_is_read_again_and_judged_when_it_is_quiet(moved, quiet):
    report, findings = moved(0.5, 0.6, attempts=1)
    assert findings == quiet
    assert not report.sources.captured.vmcore.flux.matters


def test_a_second_attempt_takes_symbols_and_types_over(facts):
    """They are of the kernel's image, which does not change while it runs."""
    raw = replace(open_dump(DIMM), kind="kcore")
    first = Dump(raw)
    memory = Moving(raw.memory, {}, 0, 0)
    again = Dump(replace(raw, memory=memory), like=first)
    assert memory.reads == 0
    assert (again.types, again.has_symbols, again.addresses) == (first.types, first.has_symbols, first.addresses)
    assert again.diagnostics == first.diagnostics
    assert read_generation(again).blocks.state == facts.blocks.state


def test_another_kernel_is_read_from_its_start():
    raw = replace(open_dump(DIMM), kind="kcore")
    memory = Moving(raw.memory, {}, 0, 0)
    other = replace(raw, memory=memory, vmcoreinfo_bytes=raw.vmcoreinfo_bytes + b"CRASHTIME=1\n")
    assert Dump(other, like=Dump(raw)).has_symbols
    assert memory.reads > 0

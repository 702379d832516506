"""The replay run forward: what operations that were not made yet would do to the page tables that were read.

An operation becomes the calls that the kernel would make, and `rules.model.replay.apply.Replay` applies them, as it
applies the calls of a trace, to the entries of a `Machine`.  Sources: mm/memory_hotplug.c, mm/memremap.c, mm/sparse.c
and arch/arm64/mm/mmu.c, 5.7 to 7.3.
"""

from __future__ import annotations

from dataclasses import field, replace
from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import PMD, PTE
from parsers.ftrace.events import Arguments, Events, Phase, Stacks, Strings, Trace
from parsers.ftrace.functions import Kind
from parsers.ranges import EMPTY, Ranges
from parsers.records import dataclass
from rules.model.replay.apply import Replay
from rules.model.replay.behaviour import Leaf
from rules.model.replay.calls import Calls

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rules.model.replay.behaviour import Behaviour
    from rules.model.replay.calibration import Calibration
    from rules.model.replay.entries import Entries

__all__ = ["Call", "Effect", "Machine", "Tables", "run_forward"]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an operation: its kind, its PFNs ``[start, end)``, whether struct pages lie in the range itself."""

    kind: Kind
    start_pfn: int
    end_pfn: int
    altmap: bool = False
    failed: bool = False
    """The call returns an error; what it did before stays or is undone as in the kernel."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Machine:
    """Memory and its page tables at one moment.  Ranges are PFNs."""

    calibration: Calibration
    behaviour: Behaviour
    vmemmap: Entries
    linear: Entries
    valid: Ranges
    """PFNs that have a struct page."""
    online: Ranges
    early: Ranges
    """Sections that came at boot: their struct pages stay."""
    hosted: Ranges
    """Memory whose struct pages lie in its own first pages (memmap_on_memory)."""
    blocks: bool
    """Whether hot-added memory is mapped with blocks (no NO_BLOCK_MAPPINGS: rodata=full, KFENCE, debug_pagealloc)."""
    runs: bool
    """Whether it is mapped with contiguous runs."""
    tagged: bool = True
    """Hot-added RAM is mapped as boot memory is; before d15dfd31384b (v5.12) it was never tagged (MTE)."""
    table_is_done: bool = True
    """vmemmap_check_pmd() mistakes a table for a block (before 9ab2601dc4c1, v6.14)."""

    @property
    def page_size(self) -> int:
        return self.calibration.page_size

    @property
    def pages_per_section(self) -> int:
        return self.calibration.pages_per_section


@dataclass(frozen=True, eq=False)
class Effect:
    """What a sequence of calls did."""

    after: Machine
    replay: Replay | None
    """None where no page table could change."""
    struct_pages_gone: Ranges
    """PFNs whose struct pages lost their mapping, also where a later call maps fresh ones."""
    linear_gone: Ranges
    """PFNs whose linear mapping went."""
    struct_pages_new: Ranges


@dataclass(eq=False)
class Tables:
    """The entries that a replay changes, and what became of them."""

    machine: Machine
    vmemmap: Entries
    linear: Entries
    ram: Ranges
    """PFNs that are added as System RAM; other memory is a device's."""
    struct_pages_gone: Ranges = field(default=EMPTY)
    linear_gone: Ranges = field(default=EMPTY)
    struct_pages_new: Ranges = field(default=EMPTY)

    def populate(self, low: int, high: int, leaf: Leaf) -> None:
        """Map the struct pages of PFNs ``[low, high)`` of one section, or of whole ones."""
        at = self.vmemmap.offsets(Ranges.one(low, high) - self.machine.early)
        for start, end in at.tuples():
            level = PMD if leaf is Leaf.PMD else PTE
            new = self.vmemmap.populate(
                start, end, level, self.vmemmap.look(tagged=False), table_is_done=self.machine.table_is_done
            )
            self.struct_pages_new = self.struct_pages_new | self.vmemmap.pfns(new)

    def free(self, low: int, high: int) -> Ranges:
        """Clear the leaves that map the struct pages of ``[low, high)``, section by section: PFNs that they describe.

        Sections of boot keep their struct pages when device memory that was placed into them leaves
        (mm/sparse.c section_deactivate()).
        """
        gone = EMPTY
        for first, after, _ in self.machine.behaviour.pieces(low, high):
            for start, end in self.vmemmap.offsets(Ranges.one(first, after) - self.machine.early).tuples():
                gone = gone | self.vmemmap.clear(start, end)
        pfns = self.vmemmap.pfns(gone)
        self.struct_pages_gone = self.struct_pages_gone | pfns
        return pfns

    def map(self, low: int, high: int) -> None:
        """Map PFNs into the linear map."""
        machine = self.machine
        for start, end in self.linear.offsets(Ranges.one(low, high)).tuples():
            look = self.linear.look(tagged=machine.tagged and bool(self.ram.contains(np.array([low]))[0]))
            self.linear.map_linear(start, end, look, blocks=machine.blocks, runs=machine.runs)

    def unmap(self, low: int, high: int) -> None:
        """Clear the leaves of the linear map that PFNs lie under."""
        for start, end in self.linear.offsets(Ranges.one(low, high)).tuples():
            self.linear_gone = self.linear_gone | self.linear.pfns(self.linear.clear(start, end))


def run_forward(machine: Machine, calls: Sequence[Call], *, ram: Ranges = EMPTY) -> Effect:
    """Apply calls to a machine; ``ram`` are the PFNs that are added as System RAM."""
    if all(call.kind in _STATES for call in calls):
        tables = Tables(machine, machine.vmemmap, machine.linear, ram)  # page tables do not change
        return Effect(_states_after(machine, calls, tables), None, EMPTY, EMPTY, EMPTY)
    made = _as_calls(calls, machine)
    tables = Tables(machine, machine.vmemmap.copy(), machine.linear.copy(), ram)
    replay = Replay(made, machine.calibration, machine.behaviour, machine=machine, tables=tables)
    replay.run()
    after = _states_after(machine, calls, tables)
    return Effect(after, replay, tables.struct_pages_gone, tables.linear_gone, tables.struct_pages_new)


def _states_after(machine: Machine, calls: Sequence[Call], tables: Tables) -> Machine:
    """The machine with its tables, and with what is valid, online and self-hosted after the calls."""
    valid, online, hosted = machine.valid, machine.online, machine.hosted
    for call in calls:
        pfns = Ranges.one(call.start_pfn, call.end_pfn)
        if call.failed:
            continue
        if call.kind in {Kind.ARCH_ADD_MEMORY, Kind.SPARSE_ADD_SECTION}:
            valid = valid | pfns
            hosted = hosted | pfns if call.altmap else hosted
        elif call.kind is Kind.ARCH_REMOVE_MEMORY:
            valid, online, hosted = valid - pfns, online - pfns, hosted - pfns
        elif call.kind is Kind.ONLINE_PAGES:
            online = online | pfns
        elif call.kind is Kind.OFFLINE_PAGES:
            online = online - pfns
    return replace(
        machine, vmemmap=tables.vmemmap, linear=tables.linear, valid=valid | machine.early, online=online, hosted=hosted
    )


_STATES = frozenset({Kind.ONLINE_PAGES, Kind.OFFLINE_PAGES})
_IN_BYTES = frozenset({Kind.ARCH_ADD_MEMORY, Kind.ARCH_REMOVE_MEMORY})


def _as_calls(calls: Sequence[Call], machine: Machine) -> Calls:
    """The calls as if a trace had seen them: one entry and one return each, one after the other."""
    count = len(calls)
    kinds = np.array([call.kind for call in calls], dtype=np.uint8)
    unit = np.array([machine.page_size if call.kind in _IN_BYTES else 1 for call in calls], dtype=np.uint64)
    start = np.array([call.start_pfn for call in calls], dtype=np.uint64) * unit
    end = np.array([call.end_pfn for call in calls], dtype=np.uint64) * unit
    rows = np.arange(count, dtype=np.int64) * 2
    yes, no_task = np.ones(count, dtype=np.bool_), np.full(count, -1, dtype=np.int64)
    return Calls(
        _trace(kinds),
        kinds,
        np.ones(count, dtype=np.int32),
        rows,
        rows + 1,
        rows + 1,
        np.where([call.failed for call in calls], np.int64(-1), np.int64(0)),
        yes,
        start,
        end,
        yes,
        np.array([call.altmap for call in calls], dtype=np.uint64),
        yes,
        no_task,
    )


def _trace(kinds: np.typing.NDArray[np.uint8]) -> Trace:
    """A trace of which only order and kinds matter."""
    size = kinds.size * 2

    def column(value: int = -1) -> np.typing.NDArray[np.int32]:
        return np.full(size, value, dtype=np.int32)

    zero = np.zeros(size, dtype=np.int64)
    none = np.empty(0, dtype=np.int64)
    arguments = Arguments(
        row=none, column=none.astype(np.uint16), value=none.astype(np.uint64), text=none.astype(np.int32), columns=()
    )
    events = Events(
        time_ns=zero,
        cpu=column(),
        pid=column(1),
        comm=column(),
        kind=np.repeat(kinds, 2),
        phase=np.tile(np.array([Phase.ENTRY, Phase.RETURN], dtype=np.uint8), kinds.size),
        origin=zero.astype(np.uint8),
        name=column(),
        symbol=column(),
        caller=column(),
        stack=column(),
        user_stack=column(),
        buffer=zero.astype(np.uint8),
        line=zero,
        offset=zero,
        arguments=arguments,
    )
    return Trace(
        events=events,
        stacks=Stacks(frames=()),
        strings=Strings(),
        buffers=(),
        gaps=(),
        health=(),
        diagnostics=(),
        source="",
        format="",
    )


def pfns_of(calls: Iterable[Call]) -> Ranges:
    """All PFNs that calls name."""
    return Ranges.pairs((call.start_pfn, call.end_pfn) for call in calls)

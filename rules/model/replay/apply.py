"""One pass over the traced calls, each applied to the state of the memory that it names.

What the calls do is arch/arm64/mm/mmu.c, mm/sparse.c and mm/sparse-vmemmap.c, 5.7 to 7.3, through
`rules.model.replay.behaviour` where the releases differ.  Everything that does not depend on the state (ranges, leaves,
owners) is worked out for all calls at once beforehand; what is left for each call is a few slices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.ftrace.functions import Kind
from parsers.ranges import Ranges, distinct
from parsers.records import dataclass
from rules.model.replay.behaviour import Behaviour, Leaf, leaves_of
from rules.model.replay.calls import NEVER, Calls, overlaps
from rules.model.replay.extents import PMD_BYTES, Extents, first_is_no_add, never_added
from rules.model.replay.repeats import run_blocks
from rules.model.replay.state import NO, UNKNOWN, YES, Anomaly, State, Trouble

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.mapping import I64, Bool
    from rules.model.memory.snapshots import Earlier, Present
    from rules.model.replay.calibration import Calibration
    from rules.model.replay.forward import Machine, Tables
    from rules.model.replay.state import Glimpse

__all__ = ["Replay", "Step"]

MAX_ANOMALIES = 1000
"""Kept of each trouble; the others are counted."""

_HEAD_SHARE = 8
"""Struct pages take less than an eighth of the memory that they describe."""

_LATE = (
    Kind.ARCH_ADD_MEMORY,
    Kind.SPARSE_ADD_SECTION,
    Kind.VMEMMAP_POPULATE,
    Kind.ONLINE_PAGES,
    Kind.OFFLINE_PAGES,
    Kind.CREATE_MEMORY_BLOCK_DEVICES,
    Kind.MEMREMAP_PAGES,
)
"""What is complete when it returns; a removal takes effect from its entry on."""
_ADDS = (Kind.ARCH_ADD_MEMORY, Kind.SPARSE_ADD_SECTION, Kind.VMEMMAP_POPULATE)
_WINDOWS = (Kind.ARCH_ADD_MEMORY, Kind.ARCH_REMOVE_MEMORY, Kind.ONLINE_PAGES, Kind.OFFLINE_PAGES)


@dataclass(frozen=True, slots=True)
class Step:
    """One call and the sections that it concerns, before and after it."""

    call: int
    first_section: int
    last_section: int
    before: Glimpse
    after: Glimpse


class Replay:
    """One pass over the calls, in the order of the trace."""

    def __init__(
        self,
        calls: Calls,
        calibration: Calibration,
        behaviour: Behaviour,
        earlier: Earlier | None = None,
        present: Present | None = None,
        machine: Machine | None = None,
        tables: Tables | None = None,
    ) -> None:
        self.calls, self.calibration, self.behaviour = calls, calibration, behaviour
        self.tables = tables
        """Page-table entries that are changed along, when the replay runs forward (`rules.model.replay.forward`)."""
        self.anomalies: list[Anomaly] = []
        self.counts: dict[Trouble, int] = dict.fromkeys(Trouble, 0)
        self.blind: dict[Trouble, int] = {}
        """The first call that could not be judged, for the state before it was not known."""
        self.notes: list[str] = []
        self.handlers = {
            Kind.ARCH_ADD_MEMORY: self._arch_add,
            Kind.SPARSE_ADD_SECTION: self._add_section,
            Kind.VMEMMAP_POPULATE: self._populate,
            Kind.ARCH_REMOVE_MEMORY: self._arch_remove,
            Kind.SPARSE_REMOVE_SECTION: self._remove_section,
            Kind.VMEMMAP_FREE: self._free,
            Kind.ONLINE_PAGES: self._online,
            Kind.OFFLINE_PAGES: self._offline,
            Kind.REMOVE_PFN_RANGE_FROM_ZONE: self._leave_zone,
            Kind.VMEMMAP_REMAP_RANGE: self._remap,
            Kind.CREATE_MEMORY_BLOCK_DEVICES: self._nothing,
            Kind.REMOVE_MEMORY_BLOCK_DEVICES: self._nothing,
            Kind.MEMREMAP_PAGES: self._nothing,
            Kind.MEMUNMAP_PAGES: self._nothing,
        }
        replayed = np.isin(calls.kind, list(self.handlers))
        self.extents = Extents.of(calls, calibration, replayed)
        if self.extents.too_many:
            self.notes.append("the trace names more memory than can be replayed; nothing was")
        self.has = {kind: bool(calls.start_known[calls.of(kind)].any()) for kind in self.handlers}
        self.order = self._order(np.flatnonzero(replayed & calls.start_known))
        self.state = State.unknown(self.extents.start_pfn)
        if earlier is not None and earlier.vmemmap.layout.knows("phys_offset"):
            self.state.begin_with(earlier, first_is_no_add(self.extents, calls, self.order, _ADDS))
        if present is not None:
            self.state.begin_like(present, self.extents.pages, never_added(self.extents, calls, self.order, _ADDS))
        if machine is not None:
            self.state.begin_as(machine, self.extents.pages)
        self._look_up()

    def _order(self, mine: I64) -> I64:
        """Calls in the order in which they take effect: where they returned, or where they began."""
        calls = self.calls
        late = np.isin(calls.kind[mine], _LATE) & (calls.end_row[mine] != NEVER)
        return mine[np.argsort(np.where(late, calls.end_row[mine], calls.row[mine]), kind="stable")]

    def _look_up(self) -> None:
        """What each call needs, as lists: indexing them one by one is what the replay does most."""
        calls, extents = self.calls, self.extents
        leaf_span = PMD_BYTES if self.calibration.page_size == 4096 else self.calibration.page_size
        window_first, window_end = extents.windows(leaf_span)
        self.window_first, self.window_end = window_first.tolist(), window_end.tolist()
        self.first, self.end = extents.first.tolist(), extents.end.tolist()
        self.low, self.high = extents.low.tolist(), extents.high.tolist()
        self.failed = calls.failed.tolist()
        # A section whose struct pages could not be populated is not added, whether its own return was traced or not.
        self.not_added = calls.failed.copy()
        populates = calls.of(Kind.VMEMMAP_POPULATE)
        lost = calls.parent[populates[calls.failed[populates] & (calls.parent[populates] >= 0)]]
        self.not_added[lost] = True
        self.leaf, self.huge = leaves_of(calls)
        self.owner = calls.owner.tolist()
        self.hosted = np.where(calls.altmap_known, np.where(calls.altmap != 0, YES, NO), UNKNOWN).tolist()

    def run(self) -> None:
        """Apply every call."""
        self._concurrent()
        run_blocks(self, self._apply)
        self._forget_what_was_cleaned_up()

    def _apply(self, begin: int, end: int) -> None:
        for call in self.order[begin:end].tolist():
            self.handlers[Kind(self.calls.kind[call])](call, slice(self.first[call], self.end[call]))

    def steps(self) -> Iterator[Step]:
        """Apply every call and return the state of its sections before and after."""
        per_section = self.calibration.pages_per_section
        units = per_section // self.extents.pages
        for call in self.order.tolist():
            first, last = self.low[call] // per_section, (max(self.high[call], self.low[call] + 1) - 1) // per_section
            rows = slice(self.first[call], self.end[call])
            around = slice(rows.start // units * units, -(-rows.stop // units) * units)
            before = self.state.glimpse(around)
            self.handlers[Kind(int(self.calls.kind[call]))](call, rows)
            yield Step(call, first, last, before, self.state.glimpse(around))

    def _note(self, trouble: Trouble, call: int, rows: slice | Bool, text: str, *, certain: bool = True) -> None:
        self.counts[trouble] += 1
        if self.counts[trouble] <= MAX_ANOMALIES:
            start = self.state.start_pfn[rows]
            pfns = Ranges.of(start, start + self.extents.pages)
            if trouble is Trouble.FREE_WIDER_THAN_REMOVE and not isinstance(rows, slice):
                pfns = self.extents.within_leaves(pfns, self.state.spared(rows))
            self.anomalies.append(Anomaly(trouble, call, pfns, text, certain))

    def _nothing(self, call: int, rows: slice) -> None:
        """Blocks and devices: they frame what is replayed."""

    # Adding.

    def _arch_add(self, call: int, rows: slice) -> None:
        state = self.state
        if self.failed[call]:
            left = (state.valid[rows] == YES) & (state.added_by[rows] == call)
            if left.any():
                self._note(
                    Trouble.FAILED_WITHOUT_CLEANUP, call, self._masked(rows, left),
                    f"adding failed with {int(self.calls.ret[call])} and leaves valid sections behind",
                )  # fmt: skip
            if not self.has[Kind.SPARSE_ADD_SECTION]:
                state.valid[rows] = UNKNOWN  # whether the first sections were added before the error is not traced
            state.linear[rows] = NO
            self._unmap(call)
            return
        state.linear[rows] = YES
        if self.tables is not None:
            self.tables.map(self.low[call], self.high[call])
        if not self.has[Kind.SPARSE_ADD_SECTION]:
            self._validate(call, rows)
        if not self.has[Kind.VMEMMAP_POPULATE]:
            known = Leaf(int(self.leaf[call]))
            for low, high, leaf in self.behaviour.pieces(self.low[call], self.high[call]):
                self._populate_pfns(call, low, high, leaf if known is Leaf.UNKNOWN else known)

    def _add_section(self, call: int, rows: slice) -> None:
        if self.not_added[call]:
            return
        again = self.state.valid[rows] == YES
        if again.any() and self.calls.ret_known[call]:
            self._note(
                Trouble.DOUBLE_ADD, call, self._masked(rows, again), "subsections that are valid are added again"
            )
        elif again.any():
            self.blind.setdefault(Trouble.DOUBLE_ADD, call)  # it may have been refused
        self._validate(call, rows)

    def _validate(self, call: int, rows: slice) -> None:
        state = self.state
        state.valid[rows] = YES
        state.lost[rows] = False
        state.damaged_by[rows] = state.suspect[rows] = -1
        state.added_by[rows] = self.owner[call]
        state.online[rows] = NO
        state.self_hosted[rows] = self.hosted[call]

    def _populate(self, call: int, rows: slice) -> None:
        low, high = self.low[call], self.high[call]
        if high <= low or self.failed[call]:
            return
        leaf = Leaf(int(self.leaf[call]))
        if leaf is Leaf.UNKNOWN and self.calibration.page_size == 4096:
            self.blind.setdefault(Trouble.HUGE_FOR_PARTIAL, call)
        if self.huge[call] and self.calibration.page_size == 4096 and high - low < self.calibration.pages_per_section:
            self._note(
                Trouble.HUGE_FOR_PARTIAL, call, rows, "less than a section is populated by vmemmap_populate_hugepages()"
            )
        self._populate_pfns(call, low, high, self.behaviour.leaf(high - low) if leaf is Leaf.UNKNOWN else leaf)

    def _populate_pfns(self, call: int, low: int, high: int, leaf: Leaf) -> None:
        state = self.state
        if self.calibration.page_size != 4096:
            leaf = Leaf.PTE
        rows = self.extents.window(low, high, self._span(leaf))
        if leaf is Leaf.PTE and self.calibration.page_size != 4096:
            rows = self._without_last_page(call, low, high, rows)
        if self.tables is not None:
            self.tables.populate(low, high, leaf)
        fresh = state.mapped[rows] != YES
        state.mapped[rows] = YES
        state.leaf[rows] = np.where(fresh, np.int8(leaf), state.leaf[rows])

    def _without_last_page(self, call: int, low: int, high: int, rows: slice) -> slice:
        """mm/sparse-vmemmap.c steps by pages from an address that need not be aligned: the last may be left out."""
        size, span = self.calibration.struct_page_size, self.calibration.page_size
        reach = low * size // span * span + -(-(high - low) * size // span) * span
        short = self.extents.rows(-(-reach // size), high)
        if short.stop <= short.start:
            return rows
        missing = self.state.mapped[short] != YES
        if missing.any():
            self._note(
                Trouble.POPULATED_TOO_LITTLE, call, self._masked(short, missing),
                "the range starts inside of a vmemmap page and its last page is not populated",
            )  # fmt: skip
            self.state.mapped[short] = np.where(missing, NO, self.state.mapped[short])
        return slice(rows.start, min(rows.stop, short.start))

    def _span(self, leaf: Leaf) -> int:
        """Bytes of vmemmap that one leaf maps."""
        return PMD_BYTES if leaf is Leaf.PMD else self.calibration.page_size

    def _remap(self, call: int, rows: slice) -> None:
        """mm/hugetlb_vmemmap.c splits the block whose struct pages it remaps; nothing joins them again."""
        del rows
        wide = slice(self.window_first[call], self.window_end[call])
        leaf = self.state.leaf[wide]
        leaf[leaf == Leaf.PMD] = Leaf.PTE

    # Removing.

    def _arch_remove(self, call: int, rows: slice) -> None:
        state = self.state
        online = state.online[rows]
        if (online == YES).any():
            self._note(
                Trouble.REMOVE_WHILE_ONLINE, call, self._masked(rows, online == YES),
                "memory is removed while it is online",
            )  # fmt: skip
        elif (online == UNKNOWN).any():
            self.blind.setdefault(Trouble.REMOVE_WHILE_ONLINE, call)
        self._asymmetric(call, rows)
        self._hosting(call, rows)
        state.linear[rows] = NO
        if not self.has[Kind.SPARSE_REMOVE_SECTION]:
            self._invalidate(call, rows)
        if not self.has[Kind.VMEMMAP_FREE]:
            self._free(call, rows)
        self._unmap(call)

    def _unmap(self, call: int) -> None:
        """arch/arm64/mm/mmu.c __remove_pgd_mapping(), after the sections are gone."""
        if self.tables is not None:
            self.tables.unmap(self.low[call], self.high[call])

    def _hosting(self, call: int, rows: slice) -> None:
        """Whether the struct pages lie in the memory itself decides to whom they are given back."""
        state, calls = self.state, self.calls
        here = state.self_hosted[rows]
        hosted = here == YES
        if not hosted.any():
            if (here == UNKNOWN).any() or not calls.altmap_known[call]:
                self.blind.setdefault(Trouble.ALTMAP_MISMATCH, call)
                self.blind.setdefault(Trouble.MIXED_HOSTING, call)
            return
        if not calls.altmap_known[call]:
            self.blind.setdefault(Trouble.ALTMAP_MISMATCH, call)
        elif not calls.altmap[call]:
            self._note(
                Trouble.ALTMAP_MISMATCH, call, self._masked(rows, hosted),
                "a self-hosted range is removed without its altmap: its struct pages go to the page allocator",
            )  # fmt: skip
        if (here == NO).any() or distinct(state.added_by[rows][hosted]).size > 1:
            self._note(
                Trouble.MIXED_HOSTING, call, rows,
                "memory with its own struct pages is removed together with other memory",
            )  # fmt: skip

    def _asymmetric(self, call: int, rows: slice) -> None:
        """Every operation that added part of the range must be removed whole."""
        state = self.state
        valid = state.valid[rows] == YES
        owners = distinct(state.added_by[rows][valid])
        if (owners < 0).any() or (state.valid[rows] == UNKNOWN).any():
            self.blind.setdefault(Trouble.ASYMMETRIC_UNIT, call)
        partly = [owner for owner in owners.tolist() if owner >= 0 and self._reaches_beyond(owner, rows)]
        if partly:
            beyond = np.isin(state.added_by, partly)
            beyond[rows] = False
            self._note(
                Trouble.ASYMMETRIC_UNIT, call, beyond & (state.valid == YES),
                "part of what was added by one operation is removed by another",
            )  # fmt: skip

    def _reaches_beyond(self, owner: int, rows: slice) -> bool:
        first, end = self.first[owner], self.end[owner]
        if first >= rows.start and end <= rows.stop:
            return False
        state = self.state
        return any(
            ((state.added_by[part] == owner) & (state.valid[part] == YES)).any()
            for part in (slice(first, min(rows.start, end)), slice(max(rows.stop, first), end))
        )

    def _remove_section(self, call: int, rows: slice) -> None:
        valid = self.state.valid[rows]
        if (valid == NO).any():
            self._note(
                Trouble.REMOVE_UNKNOWN, call, self._masked(rows, valid == NO),
                "subsections that are not valid are removed",
            )  # fmt: skip
        elif (valid == UNKNOWN).any():
            self.blind.setdefault(Trouble.REMOVE_UNKNOWN, call)
        self._invalidate(call, rows)

    def _invalidate(self, call: int, rows: slice) -> None:
        del call
        state = self.state
        state.valid[rows] = state.online[rows] = state.self_hosted[rows] = NO
        state.lost[rows] = False
        state.damaged_by[rows] = state.suspect[rows] = -1

    def _free(self, call: int, rows: slice) -> None:
        """The leaves in place are cleared whole: arch/arm64/mm/mmu.c unmap_hotplug_range()."""
        state = self.state
        if rows.stop <= rows.start:
            return
        online = state.online[rows]
        if (online == YES).any():
            self._note(
                Trouble.FREE_BEFORE_OFFLINE, call, self._masked(rows, online == YES),
                "struct pages of online memory are freed",
            )  # fmt: skip
        elif (online == UNKNOWN).any():
            self.blind.setdefault(Trouble.FREE_BEFORE_OFFLINE, call)
        if self.tables is not None:
            self._free_entries(self.tables, call, rows)
            return
        wide = slice(self.window_first[call], self.window_end[call])
        by_block = (state.leaf[wide] == Leaf.PMD).any()  # what lies beside the range has the same leaf, if it is one
        if by_block or self.calibration.page_size != 4096:
            cleared = wide
        else:
            cleared = rows
            if (state.leaf[rows] == Leaf.UNKNOWN).any():
                self._may_take_others(call, rows, wide)
        if cleared.stop - cleared.start > rows.stop - rows.start:
            self._takes_others(call, rows, cleared)
        state.mapped[cleared], state.leaf[cleared] = NO, Leaf.NONE

    def _free_entries(self, tables: Tables, call: int, rows: slice) -> None:
        """The same where the entries themselves are known."""
        gone = tables.free(self.low[call], self.high[call])
        for low, high in gone.tuples():
            cleared = self.extents.rows(low, high)
            self._takes_others(call, rows, slice(min(cleared.start, rows.start), max(cleared.stop, rows.stop)))
            self.state.mapped[cleared], self.state.leaf[cleared] = NO, Leaf.NONE

    def _takes_others(self, call: int, rows: slice, cleared: slice) -> None:
        state = self.state
        victims = (state.valid[cleared] == YES) & (state.mapped[cleared] != NO)
        unknown = state.valid[cleared] == UNKNOWN
        own = self.extents.removed_with(self.calls, call)
        own = slice(max(min(own.start, rows.start) - cleared.start, 0), max(own.stop, rows.stop) - cleared.start)
        victims[own] = unknown[own] = False
        if victims.any():
            hit = self._masked(cleared, victims)
            state.lost[hit], state.damaged_by[hit] = True, call
            self._note(
                Trouble.FREE_WIDER_THAN_REMOVE, call, hit, "the leaf in place holds struct pages that are still needed"
            )
        elif unknown.any():
            self.blind.setdefault(Trouble.FREE_WIDER_THAN_REMOVE, call)

    def _may_take_others(self, call: int, rows: slice, wide: slice) -> None:
        """It is unknown whether a block or pages are in place: the neighbours may or may not be hit."""
        state = self.state
        maybe = np.zeros(state.valid.size, dtype=np.bool_)
        maybe[wide] = True
        maybe[self.extents.removed_with(self.calls, call)] = maybe[rows] = False
        if not maybe.any():
            return
        unknown = maybe & (state.valid == UNKNOWN)
        maybe &= (state.leaf != Leaf.PTE) & (state.valid == YES)
        state.mapped[maybe] = UNKNOWN
        state.suspect[maybe] = call
        if maybe.any():
            self._note(
                Trouble.FREE_WIDER_THAN_REMOVE, call, maybe,
                "if a block is in place, it holds struct pages that are still needed", certain=False,
            )  # fmt: skip
        elif unknown.any():
            self.blind.setdefault(Trouble.FREE_WIDER_THAN_REMOVE, call)

    # Online and offline.

    def _online(self, call: int, rows: slice) -> None:
        if self.failed[call]:
            return
        valid = self.state.valid[rows]
        if not self.calls.ret_known[call]:
            self.blind.setdefault(Trouble.ONLINE_WITHOUT_MEMORY, call)  # it may have failed
            self.state.online[self._with_head(rows)] = UNKNOWN
            return
        if (valid == NO).any():
            self._note(
                Trouble.ONLINE_WITHOUT_MEMORY, call, self._masked(rows, valid == NO),
                "memory that is not present goes online",
            )  # fmt: skip
        elif (valid == UNKNOWN).any():
            self.blind.setdefault(Trouble.ONLINE_WITHOUT_MEMORY, call)
        self.state.online[self._with_head(rows)] = YES

    def _with_head(self, rows: slice) -> slice:
        """With the pages in front that hold the block's own struct pages, which go online and offline with the rest."""
        state = self.state
        if rows.start >= rows.stop or state.self_hosted[rows.start] == NO or state.added_by[rows.start] < 0:
            return rows
        first = self.first[int(state.added_by[rows.start])]
        small = 0 < (rows.start - first) * _HEAD_SHARE <= rows.stop - rows.start
        return slice(first, rows.stop) if small else rows

    def _offline(self, call: int, rows: slice) -> None:
        if self.calls.ret_known[call]:
            if not self.failed[call]:
                self.state.online[self._with_head(rows)] = NO
        elif (self.state.online[rows] != NO).any():
            self.state.online[self._with_head(rows)] = UNKNOWN  # nothing says whether it succeeded

    def _leave_zone(self, call: int, rows: slice) -> None:
        """mm/memory_hotplug.c offline_pages() takes pages out of their zone when nothing can fail any more."""
        del call
        self.state.online[rows] = NO

    def _concurrent(self) -> None:
        """Adds, removals, onlining and offlining hold mem_hotplug_lock: windows of two tasks never overlap."""
        unsure, overlapping = overlaps(self.calls, _WINDOWS)
        if unsure is not None:
            self.blind.setdefault(Trouble.CONCURRENT, unsure)
        for call in overlapping:
            self._note(Trouble.CONCURRENT, call, slice(self.first[call], self.end[call]), "two operations overlap")

    def _forget_what_was_cleaned_up(self) -> None:
        """A failed add whose sections were removed later in the trace left nothing behind."""
        state = self.state
        left = distinct(state.added_by[state.valid == YES])
        self.anomalies = [
            one for one in self.anomalies if one.trouble is not Trouble.FAILED_WITHOUT_CLEANUP or one.call in left
        ]

    def _masked(self, rows: slice, mask: Bool) -> Bool:
        whole = np.zeros(self.state.valid.size, dtype=np.bool_)
        whole[rows] = mask
        return whole

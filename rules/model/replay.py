"""One pass over the traced calls, each applied to the state of the memory that it names.

What the calls do is arch/arm64/mm/mmu.c, mm/sparse.c and mm/sparse-vmemmap.c, 5.7 to 7.1, through
`rules.model.behaviour` where the releases differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.ftrace.functions import Kind
from parsers.ranges import Ranges
from rules.model.behaviour import Behaviour, Leaf
from rules.model.operations import NEVER, Calls
from rules.model.replay_state import NO, SUBSECTION, UNKNOWN, YES, Anomaly, State, Trouble

if TYPE_CHECKING:
    from parsers.mapping import I64, Bool
    from rules.model.calibration import Calibration

__all__ = ["Replay"]

MAX_UNITS = 1 << 27


class Replay:
    """One pass over the calls, in the order of the trace."""

    def __init__(self, calls: Calls, calibration: Calibration, behaviour: Behaviour) -> None:
        self.calls, self.calibration, self.behaviour = calls, calibration, behaviour
        self.unit = SUBSECTION // calibration.page_size
        self.unit_bytes = self.unit * calibration.struct_page_size
        self.anomalies: list[Anomaly] = []
        self.notes: list[str] = []
        self.sections = self._touched_sections()
        per_section = calibration.pages_per_section // self.unit
        start = self.sections[:, None] * calibration.pages_per_section + np.arange(per_section) * self.unit
        self.state = State.unknown(start.ravel().astype(np.int64))
        self.per_section = per_section
        self.has = {kind: bool(calls.start_known[calls.of(kind)].any()) for kind in Kind}
        self.children = _children(calls)

    def run(self) -> None:
        """Apply every call: what changes state does so where it returned, or where it began if nothing says."""
        handlers = {
            Kind.ARCH_ADD_MEMORY: self._arch_add,
            Kind.SPARSE_ADD_SECTION: self._add_section,
            Kind.VMEMMAP_POPULATE: self._populate,
            Kind.ARCH_REMOVE_MEMORY: self._arch_remove,
            Kind.SPARSE_REMOVE_SECTION: self._remove_section,
            Kind.VMEMMAP_FREE: self._free,
            Kind.ONLINE_PAGES: self._online,
            Kind.OFFLINE_PAGES: self._offline,
        }
        self._concurrent()
        calls = self.calls
        mine = calls.of(*handlers)
        mine = mine[calls.start_known[mine]]
        # An add is complete when it returns; a removal takes effect from its entry on.
        late = np.isin(calls.kind[mine], (Kind.ARCH_ADD_MEMORY, Kind.SPARSE_ADD_SECTION, Kind.VMEMMAP_POPULATE,
                                          Kind.ONLINE_PAGES, Kind.OFFLINE_PAGES))  # fmt: skip
        when = np.where(late & (calls.end_row[mine] != NEVER), calls.end_row[mine], calls.row[mine])
        for call in mine[np.argsort(when, kind="stable")].tolist():
            handlers[Kind(int(calls.kind[call]))](call)

    # Where a call's pages are in the columns.

    def _touched_sections(self) -> I64:
        """Numbers of all sections that a call names, and those that share a vmemmap leaf with them."""
        calls, pages = self.calls, self.calibration.pages_per_section
        bounds = [self._pfns(call) for call in np.flatnonzero(calls.start_known).tolist()]
        spans = Ranges.pairs(bound for bound in bounds if bound is not None)
        spans = spans.divide(pages, outward=True)
        if spans.total * (pages // self.unit) > MAX_UNITS:
            self.notes.append("the trace names more memory than can be replayed; nothing was")
            return np.empty(0, dtype=np.int64)
        return np.concatenate([np.arange(lo, hi) for lo, hi in spans.tuples()] or [np.empty(0, np.int64)])

    def _pfns(self, call: int) -> tuple[int, int] | None:
        """PFNs that a call speaks of."""
        kind, calls = Kind(int(self.calls.kind[call])), self.calls
        start, end = int(calls.start[call]), int(calls.end[call])
        if end <= start or (end >= 1 << 63 and kind not in {Kind.VMEMMAP_POPULATE, Kind.VMEMMAP_FREE}):
            return None
        if kind in {Kind.ARCH_ADD_MEMORY, Kind.ARCH_REMOVE_MEMORY}:
            return start // self.calibration.page_size, -(-end // self.calibration.page_size)
        if kind in {Kind.SPARSE_ADD_SECTION, Kind.SPARSE_REMOVE_SECTION, Kind.ONLINE_PAGES, Kind.OFFLINE_PAGES}:
            return start, end
        if kind in {Kind.VMEMMAP_POPULATE, Kind.VMEMMAP_FREE} and self.calibration.vmemmap is not None:
            size, base = self.calibration.struct_page_size, self.calibration.vmemmap
            first = ((start - base) & (2**64 - 1)) // size
            return (first, first + (end - start) // size) if first < 1 << 52 else None
        return None

    def _slice(self, lo: int, hi: int) -> slice:
        """Rows of the subsections that ``[lo, hi)`` touches; empty where none was foreseen."""
        start = self.state.start_pfn
        first = int(np.searchsorted(start, lo - self.unit, side="right"))
        return slice(first, int(np.searchsorted(start, hi, side="left")))

    def _units(self, call: int) -> slice:
        bounds = self._pfns(call)
        return slice(0, 0) if bounds is None else self._slice(*bounds)

    def _window(self, lo: int, hi: int, span: int) -> slice:
        """Rows of the subsections that share a leaf of ``span`` bytes of vmemmap with ``[lo, hi)``."""
        size, base = self.calibration.struct_page_size, self.calibration.vmemmap or 0
        skew = base % span
        first = (lo * size + skew) // span * span - skew
        last = -(-(hi * size + skew) // span) * span - skew
        return self._slice(max(first // size, 0), max(-(-last // size), 0))

    def _note(self, trouble: Trouble, call: int, rows: slice | Bool, text: str, *, certain: bool = True) -> None:
        start = self.state.start_pfn[rows]
        self.anomalies.append(Anomaly(trouble, call, Ranges.of(start, start + self.unit), text, certain))

    # Adding.

    def _arch_add(self, call: int) -> None:
        rows = self._units(call)
        state = self.state
        if self.calls.failed[call]:
            left = state.valid[rows] == YES
            mine = state.added_by[rows] == call
            if (left & mine).any():
                whole = np.zeros(state.valid.size, np.bool_)
                whole[rows] = left & mine
                self._note(
                    Trouble.FAILED_WITHOUT_CLEANUP, call, whole,
                    f"adding failed with {int(self.calls.ret[call])} and leaves valid sections behind",
                )  # fmt: skip
            state.linear[rows] = NO
            return
        state.linear[rows] = YES
        if not self.has[Kind.SPARSE_ADD_SECTION]:
            self._validate(call, rows, call)
        if not self.has[Kind.VMEMMAP_POPULATE]:
            bounds = self._pfns(call)
            if bounds is not None:
                self._populate_pfns(call, *bounds, Leaf.UNKNOWN)

    def _add_section(self, call: int) -> None:
        rows = self._units(call)
        # A section whose struct pages could not be populated is not added, whether its own return was traced or not.
        if self.calls.failed[[call, *self.children.get(call, ())]].any():
            return
        again = self.state.valid[rows] == YES
        if again.any() and self.calls.ret_known[call]:
            self._note(
                Trouble.DOUBLE_ADD, call, self._masked(rows, again), "subsections that are valid are added again"
            )
        outer = self._outer(call, Kind.ARCH_ADD_MEMORY)
        self._validate(call, rows, outer if outer >= 0 else call)

    def _validate(self, call: int, rows: slice, owner: int) -> None:
        state = self.state
        state.valid[rows] = YES
        state.lost[rows] = False
        state.damaged_by[rows] = state.suspect[rows] = -1
        state.added_by[rows] = owner
        state.online[rows] = NO
        state.self_hosted[rows] = YES if self.calls.altmap_known[call] and self.calls.altmap[call] else NO

    def _outer(self, call: int, kind: Kind) -> int:
        """The enclosing call of a kind, -1 for none."""
        call = int(self.calls.parent[call])
        while call >= 0 and self.calls.kind[call] != kind:
            call = int(self.calls.parent[call])
        return call

    def _populate(self, call: int) -> None:
        bounds = self._pfns(call)
        if bounds is None or self.calls.failed[call]:
            return
        self._populate_pfns(call, *bounds, self._leaf_of(call, bounds[1] - bounds[0]))

    def _leaf_of(self, call: int, nr_pages: int) -> Leaf:
        """What the populate used: what was seen inside of it, or what this kernel does."""
        inside = {Kind(int(self.calls.kind[child])) for child in self.children.get(call, ())}
        deeper = {
            Kind(int(self.calls.kind[child]))
            for one in self.children.get(call, ())
            for child in self.children.get(one, ())
        }
        if self.calibration.page_size != 4096:
            return Leaf.PTE
        if Kind.VMEMMAP_POPULATE_HUGEPAGES in inside:
            if nr_pages < self.calibration.pages_per_section:
                self._note(
                    Trouble.HUGE_FOR_PARTIAL, call, self._units(call),
                    "less than a section is populated by vmemmap_populate_hugepages()",
                )  # fmt: skip
            return Leaf.PTE if Kind.VMEMMAP_POPULATE_BASEPAGES in deeper else Leaf.PMD
        if Kind.VMEMMAP_SET_PMD in inside or Kind.VMEMMAP_CHECK_PMD in inside:
            return Leaf.PMD
        if Kind.VMEMMAP_POPULATE_BASEPAGES in inside:
            return Leaf.PTE
        return self.behaviour.leaf(nr_pages)

    def _populate_pfns(self, call: int, lo: int, hi: int, leaf: Leaf) -> None:
        state = self.state
        if leaf is Leaf.UNKNOWN:
            leaf = self.behaviour.leaf(hi - lo)
        span = self._span(leaf)
        rows = self._window(lo, hi, span)
        if leaf is Leaf.PTE and self.calibration.page_size != 4096:
            # mm/sparse-vmemmap.c steps by pages from an address that need not be aligned: the last may be left out.
            first = lo * self.calibration.struct_page_size
            reach = first // span * span + -(-(hi - lo) * self.calibration.struct_page_size // span) * span
            short = self._slice(-(-reach // self.calibration.struct_page_size), hi)
            rows = slice(rows.start, min(rows.stop, short.start)) if short.stop > short.start else rows
            missing = state.mapped[short] != YES
            if missing.any():
                self._note(
                    Trouble.POPULATED_TOO_LITTLE, call, self._masked(short, missing),
                    "the range starts inside of a vmemmap page and its last page is not populated",
                )  # fmt: skip
                state.mapped[short] = np.where(missing, NO, state.mapped[short])
        fresh = state.mapped[rows] != YES
        state.mapped[rows] = YES
        state.leaf[rows] = np.where(fresh, np.int8(leaf), state.leaf[rows])

    def _span(self, leaf: Leaf) -> int:
        """Bytes of vmemmap that one leaf maps."""
        return 2 << 20 if leaf is Leaf.PMD else self.calibration.page_size

    # Removing.

    def _arch_remove(self, call: int) -> None:
        rows, state = self._units(call), self.state
        online = state.online[rows] == YES
        if online.any():
            self._note(
                Trouble.REMOVE_WHILE_ONLINE, call, self._masked(rows, online), "memory is removed while it is online"
            )
        self._asymmetric(call, rows)
        hosted, altmap = state.self_hosted[rows] == YES, bool(self.calls.altmap[call])
        if self.calls.altmap_known[call] and hosted.any() and not altmap:
            self._note(
                Trouble.ALTMAP_MISMATCH, call, self._masked(rows, hosted),
                "a self-hosted range is removed without its altmap: its struct pages go to the page allocator",
            )  # fmt: skip
        state.linear[rows] = NO
        if not self.has[Kind.SPARSE_REMOVE_SECTION]:
            self._invalidate(call, rows)
        bounds = self._pfns(call)
        if not self.has[Kind.VMEMMAP_FREE] and bounds is not None:
            self._free_pfns(call, *bounds)

    def _asymmetric(self, call: int, rows: slice) -> None:
        """Every operation that added part of the range must be removed whole."""
        state = self.state
        owners = np.unique(state.added_by[rows][state.valid[rows] == YES])
        partly = [owner for owner in owners.tolist() if owner >= 0 and self._reaches_beyond(owner, rows)]
        if partly:
            beyond = np.isin(state.added_by, partly)
            beyond[rows] = False
            self._note(
                Trouble.ASYMMETRIC_UNIT, call, beyond & (state.valid == YES),
                "part of what was added by one operation is removed by another",
            )  # fmt: skip

    def _reaches_beyond(self, owner: int, rows: slice) -> bool:
        added = self._units(owner)
        before, after = slice(added.start, min(rows.start, added.stop)), slice(max(rows.stop, added.start), added.stop)
        return any(
            (self.state.added_by[part] == owner).any() and (self.state.valid[part] == YES).any()
            for part in (before, after)
        )

    def _remove_section(self, call: int) -> None:
        rows = self._units(call)
        gone = self.state.valid[rows] == NO
        if gone.any():
            self._note(
                Trouble.REMOVE_UNKNOWN, call, self._masked(rows, gone), "subsections that are not valid are removed"
            )
        self._invalidate(call, rows)

    def _invalidate(self, call: int, rows: slice) -> None:
        del call
        state = self.state
        state.valid[rows] = NO
        state.online[rows] = NO
        state.lost[rows] = False
        state.damaged_by[rows] = state.suspect[rows] = -1
        state.self_hosted[rows] = NO

    def _free(self, call: int) -> None:
        bounds = self._pfns(call)
        if bounds is not None:
            self._free_pfns(call, *bounds)

    def _free_pfns(self, call: int, lo: int, hi: int) -> None:
        """The leaves in place are cleared whole: arch/arm64/mm/mmu.c unmap_hotplug_range()."""
        state, own = self.state, self._slice(lo, hi)
        online = state.online[own] == YES
        if online.any():
            self._note(
                Trouble.FREE_BEFORE_OFFLINE, call, self._masked(own, online), "struct pages of online memory are freed"
            )
        leaves = set(state.leaf[own].tolist())
        if Leaf.UNKNOWN in leaves and self.calibration.page_size == 4096 and Leaf.PMD not in leaves:
            # Nobody knows whether a block or pages are in place: the neighbours may or may not be hit.
            maybe = np.zeros(state.valid.size, dtype=np.bool_)
            maybe[self._window(lo, hi, self._span(Leaf.PMD))] = True
            maybe[own] = False
            maybe &= (state.leaf != Leaf.PTE) & (state.valid == YES)
            state.mapped[maybe] = UNKNOWN
            state.suspect[maybe] = call
            if maybe.any():
                self._note(
                    Trouble.FREE_WIDER_THAN_REMOVE, call, maybe,
                    "if a block is in place, it holds struct pages that are still needed", certain=False,
                )  # fmt: skip
            cleared = own
        else:
            cleared = self._window(lo, hi, self._span(Leaf.PMD if Leaf.PMD in leaves else Leaf.PTE))
        removed = np.zeros(state.valid.size, dtype=np.bool_)
        removed[own] = True
        hit = np.zeros(state.valid.size, dtype=np.bool_)
        hit[cleared] = True
        victims = hit & ~removed & (state.valid == YES) & (state.mapped != NO)
        if victims.any():
            state.lost[victims] = True
            state.damaged_by[victims] = call
            self._note(
                Trouble.FREE_WIDER_THAN_REMOVE,
                call,
                victims,
                "the leaf in place holds struct pages that are still needed",
            )
        state.mapped[cleared] = NO
        state.leaf[cleared] = Leaf.NONE

    # Online and offline.

    def _online(self, call: int) -> None:
        if self.calls.failed[call]:
            return
        rows, state = self._units(call), self.state
        absent = state.valid[rows] == NO
        if absent.any():
            self._note(
                Trouble.ONLINE_WITHOUT_MEMORY, call, self._masked(rows, absent), "memory that is not there goes online"
            )
        state.online[rows] = YES

    def _offline(self, call: int) -> None:
        if not self.calls.failed[call] and (self.calls.ret_known[call] or self.calls.end_row[call] == NEVER):
            self.state.online[self._units(call)] = NO

    def _concurrent(self) -> None:
        """Adds and removals hold mem_hotplug_lock, so their windows never overlap between tasks."""
        calls = self.calls
        mine = calls.of(Kind.ARCH_ADD_MEMORY, Kind.ARCH_REMOVE_MEMORY)
        mine = mine[calls.end_row[mine] != NEVER]
        if mine.size < 2:
            return
        reach = np.maximum.accumulate(calls.end_row[mine])[:-1]
        for index in np.flatnonzero(calls.row[mine][1:] < reach).tolist():
            self._note(
                Trouble.CONCURRENT, int(mine[index + 1]), self._units(int(mine[index + 1])), "two operations overlap"
            )

    def _masked(self, rows: slice, mask: Bool) -> Bool:
        whole = np.zeros(self.state.valid.size, dtype=np.bool_)
        whole[rows] = mask
        return whole


def _children(calls: Calls) -> dict[int, list[int]]:
    """Calls by the call that they are part of."""
    children: dict[int, list[int]] = {}
    for child in np.flatnonzero(calls.parent >= 0).tolist():
        children.setdefault(int(calls.parent[child]), []).append(child)
    return children

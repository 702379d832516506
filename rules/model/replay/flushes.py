"""TLB invalidations in a trace, and what they must come between: break-before-make as an automaton on ranges.

A range that is mapped elsewhere than before must have been invalid and flushed in between, and a page table's
memory may be given away after the flush only.  A range goes from *mapped* to *broken* (unmap_hotplug_range())
to *flushed* (an invalidation that covers it) and back to *mapped* (a populate, a mapping, a remap); going back
from *broken* directly is the violation.  arm64 has no event for an invalidation: only probes on the
instruction itself show them, so that without any nothing is observable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.ftrace.functions import Kind
from parsers.ranges import distinct
from parsers.records import dataclass
from rules.model.replay.calls import NEVER, innermost

if TYPE_CHECKING:
    from parsers.mapping import I64, U64, Bool
    from rules.model.replay.calls import Calls

__all__ = ["Flushes", "early_frees", "flushes_by_unmap", "linear_unmaps", "live_remaps", "reuses"]

_VA_BITS = np.uint64((1 << 44) - 1)
_SIGN = np.uint64(1 << 43)
_UPPER = np.uint64(2**64 - (1 << 56))
_PAGE_SHIFT = np.uint64(12)
MAX_LONG_WINDOWS = 1000
"""Ranges not flushed by their own unmap whose whole time until they are mapped again is searched."""


@dataclass(frozen=True, eq=False)
class Flushes:
    """TLB invalidations: rows of the event table, ascending, with the address that each is for."""

    row: I64
    va: U64
    everything: Bool
    """Invalidates all, or its operand was not fetched: counts for every address."""

    @classmethod
    def of(cls, calls: Calls) -> Flushes:
        """All invalidations of a trace.

        The operand holds VA[55:12] in its low 44 bits (Arm ARM, TLBI VAE1IS).
        """
        events = calls.trace.events
        rows = np.flatnonzero(events.kind == Kind.TLBI)
        op, known = events.column("op")
        page = op[rows] & _VA_BITS
        va = (page << _PAGE_SHIFT) | np.where(page & _SIGN, _UPPER, np.uint64(0))
        return cls(rows.astype(np.int64), va, ~known[rows])

    def between(self, first_row: I64, end_row: I64, start: U64, end: U64) -> Bool:
        """For each window of rows, whether an address in ``[start, end)`` was flushed in it."""
        found = np.zeros(first_row.size, dtype=np.bool_)
        low, high = np.searchsorted(self.row, first_row), np.searchsorted(self.row, end_row)
        for index in np.flatnonzero(high > low).tolist():
            mine = slice(int(low[index]), int(high[index]))
            inside = (self.va[mine] >= start[index]) & (self.va[mine] < end[index])
            found[index] = bool((inside | self.everything[mine]).any())
        return found


def linear_unmaps(calls: Calls) -> I64:
    """Calls of unmap_hotplug_range() on the linear map: they do not free what was mapped."""
    mine = calls.of(Kind.UNMAP_HOTPLUG_RANGE)
    free, known = calls.argument("free_mapped")
    mine = mine[calls.start_known[mine] & known[mine]]
    return np.asarray(mine[(free[mine] & np.uint64(0xFF)) == 0])


def flushes_by_unmap(calls: Calls) -> tuple[I64, I64]:
    """(Calls of unmap_hotplug_range() with invalidations in them, how many)."""
    inside = innermost(calls, Kind.UNMAP_HOTPLUG_RANGE, Flushes.of(calls).row)
    return np.unique(inside[inside >= 0], return_counts=True)


def early_frees(calls: Calls) -> tuple[I64, I64]:
    """(Calls of unmap_hotplug_range(), rows of pages given away in them before their first invalidation).

    Empty where no invalidation at all was seen in such calls.
    """
    events, flushes = calls.trace.events, Flushes.of(calls)
    flushed_in = innermost(calls, Kind.UNMAP_HOTPLUG_RANGE, flushes.row)
    rows = np.flatnonzero(events.kind == Kind.MM_PAGE_FREE).astype(np.int64)
    freed_in = innermost(calls, Kind.UNMAP_HOTPLUG_RANGE, rows)
    rows, freed_in = rows[freed_in >= 0], freed_in[freed_in >= 0]
    if not (flushed_in >= 0).any() or not rows.size:
        return rows[:0], rows[:0]
    first = np.full(len(calls), NEVER, dtype=np.int64)
    np.minimum.at(first, flushed_in[flushed_in >= 0], flushes.row[flushed_in >= 0])
    early = rows < first[freed_in]
    return freed_in[early], rows[early]


def reuses(calls: Calls) -> tuple[I64, I64]:
    """(Populates, the unmap before each) of a range that was mapped again without a flush since it was unmapped.

    Empty where the unmaps of the trace show no invalidation.
    """
    unmaps, _ = flushes_by_unmap(calls)
    makes = calls.of(Kind.VMEMMAP_POPULATE, Kind.CREATE_PGD_MAPPING_LOCKED)
    makes = makes[calls.start_known[makes]]
    breaks = calls.of(Kind.UNMAP_HOTPLUG_RANGE)
    breaks = breaks[calls.start_known[breaks]]
    if not unmaps.size or not makes.size or not breaks.size:
        return makes[:0], makes[:0]
    order = breaks[np.lexsort((calls.row[breaks], calls.start[breaks]))]
    found = _last_before(calls, order, makes)
    makes, found = makes[found >= 0], found[found >= 0]
    flushes, row, start, end = Flushes.of(calls), calls.row[found], calls.start[found], calls.end[found]
    open_now = np.flatnonzero(~flushes.between(row, np.minimum(calls.until[found], calls.row[makes]), start, end))
    open_now = open_now[:MAX_LONG_WINDOWS]
    later = flushes.between(row[open_now], calls.row[makes][open_now], start[open_now], end[open_now])
    open_now = open_now[~later]
    return makes[open_now], found[open_now]


def _last_before(calls: Calls, breaks: I64, makes: I64) -> I64:
    """For each mapping, the last unmap of a range with the same start before it, -1 for none."""
    rank = distinct(np.concatenate((calls.start[breaks], calls.start[makes])))
    row_bits = 40
    keys = (np.searchsorted(rank, calls.start[breaks]) << row_bits) + calls.row[breaks]
    wanted = (np.searchsorted(rank, calls.start[makes]) << row_bits) + calls.row[makes]
    before = np.searchsorted(keys, wanted) - 1
    at = breaks[np.maximum(before, 0)]
    same = (before >= 0) & (calls.start[at] == calls.start[makes])
    return np.where(same, at, -1)


def live_remaps(calls: Calls, *kinds: Kind) -> tuple[I64, bool]:
    """(Calls of ``kinds`` that change a live entry and were not flushed before the next, whether flushes are seen).

    vmemmap_remap_pte() and its like write the new entry themselves: a flush in time comes before the task's next
    call, one that comes later leaves both translations in the TLB for a while.
    """
    mine = calls.of(*kinds)
    old, known = calls.argument("old")
    mine = mine[~known[mine] | ((old[mine] & np.uint64(1)) == 1)]
    flushes = Flushes.of(calls)
    around = innermost(calls, Kind.VMEMMAP_REMAP_RANGE, flushes.row)
    observable = bool((around >= 0).any())
    if not observable:
        return mine[:0], False
    start = calls.argument("start")[0][mine]
    ends = np.minimum(calls.until[mine], _next_of_kind(calls, mine))
    flushed = flushes.between(calls.row[mine], np.minimum(ends, len(calls.trace)), start, start + np.uint64(4096))
    return np.asarray(mine[~flushed]), True


def _next_of_kind(calls: Calls, mine: I64) -> I64:
    """Row of the same task's next call among ``mine``."""
    order = mine[np.argsort(calls.pid[mine], kind="stable")]
    after = np.full(mine.size, NEVER, dtype=np.int64)
    same = calls.pid[order[1:]] == calls.pid[order[:-1]]
    after[:-1][same] = calls.row[order[1:]][same]
    place = np.empty(len(calls), dtype=np.int64)
    place[order] = np.arange(order.size)
    return np.asarray(after[place[mine]])

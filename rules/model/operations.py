"""From trace events to hotplug operations: calls joined with their returns, children with their parents.

All of it is array work over the columns of the event table; order is the order of the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from parsers.ftrace.events import Phase
from parsers.ftrace.functions import Kind

if TYPE_CHECKING:
    from parsers.ftrace.events import Trace
    from parsers.mapping import I64, U8, U64, Bool

__all__ = ["Calls", "calls_of"]

NEVER = np.iinfo(np.int64).max

_PARENTS: dict[Kind, tuple[Kind, ...]] = {
    Kind.SPARSE_ADD_SECTION: (Kind.ADD_PAGES, Kind.ARCH_ADD_MEMORY),
    Kind.VMEMMAP_POPULATE: (Kind.SPARSE_ADD_SECTION, Kind.ADD_PAGES, Kind.ARCH_ADD_MEMORY),
    Kind.VMEMMAP_POPULATE_HUGEPAGES: (Kind.VMEMMAP_POPULATE,),
    Kind.VMEMMAP_POPULATE_BASEPAGES: (Kind.VMEMMAP_POPULATE_HUGEPAGES, Kind.VMEMMAP_POPULATE),
    Kind.VMEMMAP_SET_PMD: (Kind.VMEMMAP_POPULATE,),
    Kind.VMEMMAP_CHECK_PMD: (Kind.VMEMMAP_POPULATE,),
    Kind.SPARSE_REMOVE_SECTION: (Kind.REMOVE_PAGES, Kind.ARCH_REMOVE_MEMORY),
    Kind.VMEMMAP_FREE: (Kind.SPARSE_REMOVE_SECTION, Kind.ARCH_REMOVE_MEMORY),
    Kind.ADD_PAGES: (Kind.ARCH_ADD_MEMORY,),
    Kind.REMOVE_PAGES: (Kind.ARCH_REMOVE_MEMORY,),
    Kind.UNMAP_HOTPLUG_RANGE: (Kind.VMEMMAP_FREE, Kind.ARCH_REMOVE_MEMORY),
}


@dataclass(frozen=True, eq=False)
class Calls:
    """One row a call, ascending by entry."""

    trace: Trace
    kind: U8
    row: I64
    """Row of the entry in the event table."""
    end_row: I64
    """Row of the return, `NEVER` where it was not seen."""
    ret: I64
    ret_known: Bool
    start: U64
    """First address or byte, or first PFN, as the function counts."""
    end: U64
    """After the last one."""
    start_known: Bool
    altmap: U64
    altmap_known: Bool
    parent: I64
    """Call that this one is part of, -1 for none."""

    def __len__(self) -> int:
        return int(self.row.size)

    @property
    def failed(self) -> Bool:
        """Calls seen to return an error."""
        return np.asarray(self.ret_known & (self.ret < 0))

    def of(self, *kinds: Kind) -> I64:
        """Numbers of the calls of these kinds."""
        return np.flatnonzero(np.isin(self.kind, kinds))


def calls_of(trace: Trace) -> Calls:
    """All calls of the trace.

    A return belongs to the last entry of the same function by the same task, if no other return came
    first: the functions do not call themselves.
    """
    events = trace.events
    rows = np.flatnonzero(events.phase == Phase.ENTRY)
    ends = _returns(trace, rows)
    ret, ret_known = events.signed("ret")
    has_end = ends != NEVER
    at = np.where(has_end, ends, 0)
    start, end, known = _extent(trace, rows)
    altmap, altmap_known = events.column("altmap")
    parent = _parents(events.kind[rows], events.pid[rows], rows, ends)
    known &= ~_outside_parent(events.kind[rows], parent, start, end, known)
    return Calls(
        trace,
        events.kind[rows],
        rows.astype(np.int64),
        ends,
        np.where(has_end, ret[at] if ret.size else 0, 0),
        has_end & (ret_known[at] if ret_known.size else False),
        start,
        end,
        known,
        altmap[rows],
        altmap_known[rows],
        parent,
    )


def _returns(trace: Trace, entries: I64) -> I64:
    """Row of each entry's return."""
    events = trace.events
    rows = np.flatnonzero((events.phase == Phase.ENTRY) | (events.phase == Phase.RETURN))
    order = rows[np.lexsort((rows, events.kind[rows], events.pid[rows]))]
    same = (events.kind[order[1:]] == events.kind[order[:-1]]) & (events.pid[order[1:]] == events.pid[order[:-1]])
    pairs = same & (events.phase[order[:-1]] == Phase.ENTRY) & (events.phase[order[1:]] == Phase.RETURN)
    found = np.full(len(events), NEVER, dtype=np.int64)
    found[order[:-1][pairs]] = order[1:][pairs]
    return found[entries]


def _extent(trace: Trace, rows: I64) -> tuple[U64, U64, Bool]:
    """``[start, end)`` of each call from whichever columns it has."""
    column = trace.events.column
    start, has_start = (part[rows] for part in column("start"))
    pfn, has_pfn = (part[rows] for part in column("start_pfn"))
    end, has_end = (part[rows] for part in column("end"))
    size, has_size = (part[rows] for part in column("size"))
    pages, has_pages = (part[rows] for part in column("nr_pages"))
    first = np.where(has_pfn, pfn, start)
    after = np.where(has_pfn, pfn + pages, np.where(has_end, end, start + size))
    known = (has_pfn & has_pages) | (has_start & (has_end | has_size))
    return first.astype(np.uint64), after.astype(np.uint64), known.astype(np.bool_)


def _parents(kind: U8, pid: np.ndarray[tuple[int], np.dtype[np.int32]], rows: I64, ends: I64) -> I64:
    """The innermost enclosing call of a kind that may call this one, of the same task."""
    parent = np.full(rows.size, -1, dtype=np.int64)
    for child, kinds in _PARENTS.items():
        mine = np.flatnonzero(kind == child)
        for outer in kinds:
            candidates = np.flatnonzero(kind == outer)
            if not mine.size or not candidates.size:
                continue
            order = candidates[np.lexsort((rows[candidates], pid[candidates]))]
            keys = pid[order].astype(np.int64) * (1 << 40) + rows[order]
            before = np.searchsorted(keys, pid[mine].astype(np.int64) * (1 << 40) + rows[mine]) - 1
            found = order[np.maximum(before, 0)]
            inside = (before >= 0) & (pid[found] == pid[mine]) & (ends[found] > rows[mine]) & (parent[mine] < 0)
            parent[mine[inside]] = found[inside]
    return parent


def _outside_parent(kind: U8, parent: I64, start: U64, end: U64, known: Bool) -> Bool:
    """Section calls whose PFNs cannot be part of the call around them: a probe with another release's registers."""
    by_bytes = np.isin(kind, (Kind.ARCH_ADD_MEMORY, Kind.ARCH_REMOVE_MEMORY))
    mine = np.flatnonzero(np.isin(kind, (Kind.SPARSE_ADD_SECTION, Kind.SPARSE_REMOVE_SECTION)) & (parent >= 0) & known)
    outer = parent[mine]
    mine, outer = mine[by_bytes[outer] & known[outer]], outer[by_bytes[outer] & known[outer]]
    wrong = np.zeros(kind.size, dtype=np.bool_)
    fits = np.zeros(mine.size, dtype=np.bool_)
    for shift in (12, 14, 16):
        first, last = start[outer] >> np.uint64(shift), end[outer] >> np.uint64(shift)
        fits |= (start[mine] >= first) & (end[mine] <= last) & (end[mine] > start[mine])
    wrong[mine[~fits]] = True
    return wrong

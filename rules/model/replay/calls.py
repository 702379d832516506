"""From trace events to hotplug operations: calls joined with their returns, children with their parents.

All of it is array work over the columns of the event table; order is the order of the table.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from parsers.ftrace.events import Phase
from parsers.ftrace.functions import FUNCTIONS, Kind, callers_of
from parsers.ftrace.health import impossible_rows
from parsers.ranges import distinct
from parsers.records import dataclass

if TYPE_CHECKING:
    from parsers.ftrace.events import I32, Trace
    from parsers.mapping import I64, U8, U64, Bool

__all__ = ["MAX_ERRNO", "NEVER", "Calls", "calls_of", "innermost", "overlaps"]

NEVER = np.iinfo(np.int64).max
MAX_ERRNO = 4095
"""include/linux/err.h: pointers and numbers from -4095 to -1 are errors."""

_PAGE_SHIFTS = (12, 14, 16)
_IN_CALL_GRAPH = frozenset(
    kind for function in FUNCTIONS if function.callers for kind in (function.kind, *function.callers)
)
"""Functions that call or are called by another of the table."""


def _descendants(kind: Kind) -> frozenset[Kind]:
    """Everything that a call of ``kind`` may call in turn."""
    found: set[Kind] = set()
    fresh = {kind}
    while fresh:
        fresh = {child for child in Kind if fresh & set(callers_of(child))} - found
        found |= fresh
    return frozenset(found)


@dataclass(frozen=True, eq=False)
class Calls:
    """One row a call, ascending by entry."""

    trace: Trace
    kind: U8
    pid: I32
    row: I64
    """Row of the entry in the event table."""
    end_row: I64
    """Row of the return, `NEVER` where it was not seen."""
    until: I64
    """Row by which the call was over: its return, or else the task's next call that cannot be part of it; `NEVER`."""
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

    @cached_property
    def failed(self) -> Bool:
        """Calls seen to return an error: memremap_pages() returns a pointer, which is negative, too."""
        return np.asarray(self.ret_known & (self.ret < 0) & (self.ret >= -MAX_ERRNO))

    @cached_property
    def owner(self) -> I64:
        """The add that each call is part of, or the call itself."""
        owner = np.arange(len(self))
        sections = self.of(Kind.SPARSE_ADD_SECTION)
        outer = self.parent[sections]
        pages = (outer >= 0) & (self.kind[outer] == Kind.ADD_PAGES)
        outer = np.where(pages, self.parent[outer], outer)
        added = (outer >= 0) & (self.kind[outer] == Kind.ARCH_ADD_MEMORY)
        owner[sections[added]] = outer[added]
        return owner

    def of(self, *kinds: Kind) -> I64:
        """Numbers of the calls of these kinds."""
        return np.flatnonzero(np.isin(self.kind, kinds))

    def argument(self, name: str) -> tuple[U64, Bool]:
        """(values, present) of an argument by call."""
        value, present = self.trace.events.column(name)
        return value[self.row], present[self.row]

    def under(self, call: int, *kinds: Kind) -> int:
        """The innermost call of ``kinds`` around ``call``, -1 for none."""
        outer = int(self.parent[call])
        while outer >= 0 and self.kind[outer] not in kinds:
            outer = int(self.parent[outer])
        return outer


def calls_of(trace: Trace) -> Calls:
    """All calls of the trace.

    A return belongs to the last entry of the same function by the same task, if no other return came
    first: the functions do not call themselves.
    """
    events = trace.events
    rows = np.flatnonzero(events.phase == Phase.ENTRY)
    kind, pid = events.kind[rows], events.pid[rows]
    ends = _returns(trace, rows)
    until = np.where(ends == NEVER, _overtaken(kind, pid, rows), ends)
    ret, ret_known = events.signed("ret")
    has_end = ends != NEVER
    at = np.where(has_end, ends, 0)
    start, end, known = _extent(trace, rows)
    altmap, altmap_known = events.column("altmap")
    parent = _parents(kind, pid, rows, until)
    known &= ~_outside_parent(kind, parent, start, end, known) & ~impossible_rows(events)[rows]
    return Calls(
        trace,
        kind,
        pid,
        rows.astype(np.int64),
        ends,
        until,
        np.where(has_end, ret[at] if ret.size else 0, 0),
        has_end & (ret_known[at] if ret_known.size else False),
        start,
        end,
        known,
        altmap[rows],
        altmap_known[rows],
        parent,
    )


def innermost(calls: Calls, kind: Kind, rows: I64) -> I64:
    """For rows of the event table, the call of ``kind`` by the same task that was under way, -1 for none."""
    candidates = calls.of(kind)
    pid = calls.trace.events.pid[rows]
    return _inside(candidates, calls.pid, calls.row, calls.until, pid, rows)


def overlaps(calls: Calls, kinds: tuple[Kind, ...]) -> tuple[int | None, list[int]]:
    """(The first call of ``kinds`` of which it is not known when it was over, calls that overlap another task's)."""
    mine = calls.of(*kinds)
    if distinct(calls.pid[mine]).size < 2:
        return None, []
    # Without a return, a call is over when its task begins another one, and who comes in between is not known.
    unsure = mine[:-1][(calls.end_row[mine] == NEVER)[:-1] & (calls.pid[mine][1:] != calls.pid[mine][:-1])]
    mine = mine[calls.end_row[mine] != NEVER]
    ends = calls.end_row[mine]
    reach = np.maximum.accumulate(ends)
    furthest = np.maximum.accumulate(np.where(ends == reach, np.arange(mine.size), 0))[:-1]
    overlap = (calls.row[mine][1:] < reach[:-1]) & (calls.pid[mine][1:] != calls.pid[mine][furthest])
    return int(unsure[0]) if unsure.size else None, mine[1:][overlap].tolist()


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


def _overtaken(kind: U8, pid: I32, rows: I64) -> I64:
    """For each call, the row of the task's next call that cannot be part of it, `NEVER` for none."""
    found = np.full(rows.size, NEVER, dtype=np.int64)
    for number in distinct(kind).tolist():
        if Kind(number) not in _IN_CALL_GRAPH:
            continue
        mine = np.flatnonzero(kind == number)
        foreign = np.flatnonzero(~np.isin(kind, (*_descendants(Kind(number)), Kind.OTHER)))
        order = foreign[np.argsort(pid[foreign], kind="stable")]
        keys = _key(pid[order], rows[order])
        after = np.searchsorted(keys, _key(pid[mine], rows[mine]), side="right")
        inside = after < order.size
        at = order[np.minimum(after, order.size - 1)]
        inside &= pid[at] == pid[mine]
        found[mine[inside]] = rows[at[inside]]
    return found


def _key(pid: I32, rows: I64) -> I64:
    """One sortable number for a task and a row."""
    return pid.astype(np.int64) * (1 << 40) + rows


def _extent(trace: Trace, rows: I64) -> tuple[U64, U64, Bool]:
    """``[start, end)`` of each call from whichever columns it has."""
    column = trace.events.column
    start, has_start = (part[rows] for part in column("start"))
    pfn, has_pfn = (part[rows] for part in column("start_pfn"))
    end, has_end = (part[rows] for part in column("end"))
    size, has_size = (part[rows] for part in column("size"))
    pages, has_pages = (part[rows] for part in column("nr_pages"))
    virt, has_virt = (part[rows] for part in column("virt"))
    first = np.where(has_pfn, pfn, np.where(has_virt, virt, start))
    after = np.where(has_pfn, pfn + pages, np.where(has_end, end, first + size))
    known = (has_pfn & has_pages) | ((has_start | has_virt) & (has_end | has_size))
    return first.astype(np.uint64), after.astype(np.uint64), known.astype(np.bool_)


def _parents(kind: U8, pid: I32, rows: I64, until: I64) -> I64:
    """The innermost enclosing call of a kind that may call this one, of the same task."""
    parent = np.full(rows.size, -1, dtype=np.int64)
    by_kind = {number: np.flatnonzero(kind == number) for number in distinct(kind).tolist()}
    for child in Kind:
        mine = by_kind.get(child)
        if mine is None:
            continue
        for outer in callers_of(child):
            if outer in by_kind:
                found = _inside(by_kind[outer], pid, rows, until, pid[mine], rows[mine])
                fresh = (parent[mine] < 0) & (found >= 0)
                parent[mine[fresh]] = found[fresh]
    return parent


def _inside(candidates: I64, pid: I32, rows: I64, until: I64, of_pid: I32, of_rows: I64) -> I64:
    """For each (task, row), the last of the candidate calls that began before and was not over, -1 for none."""
    if not candidates.size or not of_rows.size:
        return np.full(of_rows.size, -1, dtype=np.int64)
    order = candidates[np.argsort(pid[candidates], kind="stable")]
    before = np.searchsorted(_key(pid[order], rows[order]), _key(of_pid, of_rows)) - 1
    found = order[np.maximum(before, 0)]
    inside = (before >= 0) & (pid[found] == of_pid) & (until[found] > of_rows)
    return np.where(inside, found, -1)


def _outside_parent(kind: U8, parent: I64, start: U64, end: U64, known: Bool) -> Bool:
    """Section calls whose PFNs cannot be part of the call around them: a probe with another release's registers."""
    by_bytes = np.isin(kind, (Kind.ARCH_ADD_MEMORY, Kind.ARCH_REMOVE_MEMORY))
    mine = np.flatnonzero(np.isin(kind, (Kind.SPARSE_ADD_SECTION, Kind.SPARSE_REMOVE_SECTION)) & (parent >= 0) & known)
    outer = parent[mine]
    mine, outer = mine[by_bytes[outer] & known[outer]], outer[by_bytes[outer] & known[outer]]
    wrong = np.zeros(kind.size, dtype=np.bool_)
    fits = np.zeros(mine.size, dtype=np.bool_)
    for shift in _PAGE_SHIFTS:
        first, last = start[outer] >> np.uint64(shift), end[outer] >> np.uint64(shift)
        fits |= (start[mine] >= first) & (end[mine] <= last) & (end[mine] > start[mine])
    wrong[mine[~fits]] = True
    return wrong

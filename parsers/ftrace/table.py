"""Collects the rows of a trace chunk by chunk and makes the tables of `parsers.ftrace.events` of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parsers.errors import FormatError
from parsers.ftrace.events import NO_TIME, Arguments, Events, Origin, Phase, Stacks, Strings
from parsers.ftrace.functions import FUNCTION_OF_KIND, Kind
from parsers.ftrace.naming import column_of
from parsers.mapping import I64, U8, U64, Bool
from parsers.records import dataclass

__all__ = ["MAX_ROWS", "ROW_DTYPES", "Column", "Interned", "TableBuilder"]

Column = NDArray[Any]
"""A column whose dtype is that of its name in `ROW_DTYPES`."""

ROW_DTYPES: dict[str, type[np.generic]] = {
    "time_ns": np.int64,
    "cpu": np.int32,
    "pid": np.int32,
    "comm": np.int32,
    "kind": np.uint8,
    "phase": np.uint8,
    "origin": np.uint8,
    "name": np.int32,
    "symbol": np.int32,
    "caller": np.int32,
    "stack": np.int32,
    "user_stack": np.int32,
    "buffer": np.uint8,
    "line": np.int64,
    "offset": np.int64,
}
MAX_ROWS = 2_000_000
"""Events of hotplug that are read of one trace: each takes up to a kilobyte meanwhile."""
_ABSENT = {"time_ns": NO_TIME, "cpu": -1, "pid": -1, "comm": -1, "symbol": -1, "caller": -1, "name": -1}
_ABSENT |= {"stack": -1, "user_stack": -1, "offset": -1}

_RET32 = np.uint64(0xFFFFFFFF)
_ADJACENT_NS = 1_000_000
"""A function-tracer record of a call and the probe event of the same call are microseconds apart."""


class Interned(dict[bytes, int]):
    """``interned[raw]`` is a small number, given out in order of first use; ``values_in_order`` has them back."""

    def __init__(self) -> None:
        super().__init__()
        self.values_in_order: list[bytes] = []

    def __missing__(self, key: bytes) -> int:
        self[key] = number = len(self.values_in_order)
        self.values_in_order.append(key)
        return number

    def ids(self, keys: Iterable[bytes]) -> NDArray[np.int64]:
        """Numbers of all ``keys``."""
        return np.fromiter(map(self.__getitem__, keys), dtype=np.int64)


@dataclass
class TableBuilder:
    """Rows, arguments, strings and stacks while a source is read."""

    strings: Strings = field(default_factory=Strings)
    columns: Strings = field(default_factory=Strings)
    nr_rows: int = 0
    _rows: dict[str, list[Column]] = field(default_factory=lambda: {name: [] for name in ROW_DTYPES})
    _args: list[tuple[I64, NDArray[np.int64], U64, NDArray[np.int64]]] = field(default_factory=list)
    _stack_ids: dict[tuple[str, ...], int] = field(default_factory=dict)

    def stack(self, frames: tuple[str, ...]) -> int:
        """Id of a call stack; -1 for one without frames."""
        return self._stack_ids.setdefault(frames, len(self._stack_ids)) if frames else -1

    def add(self, count: int, rows: Mapping[str, Column]) -> None:
        """Append ``count`` rows; columns that are not given are absent.  FormatError for more than ``MAX_ROWS``."""
        if self.nr_rows + count > MAX_ROWS:
            raise FormatError(f"more than {MAX_ROWS} events of memory hotplug: cut the trace in parts")
        for name, dtype in ROW_DTYPES.items():
            given = rows.get(name)
            absent = np.full(count, _ABSENT.get(name, 0), dtype=dtype) if given is None else given.astype(dtype)
            self._rows[name].append(absent)
        self.nr_rows += count

    def add_arguments(
        self, row: NDArray[np.integer], column: NDArray[np.integer], value: U64, text: NDArray[np.integer]
    ) -> None:
        """Append arguments: rows of the whole table, ids of ``columns``, numbers or ids of ``strings``."""
        self._args.append((row.astype(np.int64), column.astype(np.int64), value, text.astype(np.int64)))

    def merge(self) -> NDArray[np.intp]:
        """Order the rows by buffer-independent time, equal times by CPU and place; what the order was before."""
        rows = {name: _concatenate(parts, ROW_DTYPES[name]) for name, parts in self._rows.items()}
        order = np.lexsort((rows["offset"], rows["cpu"], rows["buffer"], rows["time_ns"]))
        self._rows = {name: [values[order]] for name, values in rows.items()}
        place = np.empty_like(order)
        place[order] = np.arange(order.size)
        self._args = [(place[row].astype(np.int64), column, value, text) for row, column, value, text in self._args]
        return order

    def name_tasks(self, names: Mapping[int, str]) -> None:
        """Fill the column ``comm`` from the pids."""
        pids, inverse = np.unique(_concatenate(self._rows["pid"], np.int32), return_inverse=True)
        ids = [self.strings.id(names.get(pid, "<...>")) for pid in pids.tolist()]
        self._rows["comm"] = [np.asarray(ids, dtype=np.int32)[inverse.reshape(-1)]]

    def attach_stacks(self, use: Bool, is_stack: Bool, stack: NDArray[np.int64], column: str) -> None:
        """Give the rows before the stack rows in ``use`` their stacks: the last event of the same task."""
        pid = _concatenate(self._rows["pid"], np.int32)
        order = np.argsort(pid, kind="stable")
        stacks_here = is_stack[order]
        position = np.where(stacks_here, -1, np.arange(order.size))
        owner = np.maximum.accumulate(position)
        has = use[order] & (owner >= 0) & (pid[order] == pid[order][np.maximum(owner, 0)]) & (pid[order] >= 0)
        target = _concatenate(self._rows[column], np.int32).copy()
        # Backwards, so that of two stacks the first after the event stays.
        target[order[owner[has]][::-1]] = stack[order[has]][::-1]
        self._rows[column] = [target]

    def relocate(self, first_row: int, first_line: int, offsets: I64, *, buffer: int) -> None:
        """Rows from ``first_row`` on came from rewritten text: ``offsets`` are where its lines are in the source."""
        if first_row < self.nr_rows:
            self._rows["offset"][-1] = offsets[self._rows["line"][-1] - first_line]
            self._rows["buffer"][-1] = np.full(self.nr_rows - first_row, buffer, dtype=np.uint8)

    def matters(self) -> Bool:
        """Rows that are events of hotplug or markers, or what the page allocator did for a task between its events."""
        kind, pid = _concatenate(self._rows["kind"], np.uint8), _concatenate(self._rows["pid"], np.int32)
        use: Bool = kind != Kind.OTHER
        page = (kind == Kind.MM_PAGE_ALLOC) | (kind == Kind.MM_PAGE_FREE)
        if page.any():
            order = np.argsort(pid, kind="stable")
            hotplug = (use & ~page & (_concatenate(self._rows["phase"], np.uint8) != Phase.POINT))[order]
            use[order] &= ~page[order] | (_before(hotplug, pid[order]) & _before(hotplug[::-1], pid[order][::-1])[::-1])
        return use

    def stacks(self) -> Stacks:
        """All stacks, in order of their ids."""
        return Stacks(frames=tuple(self._stack_ids))

    def finish(self, keep: Bool | None = None) -> Events:
        """The events table, of the rows in ``keep`` (default all)."""
        columns = {name: _concatenate(parts, ROW_DTYPES[name]) for name, parts in self._rows.items()}
        row, column, value, text = self._argument_arrays()
        value = normalise(columns["kind"], columns["phase"], row, column, value, columns=self.columns)
        good = _trusted(columns["kind"], row, column, value, self.columns)
        kept = np.ones(self.nr_rows, dtype=np.bool_) if keep is None else keep.copy()
        kept &= ~recorded_twice(columns)
        good &= kept[row]
        new_row = np.cumsum(kept) - 1
        row, column, value, text = new_row[row[good]], column[good], value[good], text[good]
        order = np.argsort(row, kind="stable")
        arguments = Arguments(
            row=row[order].astype(np.int64),
            column=column[order].astype(np.uint16),
            value=value[order],
            text=text[order].astype(np.int32),
            columns=tuple(self.columns.text),
        )
        return Events(arguments=arguments, **{name: values[kept] for name, values in columns.items()})

    def _argument_arrays(self) -> tuple[I64, NDArray[np.int64], U64, NDArray[np.int64]]:
        return (
            _concatenate([part[0] for part in self._args], np.int64),
            _concatenate([part[1] for part in self._args], np.int64),
            _concatenate([part[2] for part in self._args], np.uint64),
            _concatenate([part[3] for part in self._args], np.int64),
        )


def _before(marked: Bool, group: NDArray[np.int32]) -> Bool:
    """Rows that have a marked row before them in their group; groups are contiguous."""
    last = np.maximum.accumulate(np.where(marked, np.arange(marked.size), -1))
    found: Bool = (last >= 0) & (group[np.maximum(last, 0)] == group)
    return found


def _concatenate(parts: Iterable[Column], dtype: type[np.generic]) -> Column:
    arrays = list(parts)
    return np.concatenate(arrays) if arrays else np.zeros(0, dtype=dtype)


def argument_columns(kind: Column, at_return: Bool, name: I64, names: list[str], *, columns: Strings) -> I64:
    """Column ids of arguments called ``names[name]`` of events of ``kind``."""
    key = (name.astype(np.int64) << 9) | (kind.astype(np.int64) << 1) | at_return
    unique, inverse = np.unique(key, return_inverse=True)
    ids = [columns.id(column_of(names[k >> 9], Kind((k >> 1) & 0xFF), at_return=bool(k & 1))) for k in unique.tolist()]
    column: I64 = np.asarray(ids, dtype=np.int64)[inverse.reshape(-1)]
    return column


def normalise(kind: U8, phase: U8, row: I64, column: I64, value: U64, *, columns: Strings) -> U64:
    """Values in the meaning of the columns: exclusive ends, int results extended from 32 bits.

    A function that returns int leaves the upper half of x0 undefined; a pointer result is left alone.
    """
    value = value.copy()
    kinds = kind[row]
    ret = columns.find("ret")
    for function in FUNCTION_OF_KIND.values():
        mine: Bool = kinds == function.kind
        if not mine.any():
            continue
        for name in function.inclusive:
            ends = mine & (column == columns.find(name)) & (phase[row] != Phase.RETURN)
            if function.kind is Kind.ADD_PAGES:
                ends &= value != 0
            value[ends] += np.uint64(1)
        if function.returns == "s32":
            results = mine & (column == ret)
            value[results] = (value[results] & _RET32).astype(np.uint32).view(np.int32).astype(np.int64).view(np.uint64)
    return value


def _trusted(kind: U8, row: I64, column: NDArray[np.int64], value: U64, columns: Strings) -> Bool:
    """Arguments without those that were read through a pointer that is null.

    The kernel leaves what the ring buffer held in a field whose dereference failed
    (store_trace_args, kernel/trace/trace_probe_tmpl.h).
    """
    good = np.ones(row.size, dtype=np.bool_)
    for function in FUNCTION_OF_KIND.values():
        pointers = {columns.find(pointer) for pointer in function.pointer_of.values()} - {-1}
        for pointer in pointers:
            null_rows = row[(column == pointer) & (value == 0) & (kind[row] == function.kind)]
            if null_rows.size:
                derived = [
                    columns.find(name)
                    for name, through in function.pointer_of.items()
                    if columns.find(through) == pointer
                ]
                good &= ~(np.isin(row, null_rows) & np.isin(column, derived))
    return good


def recorded_twice(rows: Mapping[str, Column]) -> Bool:
    """Rows of a function tracer whose call a probe has recorded as well, with arguments.

    The tracer's record is the neighbour of the probe's among the rows of the same task.
    """
    origin, kind, phase, pid = rows["origin"], rows["kind"], rows["phase"], rows["pid"]
    tracer = (origin == Origin.FUNCTION) | (origin == Origin.GRAPH)
    twice = np.zeros(origin.size, dtype=np.bool_)
    if not tracer.any() or tracer.all():
        return twice
    order = np.argsort(pid, kind="stable")
    kind, phase, pid, origin, time = kind[order], phase[order], pid[order], origin[order], rows["time_ns"][order]
    tracer = tracer[order]
    same = (kind[1:] == kind[:-1]) & (phase[1:] == phase[:-1]) & (pid[1:] == pid[:-1])
    same &= np.abs(time[1:].astype(np.float64) - time[:-1].astype(np.float64)) < _ADJACENT_NS
    found = np.zeros(origin.size, dtype=np.bool_)
    found[1:] |= same & tracer[1:] & (origin[:-1] == Origin.PROBE)
    found[:-1] |= same & tracer[:-1] & (origin[1:] == Origin.PROBE)
    twice[order] = found
    return twice

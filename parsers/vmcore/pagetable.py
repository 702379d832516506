"""The walk of ``swapper_pg_dir``: every table of the kernel's address space, read physically, decoded in bulk.

Breadth first, one level at a time, in batches of whole tables: memory in use depends on the number of distinct
ranges, not of entries.  Neighbouring entries become one row when level and attributes are equal, as the kernel's
own dump merges them (mm/ptdump.c, arch/arm64/mm/ptdump.c), and when their output addresses continue, or are all the
same (the shared early shadow of KASAN; ``Walk.repeated``).

The tables may be corrupt.  A page that is a table at one level is not entered at another, which excludes cycles;
tables that are referred to repeatedly are entered a bounded number of times; what is not
entered, or not in the dump, is *unobserved*, with a diagnostic, and never a hole.
"""

from __future__ import annotations

from dataclasses import field

import numpy as np

from parsers.arm64 import PTE
from parsers.errors import Diagnostic
from parsers.mapping import I8, I64, U8, U64, Bool, Mapping, TablePages
from parsers.progress import step
from parsers.records import dataclass
from parsers.vmcore.addresses import MASK, AddressMap
from parsers.vmcore.descriptors import DescriptorFormat, Kind, memory_types
from parsers.vmcore.faults import Fault, FaultLog, TableFaults
from parsers.vmcore.memory import MissingMemoryError, PhysicalMemory
from parsers.vmcore.table_pages import TableReader

__all__ = ["Walk", "walk_page_tables"]

_MAX_TABLES = 1 << 26
_MAX_ROWS = 1 << 23  # about 1.2 GiB at the end of the walk
_MAX_REPEATS = 1 << 13  # further visits of tables that are referred to more than once: KASAN has dozens
_MAX_DIAGNOSTICS = 16


@dataclass(frozen=True, eq=False, kw_only=True)
class Walk:
    """The page tables of a dump."""

    mapping: Mapping
    """Rows in ascending order, with output addresses and table pages; ``mapping.tables`` has one row a reference."""
    repeated: Bool
    """Rows of ``mapping`` in which every entry has the same output address, ``mapping.pa``."""
    table_descriptor: U64
    """For each row of ``mapping.tables``, the descriptor that points at it (0 for the root): its table attributes."""
    faults: TableFaults
    diagnostics: tuple[Diagnostic, ...]


@dataclass(frozen=True, eq=False, slots=True)
class _Tables:
    """Tables to visit at one level; table i is seen ``repeat[i]`` times in a row from ``va[i]`` on."""

    pa: U64
    va: U64
    repeat: U64
    parent: U64
    descriptor: U64

    def __getitem__(self, key: Bool | slice | U64 | I64) -> _Tables:
        return _Tables(self.pa[key], self.va[key], self.repeat[key], self.parent[key], self.descriptor[key])

    def __len__(self) -> int:
        return int(self.pa.size)


@dataclass(frozen=True, eq=False, slots=True)
class _Rows:
    """Runs of entries: first address, bytes, descriptor of the first entry, level."""

    va: U64
    size: U64
    descriptor: U64
    level: I8
    repeated: Bool

    def __getitem__(self, key: Bool | slice | U64) -> _Rows:
        return _Rows(self.va[key], self.size[key], self.descriptor[key], self.level[key], self.repeated[key])

    def __len__(self) -> int:
        return int(self.va.size)


def _joined_tables(parts: list[_Tables]) -> _Tables:
    empty = np.empty(0, dtype=np.uint64)
    columns = zip(*((part.pa, part.va, part.repeat, part.parent, part.descriptor) for part in parts), strict=True)
    return _Tables(*(np.concatenate(column) for column in columns)) if parts else _Tables(*[empty] * 5)


def _joined_rows(parts: list[_Rows]) -> _Rows:
    return _Rows(
        np.concatenate([part.va for part in parts] or [np.empty(0, np.uint64)]),
        np.concatenate([part.size for part in parts] or [np.empty(0, np.uint64)]),
        np.concatenate([part.descriptor for part in parts] or [np.empty(0, np.uint64)]),
        np.concatenate([part.level for part in parts] or [np.empty(0, np.int8)]),
        np.concatenate([part.repeated for part in parts] or [np.empty(0, np.bool_)]),
    )


@dataclass(slots=True)
class _State:
    """What the walk has gathered so far."""

    memory: PhysicalMemory
    addresses: AddressMap
    reader: TableReader
    format: DescriptorFormat
    path: str
    faults: FaultLog
    rows: list[_Rows] = field(default_factory=list)
    nr_rows: int = 0
    tables: list[_Tables] = field(default_factory=list)
    levels: list[int] = field(default_factory=list)
    used: list[U64] = field(default_factory=list)
    visited: U64 = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    nr_tables: int = 0
    repeats: int = 0
    lost: list[tuple[U64, U64]] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    silent: int = 0
    successor: U64 = field(default_factory=lambda: np.empty(0, dtype=np.uint64))

    def lose(self, tables: _Tables, level: int, why: Fault) -> None:
        """Note that nothing below ``tables`` was observed."""
        if not len(tables):
            return
        span = np.uint64(_table_span(self.addresses, level))
        self.lost.append((tables.va, tables.repeat * span))
        self.faults.add(why, level - 1, tables.parent, tables.va, tables.descriptor, tables.pa)
        for entry, descriptor, va in zip(
            tables.parent[:_MAX_DIAGNOSTICS].tolist(),
            tables.descriptor[:_MAX_DIAGNOSTICS].tolist(),
            tables.va[:_MAX_DIAGNOSTICS].tolist(),
            strict=True,
        ):
            page = self.addresses.granule.page_size
            where = (
                f"entry {entry % page // 8:#x} of table {entry // page * page:#x}, value {descriptor:#x}, for {va:#x}"
            )
            self.say(f"{why}: {where}")
        self.silent += max(len(tables) - _MAX_DIAGNOSTICS, 0)

    def say(self, message: str) -> None:
        """A diagnostic, unless there are many already."""
        if len(self.diagnostics) < _MAX_DIAGNOSTICS:
            self.diagnostics.append(Diagnostic(message, self.path))
        else:
            self.silent += 1


def _table_span(addresses: AddressMap, level: int) -> int:
    """Bytes that a full table of ``level`` translates."""
    return addresses.granule.span(level) << addresses.granule.bits_per_level


def walk_page_tables(
    memory: PhysicalMemory, addresses: AddressMap, *, source: str, pages_of: tuple[U64, U64] | None = None
) -> Walk:
    """Walk all of ``swapper_pg_dir``; ``source`` names the dump in evidence and diagnostics.

    With ``pages_of``, sorted first and last addresses of ranges, tables of the last level are read where they map
    these, and the rest of them is unobserved.
    """
    granule = addresses.granule
    form = DescriptorFormat(granule, addresses.lpa2)
    state = _State(memory, addresses, TableReader(memory, granule.page_size), form, source, FaultLog(form))
    level = granule.first_level(addresses.va_bits)
    frontier = _root(state, level)
    while len(frontier) and level < PTE:
        level += 1
        if level == PTE and pages_of is not None:
            frontier = _only(state, frontier, pages_of)
        frontier = _visit_level(state, frontier, level)
    return _result(state)


def _root(state: _State, level: int) -> _Tables:
    """Visit the root, which may be shorter than a page; returns the tables it refers to."""
    addresses = state.addresses
    count = 1 << (addresses.va_bits - (addresses.granule.span(level).bit_length() - 1))
    base = np.array([(1 << 64) - (1 << addresses.va_bits)], dtype=np.uint64)
    zero, one = np.zeros(1, dtype=np.uint64), np.ones(1, dtype=np.uint64)
    root = _Tables(np.array([addresses.root_pa], dtype=np.uint64), base, one, zero, zero)
    try:
        entries = np.frombuffer(state.memory.read(addresses.root_pa, 8 * count), dtype="<u8").astype(np.uint64)
    except MissingMemoryError:
        state.lost.append((base, np.array([(1 << addresses.va_bits) & MASK], dtype=np.uint64)))
        state.say(f"swapper_pg_dir at {addresses.root_pa:#x} is not in the dump: the page tables are unknown")
        return _joined_tables([])
    state.visited = root.pa
    return _decode_batch(state, root, entries.reshape(1, -1), level)


def _only(state: _State, tables: _Tables, ranges: tuple[U64, U64]) -> _Tables:
    """The tables of the last level that map any of some ranges; the others are not observed."""
    reach = tables.repeat * np.uint64(_table_span(state.addresses, PTE)) - np.uint64(1)
    row = np.searchsorted(ranges[0], tables.va + reach, side="right").astype(np.int64) - 1
    wanted = np.zeros(len(tables), dtype=np.bool_)
    if ranges[0].size:
        wanted = (row >= 0) & (ranges[1][np.maximum(row, 0)] >= tables.va)
    state.lost.append((tables.va[~wanted], reach[~wanted] + np.uint64(1)))
    return tables[wanted]


def _visit_level(state: _State, frontier: _Tables, level: int) -> _Tables:
    """Visit all tables of a level; returns those of the next."""
    frontier = _admitted(state, frontier, level)
    children: list[_Tables] = []
    seen, missing, regular = (np.zeros(len(frontier), dtype=np.bool_) for _ in range(3))
    first = np.zeros(len(frontier), dtype=np.uint64)
    with step(f"reading page tables of level {level}", len(frontier), "tables") as progress:
        for part in state.reader.read(frontier.pa, frontier.repeat == 1 if level == PTE else None):
            if state.nr_rows > _MAX_ROWS:
                break
            seen[part.rows], missing[part.rows], regular[part.rows] = True, ~part.present, part.regular
            first[part.rows] = part.first
            if len(part.entries):
                tables, entries = _expanded(state, frontier[part.kept], part.entries, level)
                children.append(_decode_batch(state, tables, entries, level))
            progress.advance(part.rows.size)
    state.lose(frontier[missing], level, Fault.MISSING)
    state.lose(frontier[~seen], level, Fault.ROWS)
    if regular.any():
        _add_regular(state, frontier[regular], first[regular])
    return _joined_tables(children)


def _add_regular(state: _State, tables: _Tables, descriptor: U64) -> None:
    """Rows of tables that each map one run of pages, from their first entries."""
    span = state.addresses.granule.span(PTE)
    per_table = 1 << state.addresses.granule.bits_per_level
    size = np.full(len(tables), per_table * span, dtype=np.uint64)
    level, not_repeated = np.full(len(tables), PTE, dtype=np.int8), np.zeros(len(tables), dtype=np.bool_)
    state.tables.append(tables)
    state.levels.append(PTE)
    state.used.append(np.full(len(tables), per_table, dtype=np.uint64))
    rows = _coalesced(_Rows(tables.va, size, descriptor, level, not_repeated), state.addresses, state.format)
    state.rows.append(rows)
    state.nr_rows += len(rows)


def _admitted(state: _State, tables: _Tables, level: int) -> _Tables:
    """The tables that may be entered: not seen at another level, not shared beyond measure, within the budget."""
    elsewhere = np.isin(tables.pa, state.visited)
    if elsewhere.any():
        state.lose(tables[elsewhere], level, Fault.ELSEWHERE)
        tables = tables[~elsewhere]
    pages, first = np.unique(tables.pa, return_index=True)
    if len(tables) - pages.size > _MAX_REPEATS - state.repeats:
        keep = np.zeros(len(tables), dtype=np.bool_)
        keep[first] = True
        state.lose(tables[~keep], level, Fault.SHARED)
        tables = tables[keep]
    state.repeats += len(tables) - int(pages.size)
    if state.nr_tables + len(tables) > _MAX_TABLES:
        allowed = max(_MAX_TABLES - state.nr_tables, 0)
        state.lose(tables[slice(allowed, None)], level, Fault.TABLES)
        tables = tables[slice(0, allowed)]
    state.nr_tables += len(tables)
    state.visited = np.concatenate((state.visited, pages))
    return tables


def _expanded(state: _State, tables: _Tables, entries: U64, level: int) -> tuple[_Tables, U64]:
    """Write out tables that repeat and are not uniform; uniform ones stay one row for all repetitions."""
    repeating = tables.repeat > 1
    if not repeating.any():
        return tables, entries
    uniform = (entries == entries[:, :1]).all(axis=1)
    copies = np.where(repeating & ~uniform, tables.repeat, 1).astype(np.uint64)
    extra = np.cumsum(copies - np.uint64(1))
    refused = (copies > 1) & (extra > np.uint64(max(_MAX_REPEATS - state.repeats, 0)))
    if refused.any():
        state.lose(tables[refused], level, Fault.SHARED)
    tables, entries, copies, uniform = tables[~refused], entries[~refused], copies[~refused], uniform[~refused]
    state.repeats += int(copies.sum()) - len(tables)
    index = np.repeat(np.arange(len(tables)), copies.astype(np.int64))
    number = np.arange(index.size) - np.repeat(np.cumsum(copies) - copies, copies.astype(np.int64)).astype(np.int64)
    written = tables[index.astype(np.uint64)]
    va = written.va + number.astype(np.uint64) * np.uint64(_table_span(state.addresses, level))
    repeat = np.where(uniform[index], written.repeat, 1).astype(np.uint64)
    return _Tables(written.pa, va, repeat, written.parent, written.descriptor), entries[index]


def _decode_batch(state: _State, tables: _Tables, entries: U64, level: int) -> _Tables:
    """Turn the entries of some tables into rows; returns the tables that they refer to."""
    per_table = entries.shape[1]
    span = np.uint64(state.addresses.granule.span(level))
    flat = entries.reshape(-1)
    if level == PTE and state.successor.size < flat.size:
        state.successor = np.empty(flat.size, dtype=np.uint64)
    first = _run_starts(flat, per_table, state.successor if level == PTE else None, span)
    count = np.diff(first, append=flat.size).astype(np.uint64)
    descriptor = flat[first]
    table = first // per_table
    va = tables.va[table] + (first % per_table).astype(np.uint64) * span
    state.faults.look(level, descriptor, tables.pa[table], first % per_table, va)
    size = count * span
    used = np.bincount(table, weights=count * (descriptor != 0), minlength=len(tables))
    state.tables.append(tables)
    state.levels.append(level)
    state.used.append(used.astype(np.uint64))

    whole = tables.repeat[table] > 1  # uniform tables, see _expanded(): their first entry counts for all
    if whole.any():
        keep = ~whole | (first % per_table == 0)
        first, va, size, descriptor, table, whole = (item[keep] for item in (first, va, size, descriptor, table, whole))
        size = np.where(whole, tables.repeat[table] * np.uint64(per_table) * span, size).astype(np.uint64)
    levels = np.full(va.size, level, dtype=np.int8)
    is_table = np.zeros(va.size, dtype=np.bool_)
    if level < PTE:
        is_table = (descriptor & np.uint64(3)) == 3
    rows = _Rows(va, size, descriptor, levels, whole & (descriptor != 0))
    leaves = _coalesced(rows[~is_table], state.addresses, state.format)
    state.rows.append(leaves)
    state.nr_rows += len(leaves)
    if level == PTE:
        return _joined_tables([])
    parent = tables.pa[table] + (first % per_table).astype(np.uint64) * np.uint64(8)
    return _children(state, rows[is_table], parent[is_table], span)


def _run_starts(flat: U64, per_table: int, successor: U64 | None, span: np.uint64) -> I64:
    """Indices where a new run starts: runs are equal pages one after another, or zeros; tables end runs.

    ``successor`` is room for as many words as ``flat`` has; None above the last level, where every entry that
    is not zero is a run.
    """
    if successor is None:
        first: I64 = np.arange(flat.size)
    else:
        breaks = np.empty(flat.size, dtype=np.bool_)
        expected = successor[: flat.size - 1]
        np.add(flat[:-1], span, out=expected)
        np.not_equal(flat[1:], expected, out=breaks[1:])
        breaks[::per_table] = True
        first = np.flatnonzero(breaks)
    zero = flat[first] == 0
    lone = zero & (np.diff(first, append=flat.size) > 1)
    if lone.any():  # what follows an empty entry looks like its successor
        first = np.sort(np.concatenate((first, first[lone] + 1)))
        zero = flat[first] == 0
    inside_hole = zero & (flat[first - 1] == 0) & (first % per_table != 0)
    return np.asarray(first[~inside_hole])


def _children(state: _State, rows: _Rows, parent: U64, span: np.uint64) -> _Tables:
    """Tables that ``rows`` of table descriptors point at; equal neighbours become one that repeats."""
    if not len(rows):
        return _joined_tables([])
    same = (rows.descriptor[1:] == rows.descriptor[:-1]) & (rows.va[:-1] + rows.size[:-1] == rows.va[1:])
    first = np.flatnonzero(np.concatenate(([True], ~same)))
    repeat = np.add.reduceat(rows.size // span, first)
    descriptor = rows.descriptor[first]
    return _Tables(state.format.output(descriptor), rows.va[first], repeat, parent[first], descriptor)


def _coalesced(rows: _Rows, addresses: AddressMap, form: DescriptorFormat) -> _Rows:
    """Join neighbouring rows of one level whose attributes are equal and whose output addresses continue or repeat."""
    if len(rows) < 2:
        return rows
    pa = form.leaf_output(rows.descriptor, rows.level)
    key = rows.descriptor & form.attribute_mask
    empty = rows.descriptor == 0
    one_entry = rows.repeated | (rows.size == _spans(addresses, rows.level))
    near = (rows.va[:-1] + rows.size[:-1] == rows.va[1:]) & (rows.level[1:] == rows.level[:-1])
    alike = near & (key[1:] == key[:-1]) & ~empty[1:] & ~empty[:-1]
    continues = alike & (pa[:-1] + rows.size[:-1] == pa[1:]) & ~rows.repeated[1:] & ~rows.repeated[:-1]
    repeats = alike & (pa[:-1] == pa[1:]) & one_entry[1:] & one_entry[:-1]
    link = (near & empty[1:] & empty[:-1]) * np.uint8(1) + continues * np.uint8(2) + repeats * np.uint8(3)
    breaks = link == 0
    # A row that ends a run of one sort cannot start one of the other sort.
    breaks[1:] |= (link[1:] != link[:-1]) & (link[:-1] != 0)
    first = np.flatnonzero(np.concatenate(([True], breaks)))
    repeated = np.bitwise_or.reduceat(rows.repeated | np.append(repeats & ~breaks, False), first)
    return _Rows(
        rows.va[first],
        np.add.reduceat(rows.size, first),
        rows.descriptor[first],
        rows.level[first],
        np.asarray(repeated & ~empty[first]),
    )


def _spans(addresses: AddressMap, level: I8) -> U64:
    """Bytes of one entry at each level."""
    shift = addresses.granule.page_shift + (3 - level.astype(np.int64)) * addresses.granule.bits_per_level
    return np.uint64(1) << shift.astype(np.uint64)


def _result(state: _State) -> Walk:
    addresses, form = state.addresses, state.format
    rows = _joined_rows(state.rows)
    lowest = np.uint64((1 << 64) - (1 << addresses.va_actual))
    rows = _above(rows, lowest)
    rows = _coalesced(rows[np.argsort(rows.va, kind="stable").astype(np.uint64)], addresses, form)
    kind = form.kinds(rows.descriptor, rows.level)
    _note_reserved(state, rows, kind)
    image = (rows.va >= np.uint64(addresses.image_start)) & (rows.va < np.uint64(addresses.swapper_pg_dir))
    tables = _joined_tables(state.tables)
    order = np.argsort(tables.va, kind="stable")
    levels = np.repeat(np.array(state.levels, dtype=np.int8), [len(part) for part in state.tables])
    order = order[np.argsort(levels[order], kind="stable")]
    observed_start, observed_last = _observed(state, int(lowest))
    if state.silent:
        state.diagnostics.append(Diagnostic(f"and {state.silent} more of these", state.path))
    mapping = Mapping(
        start=rows.va,
        size=rows.size,
        level=rows.level,
        attrs=form.attributes(rows.descriptor, kind),
        memtype=memory_types(rows.descriptor, kind, image),
        observed_start=observed_start,
        observed_last=observed_last,
        source=state.path,
        pa=np.where(rows.descriptor == 0, np.uint64(0), form.leaf_output(rows.descriptor, rows.level)),
        tables=TablePages(
            pa=tables.pa[order],
            level=levels[order],
            va=tables.va[order],
            used=(np.concatenate(state.used) if state.used else tables.pa)[order].astype(np.uint32),
            parent_pa=tables.parent[order],
        ),
    )
    return Walk(
        mapping=mapping,
        repeated=rows.repeated,
        table_descriptor=tables.descriptor[order],
        faults=state.faults.table(),
        diagnostics=tuple(state.diagnostics),
    )


def _above(rows: _Rows, lowest: np.uint64) -> _Rows:
    """The rows from ``lowest`` on: 52-bit tables of 64K pages on 48-bit hardware begin below what is in use."""
    rows = rows[rows.va + (rows.size - np.uint64(1)) >= lowest]
    cut = np.maximum(rows.va, lowest) - rows.va
    moved = np.where((rows.descriptor == 0) | rows.repeated, np.uint64(0), cut)
    return _Rows(rows.va + cut, rows.size - cut, rows.descriptor + moved, rows.level, rows.repeated)


def _note_reserved(state: _State, rows: _Rows, kind: U8) -> None:
    for row in np.flatnonzero(kind == Kind.RESERVED)[: _MAX_DIAGNOSTICS + 1].tolist():
        value, level, va = int(rows.descriptor[row]), int(rows.level[row]), int(rows.va[row])
        state.say(f"reserved descriptor {value:#x} at level {level} for {va:#x}")


def _observed(state: _State, lowest: int) -> tuple[U64, U64]:
    """Complement of the unobserved ranges in ``[lowest, 2**64)``: first and inclusive last addresses."""
    if not state.lost:
        return np.array([lowest], dtype=np.uint64), np.array([MASK], dtype=np.uint64)
    start = np.concatenate([start for start, _ in state.lost])
    last = np.concatenate([start + (size - np.uint64(1)) for start, size in state.lost])
    order = np.argsort(start, kind="stable")
    start, last = start[order], np.maximum.accumulate(last[order])
    begin = np.concatenate((np.array([lowest], dtype=np.uint64), last + np.uint64(1)))
    end = np.concatenate((start - np.uint64(1), np.array([MASK], dtype=np.uint64)))
    keep = (begin <= end) & (begin >= np.uint64(lowest)) & (end >= np.uint64(lowest))
    return begin[keep], end[keep]

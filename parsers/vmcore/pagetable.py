"""The walk of ``swapper_pg_dir``: every table of the kernel's address space, read physically, decoded in bulk.

Breadth first, one level at a time, in batches of whole tables: memory in use depends on the number of distinct
ranges, not of entries.  How entries become rows: :mod:`parsers.vmcore.table_rows`.

The tables may be corrupt.  A page that is a table at one level is not entered at another, which excludes cycles;
tables that are referred to repeatedly are entered a bounded number of times; what is not
entered, or not in the dump, is *unobserved*, with a diagnostic, and never a hole.

A dump may also hold zeros where memory was left out of it (holes of a file, pages that the writer could not read).
A table of zeros in the linear map or the vmemmap area is empty only where the section table has no memory for it;
otherwise it was left out, and the other tables of zeros, which vmalloc may well keep, are not believed either.
Nor are they where the kernel's own data reads as zeros, or a part of 4096 bytes of a larger table of boot memory, which
never leaves: then all such parts of tables are unobserved, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field

import numpy as np

from parsers.arm64 import PTE
from parsers.errors import Diagnostic
from parsers.mapping import I64, U8, U64, Bool, Mapping, TablePages
from parsers.progress import step
from parsers.ranges import Ranges, distinct
from parsers.records import dataclass
from parsers.vmcore.addresses import MASK, AddressMap
from parsers.vmcore.descriptors import DescriptorFormat, Kind, memory_types
from parsers.vmcore.faults import Fault, FaultLog, TableFaults
from parsers.vmcore.memory import UNIT, MissingMemoryError, PhysicalMemory
from parsers.vmcore.table_pages import TableReader
from parsers.vmcore.table_rows import (
    Decoded,
    Rows,
    Tables,
    coalesced,
    decode,
    joined_rows,
    joined_tables,
    regular_rows,
    table_span,
)

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


@dataclass(slots=True)
class _State:
    """What the walk has gathered so far."""

    memory: PhysicalMemory
    addresses: AddressMap
    reader: TableReader
    format: DescriptorFormat
    path: str
    faults: FaultLog
    rows: list[Rows] = field(default_factory=list)
    nr_rows: int = 0
    tables: list[Tables] = field(default_factory=list)
    levels: list[int] = field(default_factory=list)
    used: list[U64] = field(default_factory=list)
    visited: U64 = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    nr_tables: int = 0
    repeats: int = 0
    blank_parts: list[tuple[U64, int]] = field(default_factory=list)
    """Of each level, first addresses as in `Decoded.blank_parts`."""
    lost: list[tuple[U64, U64]] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    silent: int = 0

    def decode(self, tables: Tables, entries: U64, level: int) -> Decoded:
        """What entries of some tables hold; changes nothing."""
        return decode(self.addresses, self.format, tables, entries, level)

    def add(self, decoded: Decoded, level: int) -> Tables:
        """Keep what was decoded; returns the tables that it refers to."""
        if decoded.blocks is not None:
            self.faults.look(level, *decoded.blocks)
        if decoded.blank_parts.size:
            self.blank_parts.append((decoded.blank_parts, level))
        self.add_rows(decoded.tables, level, decoded.used, decoded.rows)
        return decoded.children

    def add_rows(self, tables: Tables, level: int, used: U64, rows: Rows) -> None:
        """Keep tables and what they hold but for references."""
        self.tables.append(tables)
        self.levels.append(level)
        self.used.append(used)
        self.rows.append(rows)
        self.nr_rows += len(rows)

    def lose(self, tables: Tables, level: int, why: Fault) -> None:
        """Note that nothing below ``tables`` was observed."""
        if not len(tables):
            return
        span = np.uint64(table_span(self.addresses, level))
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


def walk_page_tables(
    memory: PhysicalMemory,
    addresses: AddressMap,
    *,
    source: str,
    pages_of: tuple[U64, U64] | None = None,
    no_memory: Callable[[U64, U64], Bool] | None = None,
    boot_memory: Callable[[U64, U64], Bool] | None = None,
) -> Walk:
    """Walk all of ``swapper_pg_dir``; ``source`` names the dump in evidence and diagnostics.

    With ``pages_of``, sorted first and last addresses of ranges, tables of the last level are read where they map
    these, and the rest of them is unobserved.  ``no_memory`` says which ranges, inclusive at the end, the section table
    has no memory for (`parsers.vmcore.zeros.no_memory`); without it, no table of zeros there is believed.
    ``boot_memory`` says which are wholly in the linear map of memory that was there at boot.
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
    if not memory.zeros_are_read:
        _doubt_zeros(state, no_memory, boot_memory)
    return _result(state)


def _root(state: _State, level: int) -> Tables:
    """Visit the root, which may be shorter than a page; returns the tables it refers to."""
    addresses = state.addresses
    count = 1 << (addresses.va_bits - (addresses.granule.span(level).bit_length() - 1))
    base = np.array([(1 << 64) - (1 << addresses.va_bits)], dtype=np.uint64)
    zero, one = np.zeros(1, dtype=np.uint64), np.ones(1, dtype=np.uint64)
    root = Tables(np.array([addresses.root_pa], dtype=np.uint64), base, one, zero, zero)
    try:
        entries = np.frombuffer(state.memory.read(addresses.root_pa, 8 * count), dtype="<u8").astype(np.uint64)
    except MissingMemoryError:
        state.lost.append((base, np.array([(1 << addresses.va_bits) & MASK], dtype=np.uint64)))
        state.say(f"swapper_pg_dir at {addresses.root_pa:#x} is not in the dump: the page tables are unknown")
        return joined_tables([])
    if not entries.any():
        state.lost.append((base, np.array([(1 << addresses.va_bits) & MASK], dtype=np.uint64)))
        state.say(f"swapper_pg_dir at {addresses.root_pa:#x} reads as zeros: the page tables are unknown")
        return joined_tables([])
    state.visited = root.pa
    return state.add(state.decode(root, entries.reshape(1, -1), level), level)


def _only(state: _State, tables: Tables, ranges: tuple[U64, U64]) -> Tables:
    """The tables of the last level that map any of some ranges; the others are not observed."""
    reach = tables.repeat * np.uint64(table_span(state.addresses, PTE)) - np.uint64(1)
    row = np.searchsorted(ranges[0], tables.va + reach, side="right").astype(np.int64) - 1
    wanted = np.zeros(len(tables), dtype=np.bool_)
    if ranges[0].size:
        wanted = (row >= 0) & (ranges[1][np.maximum(row, 0)] >= tables.va)
    state.lost.append((tables.va[~wanted], reach[~wanted] + np.uint64(1)))
    return tables[wanted]


def _visit_level(state: _State, frontier: Tables, level: int) -> Tables:
    """Visit all tables of a level; returns those of the next."""
    frontier = _admitted(state, frontier, level)
    single = frontier.repeat == 1
    children: list[Tables] = []
    seen, missing, regular = (np.zeros(len(frontier), dtype=np.bool_) for _ in range(3))
    first = np.zeros(len(frontier), dtype=np.uint64)

    def decode_some(rows: I64, entries: U64) -> tuple[Decoded, tuple[Tables, U64] | None]:
        """Those that do not repeat; the others, and their entries."""
        tables, alone = frontier[rows], single[rows]
        if alone.all():
            return state.decode(tables, entries, level), None
        return state.decode(tables[alone], entries[alone], level), (tables[~alone], entries[~alone])

    with step(f"reading page tables of level {level}", len(frontier), "tables") as progress:
        for part in state.reader.read(frontier.pa, single if level == PTE else None, decode_some):
            if state.nr_rows > _MAX_ROWS:
                break
            seen[part.rows], missing[part.rows], regular[part.rows] = True, ~part.present, part.regular
            first[part.rows] = part.first
            for decoded, repeating in part.decoded:
                children.append(state.add(decoded, level))
                if repeating is not None:
                    children.append(state.add(state.decode(*_expanded(state, *repeating, level), level), level))
            progress.advance(part.rows.size)
    state.lose(frontier[missing], level, Fault.MISSING)
    state.lose(frontier[~seen], level, Fault.ROWS)
    if regular.any():
        tables, first = (frontier, first) if regular.all() else (frontier[regular], first[regular])
        used = np.full(len(tables), 1 << state.addresses.granule.bits_per_level, dtype=np.uint64)
        state.add_rows(tables, level, used, regular_rows(state.addresses, state.format, tables, first))
    return joined_tables(children)


def _admitted(state: _State, tables: Tables, level: int) -> Tables:
    """The tables that may be entered: not seen at another level, not shared beyond measure, within the budget."""
    pages, first = _distinct(tables.pa)
    if _any_in(state.visited, pages):
        elsewhere = np.isin(tables.pa, state.visited)
        state.lose(tables[elsewhere], level, Fault.ELSEWHERE)
        tables = tables[~elsewhere]
        pages, first = _distinct(tables.pa)
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


def _distinct(pa: U64) -> tuple[U64, slice | I64]:
    """Different pages, ascending, and where each is first in ``pa``."""
    if (pa[1:] > pa[:-1]).all():
        return pa, slice(None)
    return np.unique(pa, return_index=True)


def _any_in(some: U64, pages: U64) -> bool:
    """Whether any of ``some`` is among ``pages``, ascending."""
    place = np.searchsorted(pages, some)
    inside = place < pages.size
    return bool((pages[place[inside]] == some[inside]).any())


def _expanded(state: _State, tables: Tables, entries: U64, level: int) -> tuple[Tables, U64]:
    """Write out tables that repeat and do not map all the same; the others stay one row for all repetitions."""
    repeating = tables.repeat > 1
    if not repeating.any():
        return tables, entries
    if level < PTE:
        entries = _folded(state.format, entries)
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
    va = written.va + number.astype(np.uint64) * np.uint64(table_span(state.addresses, level))
    repeat = np.where(uniform[index], written.repeat, 1).astype(np.uint64)
    return Tables(written.pa, va, repeat, written.parent, written.descriptor), entries[index]


def _folded(form: DescriptorFormat, entries: U64) -> U64:
    """Tables whose entries all refer to one table, with the restrictions and other bits that all of them have.

    The early shadow of KASAN is filled by two functions (mm/kasan/init.c, arch/arm64/mm/kasan_init.c), which set
    UXNTable and the Access flag of a table in some of its entries only.
    """
    output = form.output(entries)
    one = (output == output[:, :1]).all(axis=1) & (entries & np.uint64(3) == 3).all(axis=1)
    return np.where(one[:, np.newaxis], np.bitwise_and.reduce(entries, axis=1)[:, np.newaxis], entries)


def _result(state: _State) -> Walk:
    addresses, form = state.addresses, state.format
    rows = joined_rows(state.rows)
    lowest = np.uint64((1 << 64) - (1 << addresses.va_actual))
    rows = _above(rows, lowest)
    rows = coalesced(rows[np.argsort(rows.va, kind="stable").astype(np.uint64)], addresses, form)
    kind = form.kinds(rows.descriptor, rows.level)
    _note_reserved(state, rows, kind)
    image = (rows.va >= np.uint64(addresses.image_start)) & (rows.va < np.uint64(addresses.swapper_pg_dir))
    tables = joined_tables(state.tables)
    levels = np.repeat(np.array(state.levels, dtype=np.int8), [len(part) for part in state.tables])
    order: slice | I64 = slice(None)
    if not ((tables.va[1:] >= tables.va[:-1]) | (levels[1:] > levels[:-1])).all():
        order = np.lexsort((tables.va, levels))
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


def _doubt_zeros(
    state: _State,
    no_memory: Callable[[U64, U64], Bool] | None,
    boot_memory: Callable[[U64, U64], Bool] | None,
) -> None:
    """Make all tables of zeros, and parts of tables, unobserved where the dump has zeros for what it left out."""
    blank = [np.equal(used, 0) for used in state.used]
    false = state.memory.has_false_zeros
    for tables, level, mine in zip(state.tables, state.levels, blank, strict=True):
        start = tables.va[mine]
        last = start + (tables.repeat[mine] * np.uint64(table_span(state.addresses, level)) - np.uint64(1))
        doubtful = state.addresses.of_memory(start, last)
        if no_memory is not None and doubtful.any():
            doubtful[doubtful] = ~no_memory(start[doubtful], last[doubtful])
        false |= bool(doubtful.any())
    parts = [
        (start, np.uint64(state.addresses.granule.span(level) * (UNIT // 8))) for start, level in state.blank_parts
    ]
    if boot_memory is not None:
        false |= any(bool(boot_memory(start, start + (size - np.uint64(1))).any()) for start, size in parts)
    state.memory.has_false_zeros = false
    if not false or not blank:
        return
    gone = [(start, np.full(start.size, size)) for start, size in parts]
    if gone:
        state.lost += gone
        number = sum(start.size for start, _ in gone)
        state.say(
            f"{number} parts of {UNIT} bytes of table pages read as zeros, as they may where the dump left them out"
        )
    for number, mine in enumerate(blank):
        tables, level = state.tables[number][mine], state.levels[number]
        state.lose(tables, level, Fault.BLANK)
        gone.append((tables.va, tables.repeat * np.uint64(table_span(state.addresses, level))))
        state.tables[number], state.used[number] = state.tables[number][~mine], state.used[number][~mine]
    start, size = (np.concatenate(column) for column in zip(*gone, strict=True))
    state.rows = [_without_holes(joined_rows(state.rows), start, size)]


def _without_holes(rows: Rows, start: U64, size: U64) -> Rows:
    """The rows, their holes without some ranges.  Addresses of the kernel are negative and ordered as int64, too."""
    hole = rows.descriptor == 0
    gone = Ranges.of(start.view(np.int64), (start + size).view(np.int64))
    parts = [rows[~hole]]
    for level in distinct(rows.level[hole]).tolist():
        some = rows[hole & (rows.level == level)]
        left = Ranges.of(some.va.view(np.int64), (some.va + some.size).view(np.int64)) - gone
        count, zero = len(left), np.zeros(len(left), dtype=np.uint64)
        levels, repeated = np.full(count, level, dtype=np.int8), np.zeros(count, dtype=np.bool_)
        parts.append(Rows(left.start.view(np.uint64), (left.end - left.start).view(np.uint64), zero, levels, repeated))
    return joined_rows(parts)


def _above(rows: Rows, lowest: np.uint64) -> Rows:
    """The rows from ``lowest`` on: 52-bit tables of 64K pages on 48-bit hardware begin below what is in use."""
    rows = rows[rows.va + (rows.size - np.uint64(1)) >= lowest]
    cut = np.maximum(rows.va, lowest) - rows.va
    moved = np.where((rows.descriptor == 0) | rows.repeated, np.uint64(0), cut)
    return Rows(rows.va + cut, rows.size - cut, rows.descriptor + moved, rows.level, rows.repeated)


def _note_reserved(state: _State, rows: Rows, kind: U8) -> None:
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

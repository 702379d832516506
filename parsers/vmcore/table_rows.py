"""Entries of table pages become rows: runs of entries that the kernel's own dump would print as one line.

Neighbouring entries become one row when level and attributes are equal, as the kernel's own dump merges them
(mm/ptdump.c, arch/arm64/mm/ptdump.c), and when their output addresses continue, or are all the same (the shared early
shadow of KASAN).  Nothing here is kept between calls: threads may decode different tables at the same time.
"""

from __future__ import annotations

import numpy as np

from parsers.arm64 import PTE
from parsers.mapping import I8, I64, U64, Bool
from parsers.records import dataclass
from parsers.vmcore.addresses import AddressMap
from parsers.vmcore.descriptors import DescriptorFormat
from parsers.vmcore.memory import UNIT

__all__ = [
    "Decoded",
    "Rows",
    "Tables",
    "coalesced",
    "decode",
    "joined_rows",
    "joined_tables",
    "regular_rows",
    "table_span",
]


@dataclass(frozen=True, eq=False, slots=True)
class Tables:
    """Tables to visit at one level; table i is seen ``repeat[i]`` times in a row from ``va[i]`` on."""

    pa: U64
    va: U64
    repeat: U64
    parent: U64
    descriptor: U64

    def __getitem__(self, key: Bool | slice | U64 | I64) -> Tables:
        return Tables(self.pa[key], self.va[key], self.repeat[key], self.parent[key], self.descriptor[key])

    def __len__(self) -> int:
        return int(self.pa.size)


@dataclass(frozen=True, eq=False, slots=True)
class Rows:
    """Runs of entries: first address, bytes, descriptor of the first entry, level."""

    va: U64
    size: U64
    descriptor: U64
    level: I8
    repeated: Bool

    def __getitem__(self, key: Bool | slice | U64) -> Rows:
        return Rows(self.va[key], self.size[key], self.descriptor[key], self.level[key], self.repeated[key])

    def __len__(self) -> int:
        return int(self.va.size)


def joined_tables(parts: list[Tables]) -> Tables:
    """All of them, one part after another."""
    if len(parts) == 1:
        return parts[0]
    empty = np.empty(0, dtype=np.uint64)
    columns = zip(*((part.pa, part.va, part.repeat, part.parent, part.descriptor) for part in parts), strict=True)
    return Tables(*(np.concatenate(column) for column in columns)) if parts else Tables(*[empty] * 5)


def joined_rows(parts: list[Rows]) -> Rows:
    """All of them, one part after another."""
    return Rows(
        np.concatenate([part.va for part in parts] or [np.empty(0, np.uint64)]),
        np.concatenate([part.size for part in parts] or [np.empty(0, np.uint64)]),
        np.concatenate([part.descriptor for part in parts] or [np.empty(0, np.uint64)]),
        np.concatenate([part.level for part in parts] or [np.empty(0, np.int8)]),
        np.concatenate([part.repeated for part in parts] or [np.empty(0, np.bool_)]),
    )


def table_span(addresses: AddressMap, level: int) -> int:
    """Bytes that a full table of ``level`` translates."""
    return addresses.granule.span(level) << addresses.granule.bits_per_level


@dataclass(frozen=True, eq=False, slots=True)
class Decoded:
    """What some tables of one level hold."""

    tables: Tables
    used: U64
    """How many entries of each table are not zero."""
    rows: Rows
    """Everything but references to tables, in the order of ``tables``."""
    children: Tables
    """The tables that are referred to."""
    blocks: tuple[U64, U64, I64, U64] | None
    """Entries that are encoded as blocks: descriptor, address and index in the table, virtual address."""
    blank_parts: U64
    """First virtual addresses of the parts of 4096 bytes that are zeros, of tables of several that are not empty."""


def decode(addresses: AddressMap, form: DescriptorFormat, tables: Tables, entries: U64, level: int) -> Decoded:
    """Turn the entries of some tables, ``(n, entries)``, into rows; tables that repeat have to be uniform."""
    per_table = entries.shape[1]
    span = np.uint64(addresses.granule.span(level))
    flat = entries.reshape(-1)
    first = _run_starts(flat, per_table, span if level == PTE else None)
    count = np.diff(first, append=flat.size).astype(np.uint64)
    descriptor = flat[first]
    table, index = first // per_table, first % per_table
    va = tables.va[table] + index.astype(np.uint64) * span
    block = descriptor & np.uint64(3) == 1
    blocks = (descriptor[block], tables.pa[table[block]], index[block], va[block]) if block.any() else None
    size = count * span
    used = np.bincount(table, weights=count * (descriptor != 0), minlength=len(tables)).astype(np.uint64)

    blank_parts = _blank_parts(tables, entries, used, span)
    whole = tables.repeat[table] > 1  # their first entry counts for all
    if whole.any():
        keep = ~whole | (index == 0)
        first, va, size, descriptor, table, index, whole = (
            item[keep] for item in (first, va, size, descriptor, table, index, whole)
        )
        size = np.where(whole, tables.repeat[table] * np.uint64(per_table) * span, size).astype(np.uint64)
    rows = Rows(va, size, descriptor, np.full(va.size, level, dtype=np.int8), whole & (descriptor != 0))
    if level == PTE:
        return Decoded(tables, used, coalesced(rows, addresses, form), joined_tables([]), blocks, blank_parts)
    is_table = (descriptor & np.uint64(3)) == 3
    parent = tables.pa[table] + index.astype(np.uint64) * np.uint64(8)
    children = _children(rows[is_table], parent[is_table], span, form)
    return Decoded(tables, used, coalesced(rows[~is_table], addresses, form), children, blocks, blank_parts)


def _blank_parts(tables: Tables, entries: U64, used: U64, span: np.uint64) -> U64:
    """`Decoded.blank_parts` of tables; none of tables that repeat, which are alike throughout."""
    per_part = UNIT // 8
    if entries.shape[1] <= per_part:
        return np.empty(0, dtype=np.uint64)
    rows = np.flatnonzero((used > 0) & (used <= entries.shape[1] - per_part) & (tables.repeat == 1))
    row, part = np.nonzero(~entries[rows].reshape(rows.size, entries.shape[1] // per_part, per_part).any(axis=2))
    return np.asarray(tables.va[rows[row]] + part.astype(np.uint64) * (np.uint64(per_part) * span))


def regular_rows(addresses: AddressMap, form: DescriptorFormat, tables: Tables, descriptor: U64) -> Rows:
    """Rows of tables of the last level that each map one run of pages, from their first entries."""
    size = np.uint64(table_span(addresses, PTE))
    breaks = (tables.va[1:] - tables.va[:-1] != size) | (descriptor[1:] - descriptor[:-1] != size)
    breaks |= (descriptor[1:] ^ descriptor[:-1]) & form.attribute_mask != 0
    first = np.append(np.zeros(1, np.int64), np.flatnonzero(breaks) + 1)
    count = np.diff(first, append=len(tables)).astype(np.uint64)
    level, repeated = np.full(first.size, PTE, dtype=np.int8), np.zeros(first.size, dtype=np.bool_)
    return coalesced(Rows(tables.va[first], count * size, descriptor[first], level, repeated), addresses, form)


def _run_starts(flat: U64, per_table: int, span: np.uint64 | None) -> I64:
    """Indices where a new run starts: runs are equal pages one after another, or zeros; tables end runs.

    Without ``span``, above the last level, every entry that is not zero is a run.
    """
    if span is None:
        first: I64 = np.arange(flat.size)
    else:
        breaks = np.empty(flat.size, dtype=np.bool_)
        np.not_equal(flat[1:] - flat[:-1], span, out=breaks[1:])
        breaks[::per_table] = True
        first = np.flatnonzero(breaks)
    zero = flat[first] == 0
    lone = zero & (np.diff(first, append=flat.size) > 1)
    if lone.any():  # what follows an empty entry looks like its successor
        first = np.sort(np.concatenate((first, first[lone] + 1)))
        zero = flat[first] == 0
    inside_hole = zero & (flat[first - 1] == 0) & (first % per_table != 0)
    return np.asarray(first[~inside_hole])


def _children(rows: Rows, parent: U64, span: np.uint64, form: DescriptorFormat) -> Tables:
    """Tables that ``rows`` of table descriptors point at; equal neighbours become one that repeats."""
    if not len(rows):
        return joined_tables([])
    same = (rows.descriptor[1:] == rows.descriptor[:-1]) & (rows.va[:-1] + rows.size[:-1] == rows.va[1:])
    first = np.flatnonzero(np.concatenate(([True], ~same)))
    repeat = np.add.reduceat(rows.size // span, first)
    descriptor = rows.descriptor[first]
    return Tables(form.output(descriptor), rows.va[first], repeat, parent[first], descriptor)


def coalesced(rows: Rows, addresses: AddressMap, form: DescriptorFormat) -> Rows:
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
    return Rows(
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

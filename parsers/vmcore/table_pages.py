"""Reading the table pages of one level: in bulk, in the order in which they lie in memory, by several threads.

The kernel allocates tables from the end of memory downwards at boot and wherever there is room later, so that the order
of virtual addresses is seldom that of the file.  Almost all tables of a linear map that is made of pages map one run of
pages: one comparison is all that such a table costs, and its entries are not kept.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator

import numpy as np

from parsers.mapping import I64, U8, U64, Bool
from parsers.records import dataclass
from parsers.vmcore.memory import PhysicalMemory
from parsers.vmcore.workers import Workers

__all__ = ["ReadTables", "TableReader"]

_BATCH_BYTES = 1 << 20
_COMPARED = 1 << 15  # entries at a time: what the second-level cache holds beside what they are compared with


@dataclass(frozen=True, eq=False, slots=True)
class ReadTables:
    """Some tables of a level that were read together."""

    rows: I64
    """Which tables, ascending."""
    present: Bool
    regular: Bool
    """Whether a table maps one run of pages: every entry is the one before it and a page."""
    first: U64
    """The first entry of each; 0 where it is not present."""
    entries: U64
    """``(m, entries)`` of those that are present and not regular."""

    @property
    def kept(self) -> I64:
        """Which tables `entries` are of."""
        return self.rows[self.present & ~self.regular]


class TableReader:
    """Reads tables of ``page_size`` bytes."""

    def __init__(self, memory: PhysicalMemory, page_size: int) -> None:
        self._memory, self._page_size = memory, page_size
        self._workers = Workers() if memory.concurrent else Workers(1)
        self._rooms: queue.SimpleQueue[_Room] = queue.SimpleQueue()

    def read(self, pa: U64, single: Bool | None) -> Iterator[ReadTables]:
        """The tables at ``pa``, in batches.

        With ``single``, those of the last level, in any order: tables for which it holds may be regular.  Without, in
        the order given.
        """
        order = np.arange(pa.size) if single is None else np.argsort(pa, kind="stable")
        batch = max(_BATCH_BYTES // self._page_size, 1)
        parts = [np.sort(order[first : first + batch]) for first in range(0, pa.size, batch)]

        def read_part(rows: I64) -> ReadTables:
            try:
                room = self._rooms.get_nowait()
            except queue.Empty:
                room = _Room(batch, self._page_size)
            try:
                return self._read(pa, single, rows, room)
            finally:
                self._rooms.put(room)

        return self._workers.map(read_part, parts)

    def _read(self, pa: U64, single: Bool | None, rows: I64, room: _Room) -> ReadTables:
        by_address = np.argsort(pa[rows], kind="stable") if single is not None else np.arange(rows.size)
        pages = room.pages[: rows.size]
        present = self._memory.read_pages_into(pa[rows[by_address]], pages)
        entries: U64 = pages.view("<u8")
        regular = np.zeros(rows.size, dtype=np.bool_)
        if single is not None:
            regular = room.regular(entries, self._page_size) & present & single[rows[by_address]]
        back = np.empty(rows.size, dtype=np.int64)
        back[by_address] = np.arange(rows.size)
        kept = back[(present & ~regular)[back]]
        return ReadTables(rows, present[back], regular[back], entries[back, 0], entries[kept])


class _Room:
    """What one thread needs to read a batch of tables."""

    def __init__(self, batch: int, page_size: int) -> None:
        self.pages: U8 = np.empty((batch, page_size), dtype=np.uint8)
        self._successor = np.empty(min(_COMPARED, batch * page_size // 8), dtype=np.uint64)
        self._differs = np.empty(self._successor.size, dtype=np.bool_)

    def regular(self, entries: U64, span: int) -> Bool:
        """Which tables map one run of pages."""
        count, per_table = entries.shape
        step = max(self._successor.size // per_table, 1)
        alike = entries[:, 0] & np.uint64(3) == 3
        for at in range(0, count, step):
            flat = entries[at : at + step].reshape(-1)
            expected, differs = self._successor[: flat.size], self._differs[: flat.size]
            np.add(flat[:-1], np.uint64(span), out=expected[1:])
            expected[::per_table] = flat[::per_table]
            np.not_equal(flat, expected, out=differs)
            if differs.any():
                alike[at : at + step] &= ~differs.reshape(-1, per_table).any(axis=1)
        return np.asarray(alike, dtype=np.bool_)

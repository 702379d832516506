"""Reading the table pages of one level: in bulk, in the order in which they lie in memory, by several threads.

The kernel allocates tables from the end of memory downwards at boot and wherever there is room later, so that the order
of virtual addresses is seldom that of the file.  Almost all tables of a linear map that is made of pages map one run of
pages: one comparison is all that such a table costs.  Tables are compared or decoded as they are read, a piece at a
time, while the processor's cache still holds them.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from dataclasses import field
from typing import Generic, TypeVar

import numpy as np

from parsers.mapping import I64, U8, U64, Bool
from parsers.records import dataclass
from parsers.vmcore.memory import PhysicalMemory
from parsers.vmcore.workers import Workers

__all__ = ["ReadTables", "TableReader"]

T = TypeVar("T")
_BATCH_BYTES = 8 << 20  # what a thread reads before it reports; four times as much where there is one
_PIECE_BYTES = 512 << 10  # what the second-level cache holds beside what it is compared with


@dataclass(frozen=True, eq=False, slots=True)
class ReadTables(Generic[T]):
    """Some tables of a level that were read together."""

    rows: I64
    """Which tables."""
    present: Bool
    regular: Bool
    """Whether a table maps one run of pages: every entry is the one before it and a page."""
    first: U64
    """The first entry of each; 0 where it is not present."""
    decoded: list[T] = field(default_factory=list)
    """What was made of those that are present and not regular, a piece at a time."""


class TableReader:
    """Reads tables of ``page_size`` bytes."""

    def __init__(self, memory: PhysicalMemory, page_size: int) -> None:
        self._memory, self._page_size = memory, page_size
        self._workers = Workers() if memory.concurrent else Workers(1)
        self._batch_bytes = _BATCH_BYTES if memory.concurrent else 4 * _BATCH_BYTES
        self._rooms: queue.SimpleQueue[_Room] = queue.SimpleQueue()

    def read(self, pa: U64, single: Bool | None, decode: Callable[[I64, U64], T]) -> Iterator[ReadTables[T]]:
        """The tables at ``pa``, in batches.

        With ``single``, those of the last level, in any order: tables for which it holds may be regular.  Without, in
        the order given.  ``decode`` gets the rows of tables that are not regular and their entries ``(m, entries)``,
        which it must not keep, in the thread that has read them.
        """
        ascending = single is None or bool((pa[1:] >= pa[:-1]).all())
        order = np.arange(pa.size) if ascending else np.argsort(pa, kind="stable")
        batch = max(min(self._batch_bytes // self._page_size, -(-pa.size // self._workers.number)), 1)
        parts = [order[first : first + batch] for first in range(0, pa.size, batch)]

        def read_part(rows: I64) -> ReadTables[T]:
            try:
                room = self._rooms.get_nowait()
            except queue.Empty:
                room = _Room(self._page_size)
            try:
                return self._read(pa[rows], None if single is None else single[rows], rows, room, decode)
            finally:
                self._rooms.put(room)

        return self._workers.map(read_part, parts)

    def _read(
        self, pa: U64, single: Bool | None, rows: I64, room: _Room, decode: Callable[[I64, U64], T]
    ) -> ReadTables[T]:
        part: ReadTables[T] = ReadTables(
            rows, np.zeros(rows.size, np.bool_), np.zeros(rows.size, np.bool_), np.zeros(rows.size, np.uint64)
        )
        for piece, pages, present in self._memory.scan(pa, room.pages):
            entries: U64 = pages.view("<u8")
            part.present[piece], part.first[piece], wanted = present, entries[:, 0], present
            if single is not None:
                part.regular[piece] = regular = room.regular(entries) & single[piece]
                if regular.all():
                    continue
                wanted = present & ~regular
            if wanted.all():
                part.decoded.append(decode(rows[piece], entries))
            elif wanted.any():
                part.decoded.append(decode(rows[piece][wanted], entries[wanted]))
        return part


class _Room:
    """What one thread needs to read tables piece by piece."""

    def __init__(self, page_size: int) -> None:
        self.pages: U8 = np.empty((max(_PIECE_BYTES // page_size, 1), page_size), dtype=np.uint8)
        self._step = np.uint64(page_size)
        self._steps = np.empty(self.pages.size // 8, dtype=np.uint64)
        self._differs = np.zeros(self._steps.size, dtype=np.bool_)

    def regular(self, entries: U64) -> Bool:
        """Which tables map one run of pages; pages of zeros do not."""
        flat, per_table = entries.reshape(-1), entries.shape[1]
        differs = self._differs[: flat.size]
        np.subtract(flat[1:], flat[:-1], out=self._steps[: flat.size - 1])
        np.not_equal(self._steps[: flat.size - 1], self._step, out=differs[:-1])
        differs[per_table - 1 :: per_table] = False  # from one table to the next
        pages = entries[:, 0] & np.uint64(3) == 3
        if differs.any():
            pages &= ~differs.reshape(-1, per_table).any(axis=1)
        return np.asarray(pages, dtype=np.bool_)

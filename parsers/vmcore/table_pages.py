"""Reading the table pages of one level: in bulk, in the order in which they lie in memory, by several threads.

The kernel allocates tables from the end of memory downwards at boot and wherever there is room later, so that the order
of virtual addresses is seldom that of the file.  Almost all tables of a linear map that is made of pages map one run of
pages: one comparison is all that such a table costs (`parsers.vmcore.compared`).  Tables are compared or decoded as
they are read, a piece at a time.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from dataclasses import field
from typing import Generic, TypeVar

import numpy as np

from parsers.mapping import I64, U64, Bool
from parsers.records import dataclass
from parsers.vmcore.compared import Compared, Room
from parsers.vmcore.memory import PhysicalMemory
from parsers.vmcore.workers import Workers

__all__ = ["ReadTables", "TableReader"]

T = TypeVar("T")
_BATCH_BYTES = 8 << 20  # what a thread reads before it reports
_ALL = slice(None)


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

    @classmethod
    def of(cls, rows: I64) -> ReadTables[T]:
        """Some tables that are yet to be read."""
        return cls(rows, np.zeros(rows.size, np.bool_), np.zeros(rows.size, np.bool_), np.zeros(rows.size, np.uint64))


class TableReader:
    """Reads tables of ``page_size`` bytes."""

    def __init__(self, memory: PhysicalMemory, page_size: int) -> None:
        self._memory, self._page_size = memory, page_size
        self._workers = Workers()
        self._rooms: queue.SimpleQueue[Room] = queue.SimpleQueue()

    def read(self, pa: U64, single: Bool | None, decode: Callable[[I64, U64], T]) -> Iterator[ReadTables[T]]:
        """The tables at ``pa``, in batches.

        With ``single``, those of the last level, in any order: tables for which it holds may be regular.  Without, in
        the order given.  ``decode`` gets the rows of tables that are not regular and their entries ``(m, entries)``,
        which it must not keep, in the thread that has read them.
        """
        ascending = single is None or bool((pa[1:] >= pa[:-1]).all())
        order = np.arange(pa.size) if ascending else np.argsort(pa, kind="stable")
        may = None if single is None else single[order]
        if not self._memory.concurrent:  # it may read ahead by itself, if it is asked for everything at once
            everything = self._memory.compared(pa[order], Room(self._page_size), may)
            return (_taken(ReadTables.of(order[one.piece]), one._replace(piece=_ALL), decode) for one in everything)
        batch = max(min(_BATCH_BYTES // self._page_size, -(-pa.size // self._workers.number)), 1)
        parts = [order[first : first + batch] for first in range(0, pa.size, batch)]

        def read_part(rows: I64) -> ReadTables[T]:
            try:
                room = self._rooms.get_nowait()
            except queue.Empty:
                room = Room(self._page_size)
            part: ReadTables[T] = ReadTables.of(rows)
            try:
                for one in self._memory.compared(pa[rows], room, None if single is None else single[rows]):
                    _taken(part, one, decode)
            finally:
                self._rooms.put(room)
            return part

        return self._workers.map(read_part, parts)


def _taken(part: ReadTables[T], one: Compared, decode: Callable[[I64, U64], T]) -> ReadTables[T]:
    """What was read of ``part``, and its tables decoded that are not regular."""
    part.present[one.piece], part.regular[one.piece], part.first[one.piece] = one.present, one.regular, one.first
    if len(one.others):
        rows, wanted = part.rows[one.piece], one.present & ~one.regular
        part.decoded.append(decode(rows if wanted.all() else rows[wanted], one.others.view("<u8")))
    return part

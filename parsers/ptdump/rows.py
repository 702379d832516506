"""The rows of a dump while it is read, and what they say together: dialect, contradictions and gaps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parsers.errors import DiagnosticLog
from parsers.mapping import I64, U16, U32, U64, Bool
from parsers.ptdump.tails import Tails
from parsers.records import dataclass

__all__ = ["RowStore", "Rows", "Settled", "below_kernel_half", "by_tail", "concatenate", "parts", "settle"]

_KERNEL_HALF = np.uint64(0xFFF << 52)
"""Lowest address of a kernel with 52-bit addresses."""

_PART = 1 << 15
_SHORTEST_ROW = 36
"""Bytes: two addresses, a dash, a size with its unit, a line end."""


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Rows:
    """One row a range line, in the order of the file; all arrays have one element a row."""

    start: U64
    size: U64
    inclusive: Bool
    """The size says that the printed end is the last byte."""
    tail: U16
    """Index in `parsers.ptdump.tails.Tails.kinds`."""
    line: U32
    lost: Bool
    """There are unusable rows between this row and the one before, or the top of the file."""
    prose: Bool
    """There are lines of other text between this row and the one before."""

    def __len__(self) -> int:
        return int(self.start.size)

    @property
    def last(self) -> U64:
        """Inclusive last address of each row."""
        return self.start + (self.size - np.uint64(1))

    def without(self, dropped: Bool, *, lost: bool = True) -> Rows:
        """The other rows; ``lost`` where what is dropped leaves a gap in what the dump says."""
        kept = np.flatnonzero(~dropped)
        gaps = self.lost | dropped if lost else self.lost
        return replace(self.take(kept), lost=_since_last(gaps, kept), prose=_since_last(self.prose, kept))

    def take(self, index: I64) -> Rows:
        """The rows with the numbers ``index``, in that order."""
        return Rows(**{each.name: getattr(self, each.name)[index] for each in fields(Rows)})


def _since_last(flags: Bool, kept: I64) -> Bool:
    """For each of the rows ``kept``: whether it or a row dropped right before it has the flag."""
    found: Bool = np.diff(np.cumsum(flags)[kept], prepend=0) > 0
    return found


class RowStore:
    """The rows of a text, collected block by block in arrays that are made once.

    What is not written of an array takes no memory, so there is room for the most rows that ``text_bytes`` can hold.
    """

    def __init__(self, text_bytes: int) -> None:
        room = text_bytes // _SHORTEST_ROW + 1
        columns = {"start": "u8", "size": "u8", "tail": "u2", "line": "u4", "inclusive": "?", "lost": "?", "prose": "?"}
        self._arrays: dict[str, NDArray[Any]] = {name: np.empty(room, dtype) for name, dtype in columns.items()}
        self._count = 0

    def add(self, rows: Rows) -> None:
        """Append ``rows``."""
        end = self._count + len(rows)
        for name, array in self._arrays.items():
            array[self._count : end] = getattr(rows, name)
        self._count = end

    def rows(self) -> Rows:
        """All rows so far; the arrays are shared."""
        return Rows(**{name: array[: self._count] for name, array in self._arrays.items()})


def concatenate(pieces: list[Rows]) -> Rows:
    """All rows of ``pieces``."""
    return Rows(**{each.name: np.concatenate([getattr(one, each.name) for one in pieces]) for each in fields(Rows)})


def parts(count: int) -> Iterator[slice]:
    """``count`` rows in parts that stay in the cache: nothing of the size of all rows is made on the way."""
    for first in range(0, count, _PART):
        yield slice(first, min(first + _PART, count))


def by_tail(values: NDArray[Any], tail: U16) -> NDArray[Any]:
    """The element of ``values`` for the tail of each row."""
    found = np.empty(tail.size, values.dtype)
    for part in parts(tail.size):
        values.take(tail[part], out=found[part], mode="clip")
    return found


# What the rows say together -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Settled:
    """Usable rows in ascending order without overlap."""

    rows: Rows
    tail_counts: I64
    """Rows of each tail."""
    break_before: Bool
    prints_holes: bool
    inclusive_end: bool


def settle(rows: Rows, tails: Tails, log: DiagnosticLog) -> Settled:
    """Drop what cannot be true, with diagnostics, and find the dialect of the rest."""
    rows = _without_table_rows(rows, tails, log)
    rows = _without_other_tables(rows, log)
    rows, inclusive_end = _with_one_kind_of_end(rows, log)
    rows = _ascending(rows, log)
    counts = np.zeros(len(tails), np.int64)
    for part in parts(len(rows)):
        counts += np.bincount(rows.tail[part], minlength=len(tails))
    # The walker prints holes (since 5.6) if some row is one, or has columns as old as that.
    prints_holes = any(tails.kinds[number].prints_holes for number in np.flatnonzero(counts).tolist())
    _report_first_line(rows, log)
    return Settled(rows, counts, _breaks(rows, prints_holes), prints_holes, inclusive_end)


def _without_table_rows(rows: Rows, tails: Tails, log: DiagnosticLog) -> Rows:
    kinds = np.array([kind.table for kind in tails.kinds])
    if not kinds.any():
        return rows
    tables = by_tail(kinds, rows.tail)
    first = int(rows.line[np.argmax(tables)])
    what = f"rows about table entries (TBL) left out: {np.count_nonzero(tables)}; no mainline kernel prints them"
    log.add(what, first)
    return rows.without(tables, lost=False)


def below_kernel_half(rows: Rows) -> Bool:
    """Which rows end below the lowest address of any kernel."""
    below = np.empty(len(rows), np.bool_)
    for part in parts(len(rows)):
        np.less(rows.start[part] + (rows.size[part] - np.uint64(1)), _KERNEL_HALF, out=below[part])
    return below


def _without_other_tables(rows: Rows, log: DiagnosticLog) -> Rows:
    """Without the rows of firmware's or a process's tables in the same text as the kernel's."""
    below = below_kernel_half(rows)
    if below.all() or not below.any():
        return rows
    _report_runs(rows, below, "the address is below the kernel's half: other tables", log)
    return rows.without(below, lost=False)


def _with_one_kind_of_end(rows: Rows, log: DiagnosticLog) -> tuple[Rows, bool]:
    """Ends are last bytes in all rows or in none; the minority is wrong."""
    inclusive = int(np.count_nonzero(rows.inclusive))
    majority = 2 * inclusive > len(rows)
    odd = rows.inclusive != majority
    if not odd.any():
        return rows, majority
    meaning = "the byte after the range" if majority else "the last byte of the range"
    _report_runs(rows, odd, f"the end is {meaning}, unlike in the other rows", log)
    return rows.without(odd), majority


def _ascending(rows: Rows, log: DiagnosticLog) -> Rows:
    """Drop rows that overlap or go back: single rows out of line, then all that start below what was already read."""
    if not _goes_back(rows):
        return rows
    last = rows.last
    stray = np.zeros(len(rows), np.bool_)
    before, this, after = slice(0, -2), slice(1, -1), slice(2, None)
    stray[this] = (
        (rows.start[after] <= last[this])
        & (rows.start[after] > last[before])
        & (rows.start[this] != last[before] + np.uint64(1))
    )
    if stray.any():
        _report_runs(rows, stray, "the address is out of line with the rows around it", log)
        rows = rows.without(stray)
        last = rows.last
    behind = np.zeros(len(rows), np.bool_)
    behind[1:] = rows.start[1:] <= np.maximum.accumulate(last)[:-1]
    if behind.any():
        message = "the address goes back below rows already read (a second dump in the same text is not read)"
        _report_runs(rows, behind, message, log)
        rows = rows.without(behind)
    return rows


def _goes_back(rows: Rows) -> bool:
    """Whether a row starts at or below the last address of the one before."""
    for part in parts(len(rows) - 1):
        after = slice(part.start + 1, part.stop + 1)
        if (rows.start[after] <= rows.start[part] + (rows.size[part] - np.uint64(1))).any():
            return True
    return False


def _report_runs(rows: Rows, dropped: Bool, why: str, log: DiagnosticLog) -> None:
    """One diagnostic for each run of neighbours among ``dropped``."""
    edges = np.flatnonzero(np.diff(dropped, prepend=False, append=False))
    firsts, counts = edges[::2], edges[1::2] - edges[::2]
    room = log.room
    for first, count in zip(firsts[:room].tolist(), counts[:room].tolist(), strict=True):
        what = "row" if count == 1 else f"{count} rows from here on"
        log.add(f"{what} left out: {why}", int(rows.line[first]))
    log.count(firsts[room:].size)


def _report_first_line(rows: Rows, log: DiagnosticLog) -> None:
    if len(rows) and rows.start[0] == 0 and rows.size[0] > np.uint64(1 << 63):
        message = "the first row starts at address 0 (kernels 5.6 to 5.11); it covers the kernel's half only"
        log.add(message, int(rows.line[0]))


def _breaks(rows: Rows, prints_holes: bool) -> Bool:
    breaks = rows.lost
    if not prints_holes:
        breaks[1:] |= rows.prose[1:]
        return breaks
    for part in parts(len(rows) - 1):
        after = slice(part.start + 1, part.stop + 1)
        breaks[after] |= rows.start[after] != rows.start[part] + rows.size[part]
    return breaks

"""What the rows of a dump say together: which dialect it is, which rows contradict the others, where it has gaps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from parsers.mapping import U32, Bool
from parsers.ptdump.diagnostics import DiagnosticLog
from parsers.ptdump.rows import Rows
from parsers.ptdump.tails import Tails
from parsers.ranges import distinct

__all__ = ["KERNEL_HALF", "Settled", "settle"]

KERNEL_HALF = np.uint64(0xFFF << 52)
"""Lowest address of a kernel with 52-bit addresses."""


@dataclass(frozen=True, slots=True)
class Settled:
    """Usable rows in ascending order without overlap."""

    rows: Rows
    break_before: Bool
    prints_holes: bool
    inclusive_end: bool


def settle(rows: Rows, tails: Tails, log: DiagnosticLog) -> Settled:
    """Drop what cannot be true, with diagnostics, and find the dialect of the rest."""
    rows = _without_table_rows(rows, tails, log)
    rows = _without_other_tables(rows, log)
    rows, inclusive_end = _with_one_kind_of_end(rows, log)
    rows = _ascending(rows, log)
    prints_holes = _prints_holes(rows, tails)
    _report_first_line(rows, log)
    return Settled(rows, _breaks(rows, prints_holes), prints_holes, inclusive_end)


def _without_table_rows(rows: Rows, tails: Tails, log: DiagnosticLog) -> Rows:
    tables = np.array([kind.table for kind in tails.kinds])[rows.tail]
    if not tables.any():
        return rows
    first = int(rows.line[np.argmax(tables)])
    what = f"rows about table entries (TBL) left out: {np.count_nonzero(tables)}; no mainline kernel prints them"
    log.add(what, first)
    return rows.without(tables, lost=False)


def _without_other_tables(rows: Rows, log: DiagnosticLog) -> Rows:
    """Without the rows of firmware's or a process's tables in the same text as the kernel's."""
    below = rows.last < KERNEL_HALF
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
    last = rows.last
    if not (rows.start[1:] <= last[:-1]).any():
        return rows
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
    if len(rows) and rows.start[0] == 0 and rows.last[0] >= np.uint64(1 << 63):
        message = "the first row starts at address 0 (kernels 5.6 to 5.11); it covers the kernel's half only"
        log.add(message, int(rows.line[0]))


def _prints_holes(rows: Rows, tails: Tails) -> bool:
    """Whether the walker prints holes (since 5.6): some row is one, or has columns as old as that."""
    used = distinct(rows.tail)
    return any(tails.kinds[number].prints_holes for number in used)


def _breaks(rows: Rows, prints_holes: bool) -> Bool:
    breaks = np.zeros(len(rows), np.bool_)
    if len(rows):
        breaks[0] = rows.lost[0] > 0
        breaks[1:] = _changed(rows.lost)
        if prints_holes:
            breaks[1:] |= rows.start[1:] != rows.last[:-1] + np.uint64(1)
        else:
            breaks[1:] |= _changed(rows.prose)
    return breaks


def _changed(counter: U32) -> Bool:
    changed: Bool = counter[1:] != counter[:-1]
    return changed

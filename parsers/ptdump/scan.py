"""The lines of a dump block by block: regular rows in bulk, the others one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from parsers.arm64 import MemType
from parsers.errors import Diagnostic
from parsers.mapping import I64, U16, U64, Bool
from parsers.ptdump.blocks import BLOCK_BYTES, Block, LineIndex
from parsers.ptdump.columns import ADDRESS_COLUMNS, decode, starts_with_0x
from parsers.ptdump.diagnostics import DiagnosticLog
from parsers.ptdump.lines import LINE_LIMIT, BadRow, MarkerLine, RowLine, WxText, read_line
from parsers.ptdump.rows import Rows, RowStore, concatenate
from parsers.ptdump.table import WxLine
from parsers.ptdump.tails import Tails

__all__ = ["Scan"]

_TOP = 1 << 64
_BAD_LINES_KEPT = 200
_MARKERS_KEPT = 10_000
_FEW_LINES = 64
_DASH, _PLUS, _ZERO, _X = b"-+0X"

# Bytes that cannot directly precede a row: it would be part of a word, a bracket or an assignment.
_WITHIN_TEXT = np.zeros(256, np.bool_)
_WITHIN_TEXT[list(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz[(=.-")] = True

_AFTER_DASH = np.zeros(256, np.bool_)
_AFTER_DASH[list(b"0123456789abcdefABCDEF[U")] = True


class Scan:
    """Rows, markers, W+X lines and diagnostics of all blocks read so far."""

    def __init__(self, path: str, text_bytes: int) -> None:
        self.log = DiagnosticLog(path)
        self.tails = Tails()
        self.rows = RowStore(text_bytes)
        self.markers: list[tuple[int, str]] = []
        self.wx_check: list[WxLine] = []
        self.bad_lines: list[bytes] = []
        """The first unusable rows, for a guess at what the text is."""
        self.first_fault: Diagnostic | None = None
        self.line_index = LineIndex()
        self._lost = 0
        self._prose = 0

    def read(self, block: Block) -> None:
        """Take in the lines of ``block``."""
        self.line_index.add(block)
        if not block.raw:
            self._lost += 1
            self.log.add(f"a line of more than {BLOCK_BYTES} bytes is not read", block.first_line)
            return
        at = _row_offsets(block)
        lines = np.flatnonzero(at >= 0)
        if not block.ends_with_newline:  # the last line may be cut: it is looked at on its own
            lines = lines[lines != block.starts.size - 1]
        columns = decode(block.text, at[lines], block.stops[lines])
        tails = self.tails.numbers(columns.tails, columns.tail_lengths)
        faulty = self.tails.faulty(tails)
        misfits = lines[np.sort(np.append(columns.misfits, columns.kept[faulty]))]
        regular = _rows(lines[columns.kept], columns.start, columns.size, columns.inclusive, tails)
        if faulty.any():
            regular = regular.take(np.flatnonzero(~faulty))
        others = block.stops > block.starts
        others[regular.line] = False
        uncounted = misfits[self.log.room :]  # what is wrong with each of them is not reported
        others[uncounted] = False
        self.log.count(uncounted.size)
        self.rows.add(self._with_others(regular, block, np.flatnonzero(others), uncounted))

    def _with_others(self, regular: Rows, block: Block, others: I64, misfits: I64) -> Rows:
        """``regular`` and the rows on the lines ``others`` of ``block``, with file-wide numbers.

        The lines ``misfits`` are known to be bad rows.
        """
        found: list[tuple[int, RowLine]] = []
        bad: list[int] = []
        prose = np.ones(others.size, np.bool_)
        candidates = np.arange(others.size) if others.size <= _FEW_LINES else np.flatnonzero(_may_matter(block)[others])
        for position, index in zip(candidates.tolist(), others[candidates].tolist(), strict=True):
            text = block.line(index, LINE_LIMIT)
            line = read_line(text)
            if isinstance(line, RowLine):
                line = self._fault(line, cut=index == block.starts.size - 1 and not block.ends_with_newline) or line
            if isinstance(line, RowLine):
                found.append((index, line))
            elif isinstance(line, BadRow):
                self._bad_row(line, text, block.first_line + index)
                bad.append(index)
            elif line is not None:
                self._note(line, block.first_line + index)
            prose[position] = line is None
        rows = _merge(regular, self._irregular(found)) if found else regular
        prose_lines = others[prose]
        bad_lines = np.sort(np.append(misfits, np.array(bad, np.int64)))
        numbered = replace(
            rows,
            line=rows.line + np.uint32(block.first_line),
            lost=(np.searchsorted(bad_lines, rows.line) + self._lost).astype(np.uint32),
            prose=(np.searchsorted(prose_lines, rows.line) + self._prose).astype(np.uint32),
        )
        self._lost += bad_lines.size
        self._prose += prose_lines.size
        return numbered

    def _irregular(self, found: list[tuple[int, RowLine]]) -> Rows:
        return _rows(
            np.array([index for index, _ in found], np.int64),
            np.array([row.start for _, row in found], np.uint64),
            np.array([row.size for _, row in found], np.uint64),
            np.array([row.inclusive for _, row in found], np.bool_),
            np.array([self.tails.number(row.tail) for _, row in found], np.uint16),
        )

    def _fault(self, row: RowLine, *, cut: bool) -> BadRow | None:
        """What is wrong right of the size; ``cut`` where no newline follows and the row may go on.

        Cut after the level it would pass for a hole, cut among the attributes for another mapping.
        """
        seen_before = row.tail in self.tails
        tail = self.tails.kinds[self.tails.number(row.tail)]
        whole = tail.memtype != MemType.UNKNOWN or (tail.attrs and seen_before) or row.start + row.size == _TOP
        if cut and not whole:
            return BadRow("the text ends in the middle of it", row.tail_column + len(row.tail))
        return BadRow(tail.fault, row.tail_column) if tail.fault else None

    def _bad_row(self, row: BadRow, text: bytes, number: int) -> None:
        if len(self.bad_lines) < _BAD_LINES_KEPT:
            self.bad_lines.append(text)
        self.log.add(f"row left out: {row.message}", number, row.column)
        self.first_fault = self.first_fault or Diagnostic(row.message, self.log.path, number, row.column)

    def _note(self, line: MarkerLine | WxText, number: int) -> None:
        if isinstance(line, WxText):
            self.wx_check.append(WxLine(number, line.text))
        elif len(self.markers) < _MARKERS_KEPT:
            self.markers.append((number, line.name))


def _rows(lines: I64, start: U64, size: U64, inclusive: Bool, tail: U16) -> Rows:
    """Rows of one block, with line numbers counted from its first line and nothing lost yet."""
    nothing = np.zeros(lines.size, np.uint32)
    line = lines.astype(np.uint32)
    return Rows(start=start, size=size, inclusive=inclusive, tail=tail, line=line, lost=nothing, prose=nothing)


def _merge(one: Rows, other: Rows) -> Rows:
    both = concatenate([one, other])
    order = np.argsort(both.line, kind="stable")
    return both.take(order)


def _row_offsets(block: Block) -> I64:
    """Offset of each line's row in ``block.text``, right after its prefix; -1 where there is none.

    Lines that do not begin with a row are searched for the ``-0x`` between its addresses, all at once.
    """
    at = block.starts.copy()
    prefixed = ~starts_with_0x(block.text, at)
    at[prefixed] = -1
    if np.count_nonzero(prefixed) <= _FEW_LINES:
        return at
    dashes = np.flatnonzero(block.text == _DASH)
    dashes = dashes[starts_with_0x(block.text, np.minimum(dashes + 1, block.text.size - 2))]
    starts = dashes - ADDRESS_COLUMNS
    line = np.searchsorted(block.starts, dashes, side="right") - 1
    good = prefixed[line] & (starts > block.starts[line])
    good[good] = ~_WITHIN_TEXT[block.text[starts[good] - 1]]
    at[line[good][::-1]] = starts[good][::-1]  # the last assignment stays: the first in its line
    return at


def _may_matter(block: Block) -> Bool:
    """Lines that can be a row, a marker or a W+X result, or begin with a digit 0.

    They have a dash before a hexadecimal digit, a bracket or a U, or a plus before an X.
    """
    text = block.text
    dashes, pluses = np.flatnonzero(text == _DASH), np.flatnonzero(text == _PLUS)
    signs = np.concatenate([dashes[_AFTER_DASH[text[dashes + 1]]], pluses[text[pluses + 1] == _X]])
    matters: Bool = text[block.starts] == _ZERO
    matters[np.searchsorted(block.starts, signs, side="right") - 1] = True
    return matters

"""The lines of a dump, block by block, so that memory stays bounded: regular rows in bulk, the others one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from parsers.arm64 import MemType
from parsers.errors import Diagnostic, DiagnosticLog
from parsers.expressions import expression
from parsers.mapping import I64, U8, U16, U32, U64, Bool
from parsers.ptdump.columns import ADDRESS_COLUMNS, WINDOW, decode, starts_with_0x
from parsers.ptdump.lines import LINE_LIMIT, BadRow, MarkerLine, RowLine, WxText, read_line
from parsers.ptdump.pieces import PIECE_BYTES, Text
from parsers.ptdump.rows import Rows, RowStore, concatenate
from parsers.ptdump.table import LineIndex, WxLine
from parsers.ptdump.tails import Tails
from parsers.records import dataclass

__all__ = ["Scan", "scan"]

_TOP = 1 << 64
_BAD_LINES_KEPT = 200
_MARKERS_KEPT = 10_000
_FEW_LINES = 64
_DASH, _PLUS, _ZERO, _X = b"-+0X"
_NEWLINE, _RETURN = b"\n\r"

# What some vendors append: the symbol differs from row to row and is not an attribute.
_CALLER = expression(rb"(?<=\tcaller:)[^\r\n]+")

# The beginning of a row, as it is where a text is cut.
_CUT_ROW = expression(rb"0x[0-9a-fx-]{0,36}(?: {1,16}\d{1,9}[KMGTPE]?)?[A-Zorx/_ -]{0,120}")

# Bytes that cannot directly precede a row: it would be part of a word, a bracket or an assignment.
_WITHIN_TEXT = np.zeros(256, np.bool_)
_WITHIN_TEXT[list(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz[(=.-")] = True

_AFTER_DASH = np.zeros(256, np.bool_)
_AFTER_DASH[list(b"0123456789abcdefABCDEF[U")] = True


@dataclass(frozen=True, slots=True)
class _Block:
    """Whole lines: line ``i`` is ``text[starts[i]:stops[i]]``, without its line end.

    ``text`` begins at ``raw[at]`` and goes on for ``WINDOW`` bytes after the ``size`` bytes of the lines.
    """

    raw: bytes | bytearray
    at: int
    text: U8
    size: int
    first_line: int
    starts: I64
    stops: I64
    ends_with_newline: bool
    as_printed: bool
    """The lines have no line ends or blanks but the kernel's."""

    def line(self, index: int, limit: int) -> bytes:
        """Line number ``index`` of this block, at most ``limit`` bytes of it."""
        start = int(self.starts[index])
        return bytes(self.raw[self.at + start : self.at + min(int(self.stops[index]), start + limit)])

    def places(self, byte: int) -> I64:
        """Offsets of ``byte`` in the lines."""
        return np.flatnonzero(self.text[: self.size] == byte)


def scan(text: Text, path: str) -> Scan:
    """All lines of ``text``."""
    found = Scan(path, text)
    line = 1
    for piece in text.pieces():
        found.line_index.add(line, piece.offset)
        if piece.raw is not None:
            block = _block(piece.raw, piece.at, piece.size, line)
            found.read(block)
            line += block.starts.size
        else:
            found.too_long(line)
            line += 1
    return found


def _block(raw: bytes | bytearray, at: int, size: int, line: int) -> _Block:
    stop, ends_with_newline = at + size, raw[at + size - 1] == _NEWLINE
    non_breaking = raw.find(b"\xa0", at, stop) >= 0  # in UTF-8 or Latin-1, as web pages and mailers leave them
    caller = raw.find(b"\t", at, stop) >= 0 and raw.find(b"\tcaller:", at, stop) >= 0
    if non_breaking or caller:
        raw, at = raw[at:stop], 0
        if non_breaking:
            raw = raw.replace(b"\xc2\xa0", b" ").replace(b"\xa0", b" ")
        if caller:
            raw = _CALLER.sub(b"", raw)
        size = len(raw)
        raw += bytes(WINDOW)
    text = np.frombuffer(raw, np.uint8, size + WINDOW, at)
    stops = np.flatnonzero(text[:size] == _NEWLINE)
    if not ends_with_newline:
        stops = np.append(stops, size)
    starts = np.empty_like(stops)
    starts[0] = 0
    starts[1:] = stops[:-1] + 1
    returns = raw.find(b"\r", at, at + size) >= 0
    if returns:
        for _ in range(2):  # serial consoles end lines with two
            stops = stops - ((text[stops - 1] == _RETURN) & (stops > starts))
    as_printed = not (non_breaking or caller or returns)
    return _Block(raw, at, text, size, line, starts, stops, ends_with_newline, as_printed)


class Scan:
    """Rows, markers, W+X lines and diagnostics of all blocks read so far."""

    def __init__(self, path: str, text: Text) -> None:
        self.log = DiagnosticLog(path)
        self.tails = Tails()
        self.rows = RowStore(text.size)
        self.markers: list[tuple[int, str]] = []
        self.wx_check: list[WxLine] = []
        self.bad_lines: list[bytes] = []
        """The first unusable rows, for a guess at what the text is."""
        self.first_fault: Diagnostic | None = None
        self.line_index = LineIndex(text.kept)
        self.only_rows = True
        """Every line so far is a row or a marker as the kernel prints it, but for the end of a last row that is cut."""
        self._lost = self._prose = False
        """Something was lost, or other text was seen, after the last row."""

    def too_long(self, line: int) -> None:
        """Pass over a line."""
        self._lost, self.only_rows = True, False
        self.log.add(f"a line of more than {PIECE_BYTES} bytes is not read", line)

    def read(self, block: _Block) -> None:
        """Take in the lines of ``block``."""
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
        self.only_rows &= block.as_printed and not misfits.size and np.array_equal(at[lines], block.starts[lines])
        self.rows.add(self._with_others(regular, block, np.flatnonzero(others), uncounted))

    def _with_others(self, regular: Rows, block: _Block, others: I64, misfits: I64) -> Rows:
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
            is_last = not block.ends_with_newline and index == block.starts.size - 1
            self.only_rows &= _is_printed(line, text) or (is_last and _CUT_ROW.fullmatch(text) is not None)
            prose[position] = line is None
        rows = _merge(regular, self._irregular(found)) if found else regular
        prose_lines = others[prose]
        self.only_rows &= not prose_lines.size
        bad_lines = np.sort(np.append(misfits, np.array(bad, np.int64)))
        lost, self._lost = _between(bad_lines, rows.line, already=self._lost)
        among, self._prose = _between(prose_lines, rows.line, already=self._prose)
        return replace(rows, line=rows.line + np.uint32(block.first_line), lost=lost, prose=among)

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


def _is_printed(line: RowLine | MarkerLine | WxText | BadRow | None, text: bytes) -> bool:
    """Whether a line is a row or a marker and nothing else."""
    return (
        text.startswith(b"0x") if isinstance(line, RowLine) else isinstance(line, MarkerLine) and text == line.printed
    )


def _rows(lines: I64, start: U64, size: U64, inclusive: Bool, tail: U16) -> Rows:
    """Rows of one block, with line numbers counted from its first line and nothing lost yet."""
    nothing = np.zeros(lines.size, np.bool_)
    line = lines.astype(np.uint32)
    return Rows(start=start, size=size, inclusive=inclusive, tail=tail, line=line, lost=nothing, prose=nothing)


def _between(others: I64, lines: U32, *, already: bool) -> tuple[Bool, bool]:
    """Whether each row has one of the lines ``others`` between it and the row before, and whether one comes after.

    ``lines`` are those of the rows, in ascending order; ``already`` says that one comes before the first of both.
    """
    found = np.zeros(lines.size, np.bool_)
    before = np.zeros(lines.size, np.int64)
    if others.size:
        before = np.searchsorted(others, lines)
        np.greater(np.diff(before, prepend=0), 0, out=found)
    found[:1] |= already
    return found, bool(others.size > before[-1]) if lines.size else already or bool(others.size)


def _merge(one: Rows, other: Rows) -> Rows:
    both = concatenate([one, other])
    order = np.argsort(both.line, kind="stable")
    return both.take(order)


def _row_offsets(block: _Block) -> I64:
    """Offset of each line's row in ``block.text``, right after its prefix; -1 where there is none.

    Lines that do not begin with a row are searched for the ``-0x`` between its addresses, all at once.
    """
    at = block.starts.copy()
    prefixed = ~starts_with_0x(block.text, at)
    at[prefixed] = -1
    if np.count_nonzero(prefixed) <= _FEW_LINES:
        return at
    dashes = block.places(_DASH)
    dashes = dashes[starts_with_0x(block.text, dashes + 1)]
    starts = dashes - ADDRESS_COLUMNS
    line = np.searchsorted(block.starts, dashes, side="right") - 1
    good = prefixed[line] & (starts > block.starts[line])
    good[good] = ~_WITHIN_TEXT[block.text[starts[good] - 1]] & starts_with_0x(block.text, starts[good])
    at[line[good][::-1]] = starts[good][::-1]  # the last assignment stays: the first in its line
    return at


def _may_matter(block: _Block) -> Bool:
    """Lines that can be a row, a marker or a W+X result, or begin with a digit 0.

    They have a dash before a hexadecimal digit, a bracket or a U, or a plus before an X.
    """
    text = block.text
    dashes, pluses = block.places(_DASH), block.places(_PLUS)
    signs = np.concatenate([dashes[_AFTER_DASH[text[dashes + 1]]], pluses[text[pluses + 1] == _X]])
    matters: Bool = text[block.starts] == _ZERO
    matters[np.searchsorted(block.starts, signs, side="right") - 1] = True
    return matters

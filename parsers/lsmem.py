"""``lsmem`` (util-linux 2.30 and newer): memory blocks, as a table, raw, as pairs or as JSON.

The ranges are inclusive, and one row may cover many blocks of equal attributes; the result is the table
of `parsers.memory_blocks` all the same.  An offline block has no REMOVABLE cell, so cells are recognised by their
right edge, never by counting words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from parsers.errors import Diagnostic, FormatError
from parsers.expressions import expression
from parsers.lines import at_lines, numbered, text_of
from parsers.mapping import I64
from parsers.memory_blocks import BlockState, MemoryBlocks
from parsers.records import dataclass

__all__ = ["MAX_BLOCKS", "MAX_BYTES", "parse_lsmem"]

MAX_BYTES = 32 << 20
MAX_BLOCKS = 1 << 22
_BLOCK_SIZES = frozenset(1 << shift for shift in range(16, 50))

_HEADING = expression(rb"^(?=[^\n]*\bSTATE\b)[ \t]*(?:[A-Z-]+[ \t]+)*[A-Z-]+[ \t]*$", re.MULTILINE)
_SUMMARY = expression(rb"^(Memory block size|Total online memory|Total offline memory):[ \t]+(\S+)", re.MULTILINE)
_LINE = expression(rb"^[^\n]*\S[^\n]*", re.MULTILINE)
_JSON_ROW = expression(rb'"state"[ \t]*:')
_PAIR = expression(r'(?<![A-Z-])([A-Z][A-Z-]*)="([^"]*)"')
_WORD = expression(r"\S+")
_RANGE = expression(r"0x([0-9a-f]{1,16})-0x([0-9a-f]{1,16})")
_BLOCKS = expression(r"(\d{1,12})(?:-(\d{1,12}))?")
_SIZE = expression(r"(\d{1,20}(?:[.,]\d+)?)([BKMGTPE]?)")
_NODE = expression(r"[0-9]{1,9}")
_UNITS = {unit: 10 * power for power, unit in enumerate("BKMGTPE")}
_STATES = {
    "online": BlockState.ONLINE,
    "offline": BlockState.OFFLINE,
    "on->off": BlockState.GOING_OFFLINE,
    "going-offline": BlockState.GOING_OFFLINE,
}
_REMOVABLE = {"yes": 1, "no": 0}


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    cells: Mapping[str, str]
    """By column heading."""

    @property
    def range(self) -> tuple[int, int] | None:
        """First and inclusive last address."""
        match = _RANGE.fullmatch(self.cells.get("RANGE", ""))
        return (int(match[1], 16), int(match[2], 16)) if match else None

    @property
    def blocks(self) -> tuple[int, int] | None:
        """First and last block number."""
        match = _BLOCKS.fullmatch(self.cells.get("BLOCK", ""))
        return (int(match[1]), int(match[2] or match[1])) if match else None


def parse_lsmem(data: bytes, path: str) -> MemoryBlocks:
    """Read the output of ``lsmem``, with headings and any columns that include RANGE or BLOCK, and STATE.

    Raises FormatError without a row or where the size of a block is neither said nor to be derived.

    >>> text = b'''RANGE                                  SIZE   STATE REMOVABLE BLOCK
    ... 0x0000000040000000-0x000000004fffffff  256M  online       yes   8-9
    ... 0x0000000080000000-0x0000000087ffffff  128M offline              16
    ...
    ... Memory block size:       128M
    ... '''
    >>> blocks = parse_lsmem(text, "lsmem")
    >>> blocks.block.tolist(), blocks.state_word, blocks.removable.tolist(), blocks.line.tolist()
    ([8, 9, 16], ('online', 'online', 'offline'), [1, 1, -1], [2, 2, 3])
    >>> hex(blocks.block_size_bytes)
    '0x8000000'
    """
    data = text_of(data, path, limit=MAX_BYTES, what="lsmem output")
    every_row = _rows(data, path)
    rows = [row for row in every_row if row.range or row.blocks]
    strange = [row.line for row in every_row if not (row.range or row.blocks)]
    if not rows:
        raise FormatError("no range of memory blocks, no lsmem output", path=path)
    summary = {match[1].decode(): match[2].decode("utf-8", "replace") for match in _SUMMARY.finditer(data)}
    block_size = _block_size(rows, summary.get("Memory block size", ""), path)
    first, count, misfits = _extents(rows, block_size, path)
    of_row = np.repeat(np.arange(len(rows)), count)
    block = first[of_row] + (np.arange(of_row.size) - np.repeat(np.cumsum(count) - count, count))
    # Ascending by block; of a block that is listed twice the last row counts.
    block, last = np.unique(block[::-1], return_index=True)
    kept = of_row[::-1][last]

    def words(column: str) -> tuple[str, ...]:
        return tuple(np.array([row.cells.get(column, "") for row in rows], dtype=np.object_)[kept].tolist())

    state_word = words("STATE")
    zones = tuple(word.replace("/", " ").replace("None", "none") for word in words("ZONES"))
    blocks = MemoryBlocks(
        path=path,
        block=block,
        state_word=state_word,
        state=np.array([_STATES.get(word, BlockState.UNKNOWN) for word in state_word], dtype=np.uint8),
        valid_zones=zones,
        removable=np.array([_REMOVABLE.get(word, -1) for word in words("REMOVABLE")], dtype=np.int8),
        phys_index=np.full(block.size, -1, dtype=np.int64),
        phys_device=np.full(block.size, -1, dtype=np.int64),
        node=np.array([int(word) if _NODE.fullmatch(word) else -1 for word in words("NODE")], dtype=np.int64),
        line=np.array([row.line for row in rows], dtype=np.uint32)[kept],
        block_size_bytes=block_size,
        auto_online_blocks=None,
        diagnostics=(
            *at_lines("not understood", strange, path),
            *at_lines("the range is not that of the blocks", misfits, path),
        ),
    )
    if _contradicts(blocks, summary.get("Total online memory", "")):
        doubt = Diagnostic(
            "ranges do not add up to the total of online memory (merged by --split): states unknown", path
        )
        return replace(blocks, state=np.zeros_like(blocks.state), diagnostics=(*blocks.diagnostics, doubt))
    return blocks


def _contradicts(blocks: MemoryBlocks, said: str) -> bool:
    """Whether the online blocks are more or less than the summary says, to its rounding."""
    match = _SIZE.fullmatch(said)
    if match is None or blocks.block_size_bytes is None or "" in blocks.state_word:
        return False
    counted = int(np.count_nonzero(blocks.online)) * blocks.block_size_bytes
    return abs(counted - _bytes(said)) > (1 << _UNITS[match[2] or "B"]) >> 3


def _rows(data: bytes, path: str) -> list[_Row]:
    if data.lstrip().startswith(b"{"):
        return _json_rows(data, path)
    heading = _HEADING.search(data)
    if heading is None:
        return [
            _Row(line, dict(pairs)) for line, match in numbered(_LINE, data) if (pairs := _PAIR.findall(_text(match)))
        ]
    columns = [(word.group(), word.end()) for word in _WORD.finditer(heading.group().decode("utf-8", "replace"))]
    skipped = data.count(b"\n", 0, heading.end())
    lines = [(line + skipped, _text(match)) for line, match in _table_lines(data[heading.end() :])]
    rows = [_Row(line, _cells(text, columns)) for line, text in lines]
    if all(row.cells.get("STATE") in _STATES for row in rows):
        return rows
    return [_Row(line, _raw_cells(text, columns)) for line, text in lines]


def _table_lines(data: bytes) -> Iterator[tuple[int, re.Match[bytes]]]:
    for line, match in numbered(_LINE, data):
        if _SUMMARY.match(match.group()):
            return
        yield line, match


def _text(match: re.Match[bytes]) -> str:
    return match.group().decode("utf-8", "replace")


def _cells(text: str, columns: Sequence[tuple[str, int]]) -> dict[str, str]:
    """Cells of a table row: all columns but RANGE are flush right."""
    by_end = {word.end(): word.group() for word in _WORD.finditer(text)}
    cells = {name: by_end.get(end, "") for name, end in columns}
    span = _RANGE.search(text)
    return {**cells, "RANGE": span.group()} if span else cells


def _raw_cells(text: str, columns: Sequence[tuple[str, int]]) -> dict[str, str]:
    """Cells of a raw row: one blank between two, also around an empty one."""
    return {name: cell for (name, _), cell in zip(columns, text.strip().split(" "), strict=False)}


def _json_rows(data: bytes, path: str) -> list[_Row]:
    try:
        listing = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"no JSON: {error}", path=path) from error
    memory = listing.get("memory")
    if not isinstance(memory, list) or not all(isinstance(row, dict) for row in memory):
        raise FormatError("no list 'memory', no JSON of lsmem", path=path)
    lines = [line for line, _ in numbered(_JSON_ROW, data)]
    if len(lines) != len(memory):
        lines = [1] * len(memory)
    return [_Row(line, _json_cells(row)) for line, row in zip(lines, memory, strict=True)]


def _json_cells(row: Mapping[str, object]) -> dict[str, str]:
    """The cells that a table would have: an offline block's ``removable`` is false for want of a value."""
    words = {True: "yes", False: "no" if row.get("state") == "online" else "", None: ""}
    return {
        name.upper(): words[value] if isinstance(value, bool) or value is None else str(value)
        for name, value in row.items()
    }


def _block_size(rows: Sequence[_Row], said: str, path: str) -> int:
    """Bytes of a block as the summary says or as ranges and block numbers give."""
    sizes = {
        (row.range[1] + 1 - row.range[0]) // (row.blocks[1] + 1 - row.blocks[0])
        for row in rows
        if row.range and row.blocks and row.blocks[0] <= row.blocks[1]
    }
    size = _bytes(said) or (sizes.pop() if len(sizes) == 1 else 0)
    if size not in _BLOCK_SIZES:
        raise FormatError("the size of a memory block is missing (columns RANGE and BLOCK give it)", path=path)
    return size


def _bytes(text: str) -> int:
    match = _SIZE.fullmatch(text)
    return int(float(match[1].replace(",", ".")) * (1 << _UNITS[match[2] or "B"])) if match else 0


def _extents(rows: Sequence[_Row], block_size: int, path: str) -> tuple[I64, I64, list[int]]:
    """First block and number of blocks of each row, and the lines where range and blocks disagree."""
    first, count, misfits = [], [], []
    for row in rows:
        by_range = (row.range[0] // block_size, row.range[1] // block_size) if row.range else None
        low, high = row.blocks or by_range or (0, -1)
        if high < low or (by_range and by_range != (low, high)):
            misfits.append(row.line)
        first.append(low)
        count.append(max(high + 1 - low, 0))
    if sum(count) > MAX_BLOCKS:
        raise FormatError(f"more than {MAX_BLOCKS} memory blocks", path=path)
    return np.array(first, dtype=np.int64), np.array(count, dtype=np.int64), misfits

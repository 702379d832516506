"""Memory blocks: what sysfs says of each, from ``grep -H .`` output or a copied tree.

Attributes from drivers/base/memory.c (4.14 to 6.18).  ``block_size_bytes`` is hexadecimal without 0x; block number n
starts at physical address n * block_size_bytes.  The attributes are columns, found by array
operations: a machine of 16 TiB in blocks of 128 MiB has 131,072 of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from parsers.errors import Diagnostic, FormatError
from parsers.expressions import expression
from parsers.lines import at_lines, grep_listing, name_listing, numbered, text_of, without_lines
from parsers.mapping import I8, I64, U8, U32, Bool
from parsers.ranges import distinct
from parsers.records import dataclass

__all__ = [
    "MAX_BYTES",
    "MAX_LINES",
    "BlockState",
    "MemoryBlocks",
    "MemoryNodes",
    "parse_memory_blocks",
    "parse_memory_blocks_tree",
    "parse_memory_nodes",
]

MAX_BYTES = 256 << 20
MAX_LINES = 4_000_000  # 131,072 blocks of 20 attributes, power/ and uevent included, are 2.6 million
_MAX_COUNTS = {b"\n": MAX_LINES, b":": 2 * MAX_LINES, b"/": 10 * MAX_LINES}

_BLOCK_SIZE = expression(rb"block_size_bytes:(?:0x)?([0-9a-fA-F]{1,16})[ \t]*$", re.MULTILINE)
_AUTO_ONLINE = expression(rb"auto_online_blocks:([^\n]*)")
_WHOLE_LINE = expression(rb"\A[ \t\r]*\Z|:[^\n]+\Z")
_OF_EVERY_BLOCK = (b"state", b"valid_zones", b"phys_index", b"removable", b"phys_device")
"""Attributes that every block has where one has them (drivers/base/memory.c)."""
_WORD_WIDTH = 64  # the longest valid_zones, "DMA DMA32 Normal Movable Device", is half of it
_NUMBER_WIDTH = 15  # digits, so that hexadecimal fits int64
_DIGITS = np.full(256, 255, dtype=np.uint8)
_DIGITS[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)
_DIGITS[np.frombuffer(b"ABCDEF", np.uint8)] = np.arange(10, 16)

# `ls -l memory*/`, `ls -d memory*/node*`, and the same seen from /sys/devices/system/node.
_NODE_LINE = expression(
    rb"memory(?P<block>\d{1,18})/node(?P<node>\d{1,9})\b"
    rb"|\bnode(?P<of_node>\d{1,9})/memory(?P<node_block>\d{1,18})\b"
    rb"|\bmemory(?P<directory>\d{1,18})/?:[ \t]*$"
    rb"|\bnode(?P<link>\d{1,9}) -> "
    rb"|^node(?P<entry>\d{1,9})[ \t]*$",
    re.MULTILINE,
)


class BlockState(IntEnum):
    """State of a memory block; ``UNKNOWN`` where none was captured or the kernel has no such word."""

    UNKNOWN = 0
    ONLINE = 1
    OFFLINE = 2
    GOING_OFFLINE = 3


_STATES = {"online": BlockState.ONLINE, "offline": BlockState.OFFLINE, "going-offline": BlockState.GOING_OFFLINE}


@dataclass(frozen=True, eq=False, kw_only=True)
class MemoryBlocks:
    """One row a memory block, ascending by block number.

    A number that was not captured is -1, a word that was not captured is empty.

    >>> text = b'''block_size_bytes:8000000
    ... auto_online_blocks:offline
    ... memory8/state:online
    ... memory16/state:offline
    ... memory8/valid_zones:DMA
    ... memory16/valid_zones:Normal Movable
    ... memory16/phys_index:00000010
    ... '''
    >>> blocks = parse_memory_blocks(text, "memory_blocks")
    >>> hex(blocks.block_size_bytes), blocks.block.tolist(), blocks.line.tolist(), blocks.phys_index.tolist()
    ('0x8000000', [8, 16], [3, 4], [-1, 16])
    >>> blocks.block[blocks.online].tolist(), blocks.state_word[1], blocks.valid_zones[1]
    ([8], 'offline', 'Normal Movable')
    """

    path: str
    block: I64
    """Block number: the N of memoryN, in units of ``block_size_bytes`` from physical address 0."""
    state: U8
    """`BlockState`."""
    state_word: tuple[str, ...]
    """State as written."""
    valid_zones: tuple[str, ...]
    """Zones it is in or may be onlined to, as written; ``none`` for a block that cannot change state."""
    removable: I8
    """1, 0; kernels since 5.7 always say 1 where hot-remove is configured."""
    phys_index: I64
    phys_device: I64
    node: I64
    """NUMA node."""
    line: U32 | None
    """1-based line of each block's state, 0 where there is none; None for a copied tree."""
    block_size_bytes: int | None
    auto_online_blocks: str | None
    complete: bool = True
    """False where lines are seen to be missing: no block is listed, or an attribute of some blocks alone."""
    diagnostics: tuple[Diagnostic, ...] = ()

    @property
    def online(self) -> Bool:
        """Blocks whose state is online."""
        return np.equal(self.state, np.uint8(BlockState.ONLINE))

    def with_nodes(self, nodes: MemoryNodes) -> MemoryBlocks:
        """The same blocks with the nodes of a listing.

        A listing that lost the names of its directories fits if it has one node a block, in the order in which
        a shell expands ``memory*/``.
        """
        block = nodes.block
        diagnostics: tuple[Diagnostic, ...] = ()
        if (block < 0).all():
            if block.size != self.block.size:
                message = f"{block.size} nodes without block numbers do not fit {len(self)} blocks: nodes unknown"
                return replace(self, diagnostics=(*self.diagnostics, Diagnostic(message, nodes.path)))
            block = self.block[np.argsort(self.block.astype(np.str_), kind="stable")]
            diagnostics = (Diagnostic("nodes without block numbers, assigned in the order of names", nodes.path),)
        known = np.isin(block, self.block)
        row = np.searchsorted(self.block, block[known])
        node = self.node.copy()
        node[row] = nodes.node[known]
        several = distinct(row[node[row] != nodes.node[known]])
        node[several] = -1
        if several.size:
            message = f"block {self.block[several[0]]} belongs to more than one node: unknown here"
            diagnostics += (Diagnostic(message, nodes.path),)
        return replace(self, node=node, diagnostics=(*self.diagnostics, *diagnostics))

    def __len__(self) -> int:
        return int(self.block.size)


@dataclass(frozen=True, eq=False, kw_only=True)
class MemoryNodes:
    """Which node each memory block is linked to, one row a link.

    >>> nodes = parse_memory_nodes(b'''memory8/:
    ... lrwxrwxrwx 1 0 0 0 Jan  1 00:00 node0 -> ../../node/node0
    ... memory9/:
    ... lrwxrwxrwx 1 0 0 0 Jan  1 00:00 node1 -> ../../node/node1
    ... ''', "memory_nodes")
    >>> nodes.block.tolist(), nodes.node.tolist(), nodes.line.tolist()
    ([8, 9], [0, 1], [2, 4])
    """

    path: str
    block: I64
    """Block number; -1 where the listing does not name the directory."""
    node: I64
    line: U32
    diagnostics: tuple[Diagnostic, ...] = ()


def parse_memory_blocks(data: bytes, path: str) -> MemoryBlocks:
    """Read ``grep -H .`` over /sys/devices/system/memory, lines in any order, with any path before ``memoryN/``.

    Raises FormatError without a block and without a block size.
    """
    data = text_of(data, path, limit=MAX_BYTES, what="memory-block listing")
    if any(data.count(byte) > limit for byte, limit in _MAX_COUNTS.items()):
        raise FormatError(f"more than {MAX_LINES} lines or their separators, no memory-block listing", path=path)
    lines = _attribute_lines(data)
    block_size, diagnostics = _block_size(data, path)
    block, row = np.unique(lines.block, return_inverse=True)
    if not block.size and block_size is None:
        raise FormatError("no memory block and no block size", path=path)

    def numbers(name: bytes, base: int) -> I64:
        at = lines.of(name)
        column = np.full(block.size, -1, dtype=np.int64)
        value, known = lines.numbers(at, base)
        column[row[at[known]]] = value[known]
        return column

    def words(name: bytes) -> tuple[str, ...]:
        at = lines.of(name)
        column = np.full(block.size, "", dtype=np.object_)
        column[row[at]] = lines.words(at)
        return tuple(column.tolist())

    states = lines.of(b"state")
    state_word = words(b"state")
    line = np.zeros(block.size, dtype=np.uint32)
    line[row[states]] = lines.line[states]
    auto_online = _AUTO_ONLINE.search(data)
    ragged = [name for name in _OF_EVERY_BLOCK if 0 < distinct(row[lines.of(name)]).size < block.size]
    blocks = MemoryBlocks(
        path=path,
        block=block,
        state_word=state_word,
        state=np.array([_STATES.get(word, BlockState.UNKNOWN) for word in state_word], dtype=np.uint8),
        valid_zones=words(b"valid_zones"),
        removable=numbers(b"removable", 10).astype(np.int8),
        phys_index=numbers(b"phys_index", 16),
        phys_device=numbers(b"phys_device", 10),
        node=np.full(block.size, -1, dtype=np.int64),
        line=line,
        block_size_bytes=block_size,
        auto_online_blocks=auto_online[1].decode("utf-8", "replace").strip() if auto_online else None,
    )
    repeated = np.setdiff1d(lines.line[states], line, assume_unique=True)
    torn = (
        not block.size or not states.size or bool((blocks.state == BlockState.UNKNOWN).any()) or _ends_in_a_line(data)
    )
    return replace(
        blocks, complete=not torn and not ragged, diagnostics=(*diagnostics, *_doubts(blocks, line, repeated))
    )


def parse_memory_blocks_tree(files: Mapping[str, bytes], path: str) -> MemoryBlocks:
    """Read a copied /sys/devices/system/memory: contents by path, such as ``memory8/state``, links to nodes included.

    Raises FormatError without a block and without a block size.
    """
    names = name_listing(files)
    blocks = parse_memory_blocks(grep_listing(files, path), path)
    blocks = replace(blocks, line=None, diagnostics=without_lines(blocks.diagnostics))
    return blocks.with_nodes(parse_memory_nodes(names, path)) if _NODE_LINE.search(names) else blocks


def parse_memory_nodes(data: bytes, path: str) -> MemoryNodes:
    """Read ``ls`` output of the ``nodeN`` links of memory blocks; FormatError without one."""
    data = text_of(data, path, limit=MAX_BYTES, what="listing of memory-block nodes")
    if data.count(b"\n") > MAX_LINES:
        raise FormatError(f"more than {MAX_LINES} lines, too many for a listing of memory-block nodes", path=path)
    rows: list[tuple[int, int, int]] = []
    directory = -1
    for line, match in numbered(_NODE_LINE, data):
        if match["directory"]:
            directory = int(match["directory"])
        elif match["link"] or match["entry"]:
            rows.append((directory, int(match["link"] or match["entry"]), line))
        else:
            rows.append((int(match["block"] or match["node_block"]), int(match["node"] or match["of_node"]), line))
    if not rows:
        raise FormatError("no link to a node", path=path)
    block, node, line_numbers = np.array(rows, dtype=np.int64).T
    return MemoryNodes(path=path, block=block, node=node, line=line_numbers.astype(np.uint32))


def _block_size(data: bytes, path: str) -> tuple[int | None, tuple[Diagnostic, ...]]:
    match = _BLOCK_SIZE.search(data)
    if match is None:
        return None, (Diagnostic("block_size_bytes is missing: where the blocks lie is unknown", path),)
    size = int(match[1], 16)
    if size == 0 or size & (size - 1):
        line = data.count(b"\n", 0, match.start()) + 1
        return None, (Diagnostic(f"block size {size:#x} is not a power of two", path, line),)
    return size, ()


def _ends_in_a_line(data: bytes) -> bool:
    """Whether the last line lacks a newline and a value: a copy may lose the newline alone."""
    return not _WHOLE_LINE.search(data[data.rfind(b"\n") + 1 :])


def _doubts(blocks: MemoryBlocks, line: U32, repeated: U32) -> tuple[Diagnostic, ...]:
    stateless = np.flatnonzero(line == 0)
    strange = line[(blocks.state == BlockState.UNKNOWN) & (line > 0)]
    moved = line[(blocks.phys_index >= 0) & (blocks.phys_index != blocks.block)]
    missing = f"the state of {stateless.size} blocks is missing" if stateless.size else ""
    return (
        *([Diagnostic(missing, blocks.path)] if missing else []),
        *at_lines("a state that the kernel does not have", strange.tolist(), blocks.path),
        *at_lines("phys_index is not the block's number", moved.tolist(), blocks.path),
        *at_lines("the block's state is given again below; the last one counts", repeated.tolist(), blocks.path),
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class _AttributeLines:
    """The lines ``…memoryN/attribute:value`` of a text, one row each; byte positions into ``text``."""

    text: U8
    block: I64
    line: U32
    name: I64
    colon: I64
    stop: I64

    def of(self, name: bytes) -> I64:
        """Rows of one attribute."""
        rows = np.flatnonzero(self.colon - self.name == len(name))
        for offset, letter in enumerate(name):
            rows = rows[self.text[self.name[rows] + offset] == letter]
        return rows

    def numbers(self, rows: I64, base: int) -> tuple[I64, Bool]:
        """Values of ``rows`` as numbers, and which of them are numbers."""
        return _numbers(self.text, self.colon[rows] + 1, self.stop[rows], base)

    def words(self, rows: I64) -> NDArray[np.object_]:
        """Values of ``rows`` as str, cut at 64 bytes; equal ones are one object."""
        start, stop = self.colon[rows] + 1, self.stop[rows]
        width = int(min(_WORD_WIDTH, (stop - start).max(initial=0))) or 1
        at = start[:, np.newaxis] + np.arange(width)
        letters = np.where(at < stop[:, np.newaxis], self.text.take(at, mode="clip"), 0).astype(np.uint8)
        values, of_row = np.unique(letters.view(f"S{width}").ravel(), return_inverse=True)
        words = [value.decode("utf-8", "replace").strip() for value in values.tolist()]
        return np.array(words, dtype=np.object_)[of_row]


def _attribute_lines(data: bytes) -> _AttributeLines:
    text = np.frombuffer(data, dtype=np.uint8)
    newline = np.flatnonzero(text == ord("\n"))
    start = np.concatenate(([0], newline + 1))
    stop = np.concatenate((newline, [text.size]))
    colons = np.append(np.flatnonzero(text == ord(":")), text.size)
    colon = colons[np.searchsorted(colons, start)]
    slashes = np.concatenate(([-1, -1], np.flatnonzero(text == ord("/"))))
    last = np.searchsorted(slashes, colon) - 1
    slash = slashes[last]
    directory = np.maximum(slashes[last - 1] + 1, start)
    rows = np.flatnonzero((colon < stop) & (slash >= start) & (slash - directory > len(b"memory")))
    for offset, letter in enumerate(b"memory"):
        rows = rows[text[directory[rows] + offset] == letter]
    block, known = _numbers(text, directory[rows] + len(b"memory"), slash[rows], 10)
    rows = rows[known]
    return _AttributeLines(
        text=text,
        block=block[known],
        line=(rows + 1).astype(np.uint32),
        name=slash[rows] + 1,
        colon=colon[rows],
        stop=stop[rows],
    )


def _numbers(text: U8, start: I64, stop: I64, base: int) -> tuple[I64, Bool]:
    """The numbers written in ``text[start:stop]``, and which of them are numbers."""
    length = stop - start
    known = (length > 0) & (length <= _NUMBER_WIDTH)
    value = np.zeros(start.size, dtype=np.int64)
    for offset in range(min(_NUMBER_WIDTH, int(length.max(initial=0)))):
        inside = known & (offset < length)
        digit = _DIGITS[text.take(start + offset, mode="clip")]
        known &= ~inside | (digit < base)
        value = np.where(inside, value * base + digit, value)
    return value, known

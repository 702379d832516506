"""Operations that come again: what a block of calls does to a state is worked out once and looked up afterwards.

A trace of a million events is the same few operations on the same memory again and again.  The calls are cut into
blocks, each one operation on one piece of memory that no other call reaches beyond.  Two blocks are alike if their
calls differ only in where the memory begins and how calls are numbered; so are two states.  What `Replay` does depends
on nothing else, so a pair of block and state that was met before has the same outcome.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.records import dataclass
from rules.model.replay.extents import PMD_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from parsers.ftrace.events import I32
    from parsers.mapping import I8, I64, U64
    from rules.model.replay.apply import Replay

__all__ = ["run_blocks"]

MIN_REPEATS = 4
"""Blocks of each kind on average, from which on looking for repetition pays."""
MAX_ROWS = 1 << 18
"""Of the largest piece: the comparison of states takes some 60 bytes a row."""
MAX_BYTES = 64 << 20
"""Of states that are kept."""
MAX_MISSES = 256
"""After which half of the blocks have to be found, or the rest is replayed call by call."""
_FLAGS = ("valid", "mapped", "leaf", "linear", "online", "lost", "self_hosted")
_NUMBERS = ("damaged_by", "suspect", "added_by")
"""Columns of the state that hold calls."""


@dataclass(frozen=True, eq=False)
class Blocks:
    """Consecutive calls of one operation on one piece; ``begin`` has one entry more than there are blocks."""

    begin: I64
    """Where each starts in the order of the replay."""
    kind: I64
    """Blocks of equal kind are alike."""
    base: I64
    """The outermost call, from which the calls of a block are counted."""
    piece: I64
    piece_first: I64
    piece_end: I64
    """Rows of the state, for each piece."""

    @property
    def repeat(self) -> bool:
        """Whether it pays to look for repetition."""
        return bool(
            self.kind.size >= MIN_REPEATS * (int(self.kind.max()) + 1)
            and (self.piece_end - self.piece_first).max() <= MAX_ROWS
        )


def run_blocks(replay: Replay, apply: Callable[[int, int], None]) -> None:
    """Replay everything; ``apply`` replays the calls from one place in the order to another."""
    begin = 0
    if replay.order.size and replay.tables is None:
        blocks = _blocks_of(replay)
        begin = int(blocks.begin[_Memory(replay, blocks, apply).run()]) if blocks.repeat else 0
    apply(begin, replay.order.size)


class _Memory:
    """States of pieces that were met, and what each kind of block makes of them."""

    def __init__(self, replay: Replay, blocks: Blocks, apply: Callable[[int, int], None]) -> None:
        self.replay, self.blocks, self.apply = replay, blocks, apply
        self.first, self.end = blocks.piece_first.tolist(), blocks.piece_end.tolist()
        self.numbers: dict[object, int] = {}
        self.states: list[tuple[I8, I32]] = []
        """Flags and, for each column that holds calls, indices into the piece's list of calls."""
        self.room = MAX_BYTES
        self.current: list[int] = [-1] * len(self.first)
        """Of each piece, the number of its state; -1 where only the arrays of the replay have it."""
        self.calls: list[list[int]] = [[] for _ in self.first]
        self.stale = [False] * len(self.first)
        """Whether the arrays of the replay are behind."""

    def run(self) -> int:
        """Replay block by block for as long as states repeat; how many were replayed."""
        blocks, replay = self.blocks, self.replay
        kinds = int(blocks.kind.max()) + 1
        known: dict[int, tuple[int, list[int]]] = {}
        begin, bases = blocks.begin.tolist(), blocks.base.tolist()
        current, stale, misses = self.current, self.stale, 0
        for number, (kind, piece) in enumerate(zip(blocks.kind.tolist(), blocks.piece.tolist(), strict=True)):
            outcome = known.get(current[piece] * kinds + kind)
            if outcome is not None:
                current[piece], recipe = outcome
                before, base = self.calls[piece], bases[number]
                self.calls[piece] = [before[one] if one >= 0 else base + ~one for one in recipe]
                stale[piece] = True
                continue
            misses += 1
            if self.room < 0 or (misses > MAX_MISSES and misses * 2 > number):
                self._write_all()
                return number
            self._write(piece)
            if current[piece] < 0:
                self._read(piece)
            state, before = current[piece], self.calls[piece]
            noticed = sum(replay.counts.values()), len(replay.blind)
            self.apply(begin[number], begin[number + 1])
            self._read(piece)
            if noticed == (sum(replay.counts.values()), len(replay.blind)):
                places = {call: place for place, call in enumerate(before)}
                recipe = [places.get(call, ~(call - bases[number])) for call in self.calls[piece]]
                known[state * kinds + kind] = current[piece], recipe
        self._write_all()
        return blocks.kind.size

    def _read(self, piece: int) -> None:
        """Number the state that the arrays have of a piece."""
        state, rows = self.replay.state, slice(self.first[piece], self.end[piece])
        flags = np.stack([getattr(state, name)[rows] for name in _FLAGS]).astype(np.int8)
        calls = np.stack([getattr(state, name)[rows] for name in _NUMBERS])
        numbers, places = np.unique(np.append(calls, -1), return_inverse=True)
        index = places[:-1].astype(np.int32).reshape(calls.shape)
        self.calls[piece] = numbers.tolist()
        first, end = self.replay.first, self.replay.end
        extents = tuple((first[call] - rows.start, end[call] - rows.start) for call in self.calls[piece][1:])
        number = self.numbers.setdefault((flags.tobytes(), index.tobytes(), extents), len(self.states))
        if number == len(self.states):
            self.states.append((flags, index))
            self.room -= 3 * (flags.nbytes + index.nbytes)
        self.current[piece] = number

    def _write(self, piece: int) -> None:
        """Bring the arrays up to date."""
        if not self.stale[piece]:
            return
        state, rows = self.replay.state, slice(self.first[piece], self.end[piece])
        flags, index = self.states[self.current[piece]]
        for name, column in zip(_FLAGS, flags, strict=True):
            getattr(state, name)[rows] = column
        calls = np.array(self.calls[piece], dtype=np.int32)
        for name, places in zip(_NUMBERS, index, strict=True):
            getattr(state, name)[rows] = calls[places]
        self.stale[piece] = False

    def _write_all(self) -> None:
        for piece in range(len(self.first)):
            self._write(piece)


def _blocks_of(replay: Replay) -> Blocks:
    calls, extents, order = replay.calls, replay.extents, replay.order
    first, end, piece = _pieces(replay)
    root = _roots(calls.parent)[order]
    fresh = np.ones(order.size, dtype=np.bool_)
    fresh[1:] = (root[1:] != root[:-1]) | (piece[1:] != piece[:-1])
    begin = np.flatnonzero(fresh)
    block = np.cumsum(fresh) - 1
    start = np.append(extents.start_pfn, 0)[first][piece]
    calibration = extents.calibration
    flags = np.zeros(order.size, dtype=np.int64)
    for values, bits in (
        (calls.kind[order], 8),
        (replay.leaf[order] + 1, 2),
        (np.array(replay.hosted)[order] + 1, 2),
        *((flag[order], 1) for flag in (calls.failed, replay.not_added, calls.ret_known, replay.huge)),
        (calls.altmap_known[order], 1),
        (calls.altmap[order] != 0, 1),
    ):
        flags = flags << bits | values
    alike = (
        flags,
        extents.low[order] - start,
        extents.high[order] - extents.low[order],
        order - root,
        calls.owner[order] - root,
        # Where sections and leaves of vmemmap are cut, and where the piece ends.
        start % calibration.pages_per_section,
        start * calibration.struct_page_size % PMD_BYTES,
        (end - first)[piece],
    )
    return Blocks(np.append(begin, order.size), _kinds(alike, begin, block), root[begin], piece[begin], first, end)


def _pieces(replay: Replay) -> tuple[I64, I64, I64]:
    """Rows ``[first, end)`` of the pieces of memory that no call reaches beyond, and each call's piece, in order."""
    order = replay.order
    low = np.minimum(replay.extents.first, np.array(replay.window_first))[order]
    high = np.maximum(np.maximum(replay.extents.end, np.array(replay.window_end))[order], low)
    by_low = np.argsort(low, kind="stable")
    reach = np.maximum.accumulate(high[by_low])
    fresh = np.ones(order.size, dtype=np.bool_)
    fresh[1:] = low[by_low][1:] >= reach[:-1]
    begin = np.flatnonzero(fresh)
    piece = np.empty(order.size, dtype=np.int64)
    piece[by_low] = np.cumsum(fresh) - 1
    last = np.append(begin[1:], order.size) - 1
    return low[by_low][begin], reach[last], piece


def _roots(parent: I64) -> I64:
    """For each call, the outermost call that it is part of."""
    root = np.where(parent >= 0, parent, np.arange(parent.size))
    while ((above := root[root]) != root).any():
        root = above
    return root


def _kinds(alike: tuple[I64, ...], begin: I64, block: I64) -> I64:
    """Number the blocks so that those have equal numbers whose calls are equal, one by one, in every column."""
    place = np.arange(block.size) - begin[block]
    mixed: U64 = place.astype(np.uint64)
    for column in alike:
        mixed = (mixed ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    size = np.diff(np.append(begin, block.size))
    digest = np.add.reduceat(mixed, begin) + size.astype(np.uint64)
    _, first, kind = np.unique(digest, return_index=True, return_inverse=True)
    # Equal digests prove nothing: every block is compared with the first one of its number.
    other = np.minimum(begin[first[kind]][block] + place, block.size - 1)
    differs = size[first[kind]][block] != size[block]
    for column in alike:
        differs |= column != column[other]
    strange = np.flatnonzero(np.bincount(block[differs], minlength=begin.size))
    kind[strange] = first.size + np.arange(strange.size)
    return kind

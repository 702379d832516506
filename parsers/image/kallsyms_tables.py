"""Where the kallsyms tables lie in a kernel image that no VMCOREINFO describes.

A kernel image keeps its own symbols (CONFIG_KALLSYMS) between read-only data, without any header.  scripts/kallsyms.c
writes them in one of two orders, both known here:

* until 6.3: offsets, relative_base, num_syms, names, markers, [seqs_of_names], token_table, token_index;
* from 6.4: num_syms, names, markers, token_table, token_index, offsets, [relative_base], [seqs_of_names].

From 7.0 there is no relative_base and each offset counts from its own place.  token_index is the landmark: 256 offsets
of 16 bits into the token table, which ends just before it.  Everything is found by array operations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.mapping import I64, U8

__all__ = ["KallsymsTables", "find_kallsyms"]

_NR_TOKENS = 256
_MAX_TOKEN = 64
_PIECE = 1 << 21
"""Half-words that are searched at a time."""
_PER_MARKER = 256
_MAX_NAME = 512  # KSYM_NAME_LEN
_MAX_SYMBOLS = 1 << 22
_MAX_NAMES = 64 << 20
_LONG = 0x80
_ALIGNMENT = 8
_MAX_OFFSET = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class KallsymsTables:
    """Places of the tables, in bytes from the start of the image."""

    num_syms: int
    names: int
    token_table: int
    token_index: int
    offsets: int
    relative_base: int | None
    """None where each offset counts from its own place."""

    def symbol(self, name: str) -> int | None:
        """The place of the table that VMCOREINFO would call ``kallsyms_…``."""
        value: int | None = getattr(self, name.removeprefix("kallsyms_"), None)
        return value


def find_kallsyms(image: U8) -> KallsymsTables | None:
    """The tables of a flat image (uint8), None where none is recognised."""
    for token_index in _token_indices(image):
        token_table = _token_table(image, token_index)
        if token_table is None:
            continue
        found = _with_names(image, token_table, token_index)
        if found is not None:
            return found
    return None


def _token_indices(image: U8) -> Iterator[int]:
    """Places of 256 half-words that begin at 0 and grow by the length of a token and its end."""
    halves = image[: image.size // 2 * 2].view("<u2")
    for begin in range(0, halves.size, _PIECE):
        first = max(begin - _NR_TOKENS, 0)
        piece = halves[first : begin + _PIECE].astype(np.int32)
        steps = np.diff(piece)
        stops = np.flatnonzero((steps < 2) | (steps > _MAX_TOKEN))
        edges = np.concatenate(([-1], stops, [steps.size]))
        for run in np.flatnonzero(np.diff(edges) >= _NR_TOKENS).tolist():
            start, end = int(edges[run]) + 1, int(edges[run + 1]) + 1
            zeros = start + np.flatnonzero(piece[start : end - _NR_TOKENS + 1] == 0)
            yield from (2 * (first + int(zero)) for zero in zeros.tolist())


def _token_table(image: U8, token_index: int) -> int | None:
    """Where the tokens begin whose offsets stand at ``token_index``: they end just before it, each with a zero."""
    index = image[token_index : token_index + 2 * _NR_TOKENS].view("<u2").astype(np.int64)
    length = int(index[-1])
    lowest = max(token_index - length - _MAX_TOKEN - _ALIGNMENT, 0)
    for start in range((token_index - length - 2) // 4 * 4, lowest - 1, -4):
        last = image[start + length : token_index]
        ends = np.flatnonzero(last == 0)
        if not ends.size or ends[0] == 0 or last[ends[0] :].any() or last.size - ends[0] > _ALIGNMENT:
            continue
        if not image[start + index[1:] - 1].any() and (start == 0 or image[start - 1] == 0 or index[1] > 1):
            return start
    return None


def _with_names(image: U8, token_table: int, token_index: int) -> KallsymsTables | None:
    """The tables around the tokens."""
    for markers, count in _markers(image, token_table):
        offset_of = image[markers : markers + 4 * count].view("<u4").astype(np.int64)
        for num_syms, names, symbols in _starts(image, markers, offset_of):
            if not _fits(image, names, offset_of, symbols, markers):
                continue
            place = _offsets(image, num_syms, token_index, symbols)
            if place is not None:
                return KallsymsTables(
                    num_syms=num_syms,
                    names=names,
                    token_table=token_table,
                    token_index=token_index,
                    offsets=place[0],
                    relative_base=place[1],
                )
    return None


def _markers(image: U8, token_table: int) -> Iterator[tuple[int, int]]:
    """Places and lengths of what can be the table of markers, nearest to the tokens first.

    Markers are 32-bit offsets of every 256th name, from 0; in stable kernels of 6.1 the order of the names, three
    bytes a symbol, stands between them and the tokens.
    """
    first = max(token_table - 4 * _MAX_SYMBOLS, 0) // 4 * 4
    words = image[first : token_table // 4 * 4].view("<u4").astype(np.int64)
    steps = np.diff(words)
    stops = np.flatnonzero((steps < _PER_MARKER * 2) | (steps > _PER_MARKER * _MAX_NAME))
    edges = np.concatenate(([-1], stops, [steps.size]))
    runs = np.flatnonzero(np.diff(edges) >= 16)
    for run in runs[::-1].tolist():
        start, end = int(edges[run]) + 1, int(edges[run + 1]) + 1
        if words[start] == 0:
            yield first + 4 * start, end - start


def _starts(image: U8, markers: int, offset_of: I64) -> Iterator[tuple[int, int, int]]:
    """Places of the number of symbols and of the first name, and that number: it fits the number of markers."""
    last = int(offset_of[-1])
    lowest = max(markers - last - _PER_MARKER * _MAX_NAME - 2 * _ALIGNMENT, 0) // 4 * 4
    words = image[lowest : max(markers - last, 0) // 4 * 4].view("<u4").astype(np.int64)
    fits = np.flatnonzero(-(-words // _PER_MARKER) == offset_of.size)
    for at in fits.tolist():
        place = lowest + 4 * at
        for names in (place + 4, place + 8):
            yield place, names, int(words[at])


def _fits(image: U8, names: int, offset_of: I64, symbols: int, markers: int) -> bool:
    """Whether names that begin at ``names`` pass through every marker and end before the table of markers.

    All blocks of 256 names are followed at once.
    """
    at = names + offset_of
    left = np.minimum(symbols - np.arange(offset_of.size) * _PER_MARKER, _PER_MARKER)
    for step in range(_PER_MARKER):
        inside = step < left
        if (at[inside] + 1 >= markers).any():
            return False
        here = np.minimum(at, markers - 2)
        low, high = image[here].astype(np.int64), image[here + 1].astype(np.int64)
        length = np.where(low >= _LONG, (low & (_LONG - 1) | high << 7) + 2, low + 1)
        at = np.where(inside, at + length, at)
    follows = np.append(names + offset_of[1:], at[-1])
    return bool((at == follows).all() and 0 <= markers - int(at[-1]) < 2 * _ALIGNMENT)


def _offsets(image: U8, num_syms: int, token_index: int, symbols: int) -> tuple[int, int | None] | None:
    """Places of the offsets and of relative_base: the array that ascends, as kallsyms are sorted by address."""
    size = 4 * symbols
    before = (num_syms - 8 - size) // _ALIGNMENT * _ALIGNMENT
    after = token_index + 2 * _NR_TOKENS
    for place, base in ((before, num_syms - 8), (after, -(-(after + size) // _ALIGNMENT) * _ALIGNMENT)):
        if place < 0 or place % 4 or place + size > image.size:
            continue
        words = image[place : place + size].view("<u4")
        if bool((words[1:] >= words[:-1]).all()) and 0 < words[-1] < _MAX_OFFSET:
            return place, base
        own = words.view("<i4").astype(np.int64) + np.arange(symbols) * 4
        if bool((own[1:] >= own[:-1]).all()):
            return place, None
    return None

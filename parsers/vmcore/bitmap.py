"""The bitmap of a kdump: which page frames it holds, and how many are before each.

A terabyte of memory has 32 MiB of bitmap, and a header can claim any size: set bits are counted once in chunks, and of
the bitmap itself only what is asked for is read again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from parsers.errors import FormatError
from parsers.mapping import U64, Bool

__all__ = ["Bitmap"]

_CHUNK_BYTES = 4096
_WORDS = _CHUNK_BYTES // 8
_BITS = np.uint64(8 * _CHUNK_BYTES)
_STEP = 1 << 20  # bytes that are counted at once
_CACHED = 1024
_ONE = np.uint64(1)


class Bitmap:
    """``size`` bytes at ``offset`` of what ``read`` reads; FormatError where they are not there."""

    def __init__(self, read: Callable[[int, int], bytes], offset: int, size: int, path: str) -> None:
        counts = []
        for at in range(offset, offset + size, _STEP):
            data = read(at, min(_STEP, offset + size - at))
            if len(data) < min(_STEP, offset + size - at):
                raise FormatError("truncated in the page bitmap", path=path, offset=at + len(data))
            words = np.frombuffer(data.ljust(-(-len(data) // _CHUNK_BYTES) * _CHUNK_BYTES, b"\0"), dtype="<u8")
            counts.append(_ones(words).reshape(-1, _WORDS).sum(axis=1, dtype=np.uint64))
        held = np.concatenate(counts) if counts else np.empty(0, dtype=np.uint64)
        self._before = np.cumsum(held, dtype=np.uint64) - held
        self._read, self._offset, self._size, self._path = read, offset, size, path
        self.bits = 8 * size
        self._chunk = functools.lru_cache(maxsize=_CACHED)(self._read_chunk)

    def _read_chunk(self, number: int) -> U64:
        """Words of a chunk; FormatError where the file was cut since its bits were counted."""
        at = number * _CHUNK_BYTES
        size = min(_CHUNK_BYTES, self._size - at)
        data = self._read(self._offset + at, size)
        if len(data) < size:
            raise FormatError("cut in the page bitmap while it was read", path=self._path, offset=self._offset + at)
        return np.frombuffer(data.ljust(_CHUNK_BYTES, b"\0"), dtype="<u8").astype(np.uint64)

    def look(self, pfns: U64) -> tuple[Bool, U64]:
        """Whether each of ``pfns``, below ``bits``, is set, and the number of set bits before it."""
        if not pfns.size:
            return np.zeros(0, dtype=np.bool_), pfns
        chunks, where = np.unique(pfns // _BITS, return_inverse=True)
        words = np.stack([self._chunk(number) for number in chunks.tolist()])
        ones = _ones(words)
        before = np.cumsum(ones, axis=1, dtype=np.uint64) - ones
        column = ((pfns % _BITS) >> np.uint64(6)).astype(np.intp)
        word, bit = words[where, column], pfns & np.uint64(63)
        rank = self._before[chunks][where] + before[where, column] + _ones(word & ((_ONE << bit) - _ONE))
        return (word >> bit & _ONE).astype(np.bool_), rank.astype(np.uint64)


_BYTE_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1).astype(np.uint8)


def _ones(words: U64) -> U64:
    """Number of set bits of each word, uint64."""
    if hasattr(np, "bitwise_count"):  # since NumPy 2
        return np.bitwise_count(words).astype(np.uint64)
    counts: U64 = _BYTE_ONES[words.view(np.uint8).reshape(*words.shape, 8)].sum(axis=-1, dtype=np.uint64)
    return counts

"""Rows in the kernel's own columns, many at a time.

``0x%016lx-0x%016lx   %9lu%c``: two addresses, three blanks, the size in nine columns and its unit.
Eight characters at a time are taken from the text as one integer, and hexadecimal and decimal digits
are converted and checked inside of it.  A row that departs from the columns in any way is not decoded here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from parsers.mapping import I64, U8, U64, Bool
from parsers.ptdump.tails import TAIL_BYTES
from parsers.records import dataclass

__all__ = ["ADDRESS_COLUMNS", "SIZE_UNITS", "WINDOW", "Columns", "decode", "starts_with_0x"]

SIZE_UNITS = b"BKMGTPE"
"""Unit number n is 1024**n; mainline prints K to E."""

ADDRESS_COLUMNS = 18
"""Width of ``0x%016lx``: the dash follows it."""

_TAIL = 50
WINDOW = _TAIL + TAIL_BYTES + 8
"""Bytes that must be readable from the start of a row on."""

_NO_UNIT = 64
_UNIT_SHIFTS = np.full(256, _NO_UNIT, np.uint64)
for _number, _unit in enumerate(SIZE_UNITS):
    _UNIT_SHIFTS[_unit] = 10 * _number


def _each(byte: int) -> np.uint64:
    """``byte`` in every byte of a word."""
    return np.uint64(byte * 0x0101010101010101)


def _text(characters: bytes) -> int:
    return int.from_bytes(characters, "little")


_ONES, _LOW, _HIGH, _CARRY = _each(0x01), _each(0x0F), _each(0xF0), _each(0x10)
_PAIRS, _QUADS, _HALF = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0000FFFF0000FFFF), np.uint64(0xFFFFFFFF)
_BLANKS = np.uint64(_text(b"\0       "))
_FIVE_BLANKS = np.uint64(_text(b"     "))
_ZERO_X = np.uint16(_text(b"0x"))
_DASH_ZERO_X = np.uint64(_text(b"-0x"))
_4, _6, _8, _9, _10, _16, _24, _32 = map(np.uint64, (4, 6, 8, 9, 10, 16, 24, 32))
_40, _56, _63, _64, _100, _10000 = map(np.uint64, (40, 56, 63, 64, 100, 10000))
_39, _48, _255, _THREE_BYTES = map(np.uint64, (0x27, 0x30, 0xFF, 0xFFFFFF))


@dataclass(frozen=True, slots=True)
class Columns:
    """Decoded rows: ``kept`` numbers the candidates that are regular, the other arrays run parallel to it."""

    kept: I64
    start: U64
    size: U64
    inclusive: Bool
    """The size says that the printed end is the last byte, not the one after it."""
    tails: U64
    """Bytes right of the unit and what follows them, shape (rows, TAIL_BYTES / 8)."""
    tail_lengths: I64
    misfits: I64
    """Numbers of the candidates that are regular but for a size that is not what lies between the addresses."""


def _unaligned(text: U8, dtype: str) -> NDArray[Any]:
    """Element ``i`` is what ``dtype`` reads at byte ``i`` of ``text``; nothing is copied."""
    size = np.dtype(dtype).itemsize
    return np.ndarray((text.size - size + 1,), dtype, text, strides=(1,))


def _words_at(text: U8, at: I64, words: int) -> U64:
    """Eight bytes at a time from each offset on, shape (offsets, words): one gather is as fast as one of a word."""
    found: U64 = _unaligned(text, f"V{8 * words}")[at].view("<u8").reshape(-1, words)
    return found


def starts_with_0x(text: U8, at: I64) -> Bool:
    """Whether ``0x`` is at each offset ``at``."""
    found: Bool = _unaligned(text, "<u2")[at] == _ZERO_X
    return found


def decode(text: U8, at: I64, stop: I64) -> Columns:
    """Rows whose ``0x`` is at the offsets ``at`` and whose lines end at ``stop``.

    ``text`` must reach ``WINDOW`` bytes beyond every ``at``.
    """
    lengths = stop - at - _TAIL
    kept = np.flatnonzero(lengths.view(np.uint64) <= TAIL_BYTES)  # a negative length is a large number
    at, lengths = _chosen(kept, at, lengths)
    words = _words_at(text, at + 2, 6)
    middle = words[:, 2]  # -0x and five digits
    digits = np.empty((4, at.size), np.uint64)
    digits[0], digits[1] = words[:, 0], words[:, 1]
    np.bitwise_or(middle >> _24, words[:, 3] << _40, out=digits[2])
    np.bitwise_or(words[:, 3] >> _24, words[:, 4] << _40, out=digits[3])
    values, damage = _hexadecimal(digits)
    start = (values[0] << _32) | values[1]
    end = (values[2] << _32) | values[3]
    size, regular = _size(words[:, 4], words[:, 5])
    regular &= (middle & _THREE_BYTES) == _DASH_ZERO_X
    regular &= damage == 0
    span = end - start
    inclusive = size == span + np.uint64(1)
    fits = (inclusive | (size == span)) & (start + (size - np.uint64(1)) >= start)
    misfits = kept[regular & ~fits]
    chosen = np.flatnonzero(regular & fits)
    kept, at, lengths, start, size, inclusive = _chosen(chosen, kept, at, lengths, start, size, inclusive)
    return Columns(kept, start, size, inclusive, _words_at(text, at + _TAIL, TAIL_BYTES // 8), lengths, misfits)


def _chosen(index: I64, *arrays: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Elements ``index``, in ascending order, of each array; the arrays themselves if that is all of them."""
    return arrays if index.size == arrays[0].size else tuple(array[index] for array in arrays)


def _hexadecimal(digits: U64) -> tuple[U64, U64]:
    """Values of eight lower-case digits a word, and for each column a mask that is not 0 if one is not a digit."""
    ninefold = digits >> _6
    ninefold &= _ONES
    ninefold *= _9
    value = digits & _LOW
    value += ninefold
    damage = value + _ONES * _6
    damage >>= _4
    damage &= _ONES  # ten or more
    damage *= _39
    damage += value
    damage += _ONES * _48
    damage ^= digits
    damage |= value & _HIGH
    for shift, mask in ((_4, _PAIRS), (_8, _QUADS), (_16, _HALF)):
        right = value >> (shift + shift)
        value <<= shift
        value |= right
        value &= mask
    return value, np.bitwise_or.reduce(damage, axis=0)


def _size(left: U64, right: U64) -> tuple[U64, Bool]:
    """Bytes that the size stands for, and whether it is in order: a number above 0 whose bytes fit in 64 bits.

    ``left`` ends with the three blanks and the first two size columns, ``right`` has the other seven and the unit.
    """
    shift = _UNIT_SHIFTS.take(right >> _56, mode="clip")
    characters = right << _8
    digit = (characters >> _4) & _ONES
    value = characters & _LOW
    blank = ~(digit * _255)
    damage = (characters & _HIGH) ^ _BLANKS ^ (digit * _16)
    damage |= value & blank
    damage |= (value + _ONES * _6) & _CARRY
    damage |= blank & (blank + np.uint64(1))  # blanks come first
    damage |= (left >> _24) ^ _FIVE_BLANKS
    damage |= blank >> _56
    value = (value * _10 + (value >> _8)) & _PAIRS
    value = (value * _100 + (value >> _16)) & _QUADS
    value = (value * _10000 + (value >> _32)) & _HALF
    size = value << np.minimum(shift, _63)
    return size, (damage == 0) & (shift < _64) & (size >> np.minimum(shift, _63) == value) & (value > 0)

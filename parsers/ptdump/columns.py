"""Rows in the kernel's own columns, many at a time.

``0x%016lx-0x%016lx   %9lu%c``: two addresses, three blanks, the size in nine columns and its unit.
Eight characters at a time are taken from the text as one integer, and hexadecimal and decimal digits
are converted and checked inside of it.  A row that departs from the columns in any way is not decoded here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parsers.mapping import I64, U8, U64, Bool
from parsers.ptdump.tails import TAIL_BYTES

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
_DASH_ZERO_X = np.uint32(_text(b"-0x"))
_4, _6, _8, _9, _10, _16, _24, _32, _56, _64 = map(np.uint64, (4, 6, 8, 9, 10, 16, 24, 32, 56, 64))
_39, _48, _100, _10000, _255 = map(np.uint64, (0x27, 0x30, 100, 10000, 0xFF))


@dataclass(frozen=True, slots=True)
class Columns:
    """Decoded rows: ``kept`` numbers the candidates that are regular, the other arrays run parallel to it."""

    kept: I64
    start: U64
    size: U64
    inclusive: Bool
    """The size says that the printed end is the last byte, not the one after it."""
    tails: U64
    """Bytes from the unit on, shape (rows, TAIL_BYTES / 8)."""
    tail_lengths: I64
    misfits: I64
    """Numbers of the candidates that are regular but for a size that is not what lies between the addresses."""


def _unaligned(text: U8, dtype: str) -> NDArray[Any]:
    """Element ``i`` is what ``dtype`` reads at byte ``i`` of ``text``; nothing is copied."""
    size = np.dtype(dtype).itemsize
    return np.ndarray((text.size - size + 1,), dtype, text, strides=(1,))


def starts_with_0x(text: U8, at: I64) -> Bool:
    """Whether ``0x`` is at each offset ``at``."""
    found: Bool = _unaligned(text, "<u2")[at] == _ZERO_X
    return found


def decode(text: U8, at: I64, stop: I64) -> Columns:
    """Rows whose ``0x`` is at the offsets ``at`` and whose lines end at ``stop``.

    ``text`` must reach ``WINDOW`` bytes beyond every ``at``.
    """
    lengths = stop - at - _TAIL
    kept = np.flatnonzero((lengths >= 0) & (lengths <= TAIL_BYTES) & starts_with_0x(text, at))
    at, lengths = at[kept], lengths[kept]
    words = _unaligned(text, "<u8")
    digits = np.empty((4, at.size), np.uint64)
    for row, column in enumerate((2, 10, 21, 29)):
        digits[row] = words[at + column]
    values, damage = _hexadecimal(digits)
    start = (values[0] << _32) | values[1]
    end = (values[2] << _32) | values[3]
    number, shift, size_fits = _size(words[at + 34], words[at + 42])
    regular = (_unaligned(text, "<u4")[at + 17] >> np.uint32(8)) == _DASH_ZERO_X
    regular &= (damage[0] | damage[1] | damage[2] | damage[3]) == 0
    regular &= size_fits
    exclusive = _is_size(end - start, number, shift)
    inclusive = _is_size(end - start + np.uint64(1), number, shift)
    size = (end - start) + inclusive
    fits = (exclusive | inclusive) & (start + (size - np.uint64(1)) >= start)
    regular_but_size = regular & ~fits
    regular &= fits
    chosen = np.flatnonzero(regular)
    tails: U64 = _unaligned(text, f"V{TAIL_BYTES}")[at[chosen] + _TAIL].view("<u8").reshape(-1, TAIL_BYTES // 8)
    return Columns(
        kept[chosen], start[chosen], size[chosen], inclusive[chosen], tails, lengths[chosen], kept[regular_but_size]
    )


def _hexadecimal(digits: U64) -> tuple[U64, U64]:
    """Values of eight lower-case digits a word, and a non-zero error mask for invalid digits."""
    letter = (digits >> _6) & _ONES
    value = (digits & _LOW) + letter * _9
    ten_or_more = ((value + _ONES * _6) >> _4) & _ONES
    damage = (value & _HIGH) | ((value + _ONES * _48 + ten_or_more * _39) ^ digits)
    value = ((value << _4) | (value >> _8)) & _PAIRS
    value = ((value << _8) | (value >> _16)) & _QUADS
    value = ((value << _16) | (value >> _32)) & _HALF
    return value, damage


def _size(left: U64, right: U64) -> tuple[U64, U64, Bool]:
    """Number and binary shift of the size, and whether it is in order.

    ``left`` ends with the three blanks and the first two size columns, ``right`` has the other seven and the unit.
    """
    shift = _UNIT_SHIFTS[(right >> _56).astype(np.intp)]
    characters = right << _8
    digit = (characters >> _4) & _ONES
    value = characters & _LOW
    blank = ~(digit * _255)
    damage = (characters & _HIGH) ^ _BLANKS ^ (digit * _16)
    damage |= value & blank
    damage |= (value + _ONES * _6) & _CARRY
    damage |= blank & (blank + np.uint64(1))  # blanks come first
    fits = (damage == 0) & (blank >> _56 == 0) & ((left >> _24) == _FIVE_BLANKS) & (shift < _64)
    value = (value * _10 + (value >> _8)) & _PAIRS
    value = (value * _100 + (value >> _16)) & _QUADS
    value = (value * _10000 + (value >> _32)) & _HALF
    return value, shift, fits


def _is_size(delta: U64, number: U64, shift: U64) -> Bool:
    """Whether ``delta`` is exactly ``number`` units, and not 0."""
    shift = np.minimum(shift, np.uint64(63))
    fits: Bool = (delta >> shift == number) & (number << shift == delta) & (number > 0)
    return fits

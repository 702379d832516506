"""Numbers out of columns of text, all rows at once.

The kernel prints ``0x1f``, ``31``, ``-12`` and bare hexadecimal addresses in one column or another; these
functions take fixed-width byte strings (dtype ``S``) and say which rows were numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from parsers.mapping import U64, Bool

__all__ = ["ByteStrings", "byte_strings", "parse_decimal", "parse_hex", "parse_integer"]

ByteStrings = NDArray[np.bytes_]

_BAD = np.uint8(255)
_DIGIT = np.full(256, _BAD, dtype=np.uint8)
_DIGIT[ord("0") : ord("9") + 1] = np.arange(10)
_DIGIT[ord("a") : ord("f") + 1] = np.arange(10, 16)
_DIGIT[ord("A") : ord("F") + 1] = np.arange(10, 16)
_MAX_WIDTH = 24


def byte_strings(column: Sequence[bytes]) -> ByteStrings:
    """``column`` as an array no wider than a number may be, and one more: a long row costs nothing to the others."""
    return np.array(column, dtype=f"S{_MAX_WIDTH + 1}")


def _matrix(strings: ByteStrings) -> NDArray[np.uint8]:
    """Characters, one row a string, at most `_MAX_WIDTH` columns."""
    width = max(1, strings.dtype.itemsize)
    matrix = np.ascontiguousarray(strings).view(np.uint8).reshape(strings.size, width)
    return matrix[:, :_MAX_WIDTH]


def _accumulate(matrix: NDArray[np.uint8], skip: NDArray[np.intp], base: Bool, too_long: Bool) -> tuple[U64, Bool]:
    """Value of the digits after ``skip`` characters of each row; ``base`` says which rows are hexadecimal."""
    rows, width = matrix.shape
    value = np.zeros(rows, dtype=np.uint64)
    lengths = np.where(matrix != 0, np.arange(1, width + 1), 0).max(axis=1, initial=0)
    good = ~too_long & (lengths > skip)
    radix = np.where(base, 16, 10).astype(np.uint64)
    for column in range(int(lengths.max(initial=0))):
        used = (column >= skip) & (column < lengths)
        digit = _DIGIT[matrix[:, column]]
        good &= ~used | (digit < radix)
        value = np.where(used, value * radix + digit.astype(np.uint64), value)
    digits = lengths - skip
    good &= digits <= np.where(base, 16, 20)
    return np.where(good, value, np.uint64(0)), good


def _too_long(strings: ByteStrings) -> Bool:
    if strings.dtype.itemsize <= _MAX_WIDTH:
        return np.zeros(strings.size, dtype=np.bool_)
    return np.asarray(np.char.str_len(strings) > _MAX_WIDTH, dtype=np.bool_)


def parse_integer(strings: ByteStrings) -> tuple[U64, Bool]:
    """(values modulo 2**64, is a number) of ``0x…``, decimal and negative decimal rows."""
    matrix = _matrix(strings)
    first = matrix[:, 0]
    second = matrix[:, 1] if matrix.shape[1] > 1 else np.zeros_like(first)
    negative = first == ord("-")
    hexadecimal = (first == ord("0")) & ((second | 0x20) == ord("x"))
    skip = np.where(hexadecimal, 2, np.where(negative, 1, 0))
    value, good = _accumulate(matrix, skip, hexadecimal, _too_long(strings))
    return np.where(negative, np.uint64(0) - value, value), good


def parse_decimal(strings: ByteStrings) -> tuple[U64, Bool]:
    """(values, is a number) of unsigned decimal rows."""
    none = np.zeros(strings.size, dtype=np.intp)
    return _accumulate(_matrix(strings), none, none > 0, _too_long(strings))


def parse_hex(strings: ByteStrings) -> tuple[U64, Bool]:
    """(values, is a number) of hexadecimal rows without a prefix."""
    none = np.zeros(strings.size, dtype=np.intp)
    return _accumulate(_matrix(strings), none, none == 0, _too_long(strings))

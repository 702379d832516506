"""A mapping written as the kernel prints it, to be compared with a captured dump row for row.

Grammar from arch/arm64/mm/ptdump.c, note_page() and dump_prot(), 4.14 to 6.12.
"""

from __future__ import annotations

from enum import Enum

import numpy as np

from parsers.arm64 import ATTRIBUTE_FIELDS, MEMORY_TYPE_WORDS, PMD, PUD, Attr, LevelWord, MemType, granule
from parsers.mapping import I64, U8, U64, Mapping
from parsers.ptdump.columns import SIZE_UNITS

__all__ = ["AttributeColumns", "render"]


class AttributeColumns(Enum):
    """Which attribute columns a kernel prints, and whether a clear UXN takes room; by the release that began it."""

    LINUX_4_10 = "no GP, nothing for a clear UXN"
    LINUX_5_5 = "no GP"
    LINUX_5_8 = "GP before the memory type"


_TYPE_NAMES = {memtype: name for name, memtype in MEMORY_TYPE_WORDS.items()}
_WORDS = {level: word.name for level, word in ((3, LevelWord.PTE), (PMD, LevelWord.PMD), (PUD, LevelWord.PUD))}
_WORDS[0] = LevelWord.P4D.name
_HEAD = b"0x0000000000000000-0x0000000000000000   "
_SIZE_WIDTH = 9
_DIGITS = 20
_HEX_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)
_NIBBLES = np.arange(60, -1, -4, dtype=np.uint64)


def render(
    mapping: Mapping, va_bits: int, page_size: int, columns: AttributeColumns = AttributeColumns.LINUX_5_8
) -> bytes:
    """The text of ``mapping`` as /sys/kernel/debug/kernel_page_tables has it.

    A row of attributes 0 is printed as a hole; a mapping without such rows reads like a dump of 5.5 or older.
    ValueError where Arm has no such page size.
    """
    first = granule(page_size).first_level(va_bits)
    kinds = (mapping.attrs.astype(np.uint32) << 8) | (mapping.memtype << 4) | (mapping.level + 8).astype(np.uint32)
    kind_values, kind = np.unique(kinds, return_inverse=True)
    tails = [_tail(value, first, columns) for value in kind_values.tolist()]
    numbers, units = _sizes(mapping.size)
    digits, widths = _decimal(numbers)
    markers = [(marker.row, f"---[ {marker.name} ]---\n".encode()) for marker in mapping.markers]
    lengths = len(_HEAD) + widths + 1 + np.array([len(tail) for tail in tails], np.int64)[kind]
    text, at = _lay_out(lengths, markers)
    _put(text, at, _heads(mapping.start, mapping.start + mapping.size))
    at = at + len(_HEAD)
    for width in np.unique(widths).tolist():
        rows = widths == width
        _put(text, at[rows], np.ascontiguousarray(digits[rows, _DIGITS - width :]))
    at += widths
    text[at] = np.frombuffer(SIZE_UNITS, np.uint8)[units]
    for number, tail in enumerate(tails):
        rows_at = at[kind == number] + 1
        _put(text, rows_at, np.broadcast_to(np.frombuffer(tail, np.uint8), (rows_at.size, len(tail))))
    return text.tobytes()


def _tail(kind: int, first: int, columns: AttributeColumns) -> bytes:
    """Everything right of the size, with the newline, for one combination of level, type and attributes."""
    attrs, memtype, level = Attr(kind >> 8), MemType(kind >> 4 & 0xF), (kind & 0xF) - 8
    # The first level is a PGD; only a block of a two-level table is called PMD (names fixed since 6.12).
    folded = level <= first and not (level == PMD and attrs)
    text = f" {LevelWord.PGD.name if folded else _WORDS[level]}"
    if attrs:
        for field in ATTRIBUTE_FIELDS:
            is_set = bool(attrs & field.attr)
            if field.attr is Attr.GP and columns is not AttributeColumns.LINUX_5_8:
                continue
            if field.attr is Attr.UXN and not is_set and columns is AttributeColumns.LINUX_4_10:
                continue
            text += f" {field.set_word if is_set else field.clear_word:{field.width}}"
        text += f" {_TYPE_NAMES[memtype]}" if memtype in _TYPE_NAMES else ""
    return f"{text}\n".encode()


def _lay_out(lengths: I64, markers: list[tuple[int, bytes]]) -> tuple[U8, I64]:
    """The text with its markers in place and room for rows of ``lengths`` bytes, and the offset of each row."""
    room = np.zeros(lengths.size + 1, np.int64)
    room[1:] = lengths
    for row, line in markers:
        room[row] += len(line)
    ends = np.cumsum(room)
    text = np.empty(int(ends[-1]), np.uint8)
    used: dict[int, int] = {}
    for row, line in reversed(markers):
        stop = int(ends[row]) - used.get(row, 0)
        text[stop - len(line) : stop] = np.frombuffer(line, np.uint8)
        used[row] = used.get(row, 0) + len(line)
    return text, ends[:-1]


def _put(text: U8, at: I64, rows: U8) -> None:
    """Copy each row of the matrix ``rows`` to its offset in ``text``."""
    width = rows.shape[1]
    if at.size:
        places = np.ndarray((text.size - width + 1,), f"V{width}", text, strides=(1,))
        places[at] = np.ascontiguousarray(rows).view(f"V{width}")[:, 0]


def _heads(start: U64, end: U64) -> U8:
    heads = np.tile(np.frombuffer(_HEAD, np.uint8), (start.size, 1))
    for column, values in ((2, start), (21, end)):
        nibbles = (values[:, None] >> _NIBBLES).astype(np.uint8) & 0xF
        heads[:, column : column + 16] = _HEX_DIGITS[nibbles]
    return heads


def _sizes(size: U64) -> tuple[U64, U8]:
    """Numbers and unit indices: K, and the next unit as long as 1024 divides the number."""
    numbers = size >> np.uint64(10)
    units = np.ones(size.size, np.uint8)
    for _ in SIZE_UNITS[2:]:
        divides = (numbers & np.uint64(1023)) == 0
        numbers = np.where(divides, numbers >> np.uint64(10), numbers)
        units += divides
    return numbers, units


def _decimal(numbers: U64) -> tuple[U8, I64]:
    """Right-aligned digits in 20 columns filled with blanks, and the width printed: 9, or more where needed."""
    digits = np.full((numbers.size, _DIGITS), ord(" "), np.uint8)
    widths = np.full(numbers.size, _SIZE_WIDTH, np.int64)
    rest = numbers
    for column in range(_DIGITS):
        left = rest > 0 if column else np.ones(numbers.size, np.bool_)
        if not left.any():
            break
        rest, digit = np.divmod(rest, np.uint64(10))
        digits[left, _DIGITS - 1 - column] = digit[left] + ord("0")
        widths[left] = max(_SIZE_WIDTH, column + 1)
    return digits, widths

"""What follows the size in a row: level word, attribute columns, memory type.

A dump of a million rows has a handful of different tails, so each is read once, by words and not by
columns (the columns moved: UXN takes no room when clear up to 5.4, GP came with 5.8), and rows
carry its number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from parsers.arm64 import ATTRIBUTE_FIELDS, LEVEL_WORDS, MEMORY_TYPE_WORDS, Attr, LevelWord, MemType
from parsers.mapping import I64, U16, U64, Bool
from parsers.records import dataclass

__all__ = ["TAIL_BYTES", "Tail", "Tails", "read_tail"]

TAIL_BYTES = 72
"""Longest tail that is compared in bulk; the longest that mainline prints has 59 bytes, a vendor's more."""

_WORDS_PER_TAIL = TAIL_BYTES // 8
_MAX_TAILS = 4096
_MAX_WORD = 40

_LEVELS = {name.encode(): LevelWord(number) for number, name in enumerate(LEVEL_WORDS) if name}
_NUMERIC_LEVELS = frozenset(b"%d" % level for level in range(5))
_MEMORY_TYPES = {name.encode(): memtype for name, memtype in MEMORY_TYPE_WORDS.items()}
_SETTING = {field.set_word.encode(): field.attr for field in ATTRIBUTE_FIELDS if field.set_word}
_CLEARING = {field.clear_word.encode(): field.attr for field in ATTRIBUTE_FIELDS if field.clear_word}

# Columns in which one word or the other is always printed; a row without them was cut.
_TWO_WORDS = tuple(
    (field.set_word.encode(), field.clear_word.encode())
    for field in ATTRIBUTE_FIELDS
    if field.set_word and field.clear_word
)

_NOTHING = Attr(0)

# The all-zero descriptor put through the attribute printer, as a patched 6.9 does: no entry at all.
_ZERO_DESCRIPTOR = Attr.PRESENT | Attr.BLOCK

# With a GP column (since 5.8) the memory type starts 38 characters after the level word; such kernels print holes.
_TYPE_COLUMN_WITH_GP = 38


@dataclass(frozen=True, slots=True)
class Tail:
    """One kind of tail.  ``fault`` says why rows with it cannot be used; ``table`` rows describe no leaf."""

    word: LevelWord = LevelWord.NONE
    attrs: Attr = _NOTHING
    memtype: MemType = MemType.UNKNOWN
    unknown: tuple[str, ...] = ()
    fault: str = ""
    table: bool = False
    prints_holes: bool = False


def read_tail(text: bytes) -> Tail:
    """The meaning of ``text``, everything right of the size."""
    words = text.split()
    level = _LEVELS.get(words[0], LevelWord.NONE) if words else LevelWord.NONE
    names = words[1:] if level is not LevelWord.NONE else words
    if level is not LevelWord.NONE and (not names or names[0].endswith(b":")):
        return Tail(word=level, unknown=tuple(_readable(name) for name in names[:1]), prints_holes=True)
    if not names:
        return Tail(fault="neither a level nor attributes")
    if level is LevelWord.NONE and names[0] in _NUMERIC_LEVELS:
        return Tail(fault="a numeric level, as stage-2 tables are printed")
    if b"TBL" in names:
        return Tail(word=level, table=True)
    return _read_attributes(level, names, text)


def _read_attributes(level: LevelWord, names: list[bytes], text: bytes) -> Tail:
    attrs = Attr.PRESENT | Attr.VALID
    memtype = MemType.UNKNOWN
    unknown: list[str] = []
    type_column = 0
    for name in names:
        if name in _SETTING:
            attrs |= _SETTING[name]
        elif name in _CLEARING:
            attrs &= ~_CLEARING[name]
        elif name in _MEMORY_TYPES:
            memtype = _MEMORY_TYPES[name]
            type_column = text.index(name) - (text.index(LEVEL_WORDS[level].encode()) + 3) if level else 0
        elif len(name) > _MAX_WORD or b"0x" in name:
            return Tail(fault=f"{_readable(name)!r} among the attributes")
        else:
            unknown.append(_readable(name))
            if name.endswith(b":"):  # "caller: symbol": the word says what kind, its value is not an attribute
                break
    fault = _attribute_fault(names)
    if not fault and not memtype and not attrs & (Attr.UXN | Attr.GP):
        # A type without a name is legitimate and very rare; a row that ends before UXN says too little to be believed.
        fault = "the attributes end before the memory type (a cut or wrapped line)"
    if fault:
        return Tail(fault=fault)
    prints_holes = type_column >= _TYPE_COLUMN_WITH_GP
    if attrs == _ZERO_DESCRIPTOR:
        return Tail(word=level, unknown=tuple(unknown), prints_holes=True)
    return Tail(level, attrs, memtype, tuple(unknown), prints_holes=prints_holes)


def _attribute_fault(names: list[bytes]) -> str:
    for set_word, clear_word in _TWO_WORDS:
        if (set_word in names) == (clear_word in names):
            count = "both" if set_word in names else "neither"
            return f"{count} of {set_word.decode()} and {clear_word.decode()} among the attributes"
    known = [name for name in names if name in _SETTING or name in _CLEARING or name in _MEMORY_TYPES]
    if len(known) != len(set(known)):
        return "an attribute is printed twice"
    return ""


def _readable(name: bytes) -> str:
    return name[:_MAX_WORD].decode("ascii", "backslashreplace")


_ROW = f"V{TAIL_BYTES}"


def _tail_masks() -> NDArray[Any]:
    """Element ``n`` keeps the first ``n`` bytes of a tail."""
    keep = np.arange(TAIL_BYTES) < np.arange(TAIL_BYTES + 1)[:, None]
    return np.where(keep, np.uint8(0xFF), np.uint8(0)).view(_ROW)[:, 0]


_MASKS = _tail_masks()
_MULTIPLIERS: U64 = np.cumprod(np.full(_WORDS_PER_TAIL, 0x9E3779B97F4A7C15, np.uint64), dtype=np.uint64)
"""Powers of an odd number without a pattern, 2**64 divided by the golden ratio."""


class Tails:
    """The different tails of one text, numbered in order of appearance; ``kinds`` holds their meanings."""

    TOO_MANY = 0
    """Number of the tail used for all beyond the limit: no dump has thousands."""

    def __init__(self) -> None:
        self.kinds = [Tail(fault="too many different attribute columns in one text")]
        self._numbers: dict[bytes, int] = {}
        self._hashes = np.zeros(0, np.uint64)
        """In ascending order, parallel to the next two."""
        self._rows = np.zeros(0, _ROW)
        self._number_of = np.zeros(0, np.uint16)

    def __len__(self) -> int:
        return len(self.kinds)

    def __contains__(self, text: bytes) -> bool:
        return text in self._numbers

    def number(self, text: bytes) -> int:
        """The number of one tail."""
        number = self._numbers.get(text)
        if number is None:
            if len(self.kinds) > _MAX_TAILS:
                return self.TOO_MANY
            number = self._numbers[text] = len(self.kinds)
            self.kinds.append(read_tail(text))
        return number

    def numbers(self, tails: U64, lengths: I64) -> U16:
        """Numbers of many tails: ``tails`` (n, TAIL_BYTES / 8) holds their bytes and what follows, to be masked."""
        tails &= _as_words(_MASKS.take(lengths, mode="clip"))
        hashes = tails @ _MULTIPLIERS  # equal hashes are compared in full
        numbers, missed = self._look_up(tails, hashes)
        if missed.size:
            self._learn(tails[missed], hashes[missed])
            numbers, missed = self._look_up(tails, hashes)
            for row in missed.tolist():  # equal hashes of different tails, or too many
                numbers[row] = self.number(tails[row].tobytes().rstrip(b"\0"))
        return numbers

    def faulty(self, numbers: U16) -> Bool:
        """Which of ``numbers`` are tails that make a row unusable."""
        faults = np.array([bool(kind.fault) for kind in self.kinds])
        if not faults[1:].any() and len(self) <= _MAX_TAILS:
            return np.zeros(numbers.size, np.bool_)
        return faults[numbers]

    def _look_up(self, tails: U64, hashes: U64) -> tuple[U16, I64]:
        """Numbers of known tails, and which rows have others."""
        if not self._hashes.size:
            return np.zeros(hashes.size, np.uint16), np.arange(hashes.size)
        at = np.searchsorted(self._hashes, hashes)
        np.minimum(at, self._hashes.size - 1, out=at)
        different = tails ^ _as_words(self._rows.take(at, mode="clip"))
        missed = np.flatnonzero(different.any(axis=1)) if different.any() else np.zeros(0, np.int64)
        return self._number_of[at], missed

    def _learn(self, tails: U64, hashes: U64) -> None:
        _, first = np.unique(hashes, return_index=True)
        first = first[: _MAX_TAILS - self._hashes.size]
        fresh = np.array([self.number(tails[row].tobytes().rstrip(b"\0")) for row in first], np.uint16)
        all_hashes = np.concatenate([self._hashes, hashes[first]])
        self._hashes, at = np.unique(all_hashes, return_index=True)
        self._rows = np.concatenate([self._rows, np.ascontiguousarray(tails[first]).view(_ROW)[:, 0]])[at]
        self._number_of = np.concatenate([self._number_of, fresh])[at]


def _as_words(rows: NDArray[Any]) -> U64:
    words: U64 = rows.view("<u8").reshape(-1, _WORDS_PER_TAIL)
    return words

"""Many fixed words looked for in one pass over a buffer of any size.

``bytes.find`` reads the whole buffer once a word, and a regular expression with many branches tries each of them at
each byte; hyperscan looks for all of them at once, but takes longer to load than a short log to be searched.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import hyperscan

    from parsers.mapping import I64

__all__ = ["Words"]

_NUMBER_BITS = 16
_FEW_BYTES = 1 << 17
"""Up to which reading them once a word costs less than loading hyperscan and compiling the words."""


class Words:
    """Fixed words.

    >>> words = Words([b"kernel BUG at ", b"Oops"])
    >>> words.find(b"x kernel BUG at mm/a.c:1! Internal error: Oops: ")
    [(2, 0), (42, 1)]
    """

    def __init__(self, words: Sequence[bytes]) -> None:
        self.words = tuple(words)
        self._unique = list(dict.fromkeys(words))
        """Each word is looked for once, however many numbers it has."""
        place = {word: unique for unique, word in enumerate(self._unique)}
        first: dict[bytes, int] = {}
        self._again = [
            (place[word], number) for number, word in enumerate(words) if first.setdefault(word, number) != number
        ]
        self._lengths = np.array([len(one) for one in self._unique], dtype=np.int64)
        self._numbers = np.array([first[one] for one in self._unique], dtype=np.int64)
        self._few_bytes = _FEW_BYTES

    @cached_property
    def _database(self) -> hyperscan.Database:
        import hyperscan  # noqa: PLC0415  only where there is a log to read

        database = hyperscan.Database()
        database.compile(expressions=[re.escape(word) for word in self._unique], ids=list(range(len(self._unique))))
        return database

    def find(self, data: bytes) -> list[tuple[int, int]]:
        """Offset and number of each word found, in the order of the offsets."""
        at, number = self.places(data)
        return list(zip(at.tolist(), number.tolist(), strict=True))

    def places(self, data: bytes) -> tuple[I64, I64]:
        """As `find`, in two arrays: a flood of words costs Python one call each, and nothing more."""
        self._few_bytes -= len(data)
        packed = np.array(self._one_by_one(data) if self._few_bytes >= 0 else self._at_once(data), dtype=np.int64)
        word = packed & ((1 << _NUMBER_BITS) - 1)
        at, number = (packed >> _NUMBER_BITS) - self._lengths[word], self._numbers[word]
        for unique, again in self._again:
            more = at[word == unique]
            at, number = np.append(at, more), np.append(number, np.full(len(more), again))
            word = np.append(word, np.full(len(more), -1))
        order = np.lexsort((number, at))
        return at[order], number[order]

    def _one_by_one(self, data: bytes) -> list[int]:
        """Where each word that is found ends, and which it is, in one number."""
        found = []
        for number, word in enumerate(self._unique):
            at = data.find(word)
            while at >= 0:
                found.append(at + len(word) << _NUMBER_BITS | number)
                at = data.find(word, at + 1)
        return found

    def _at_once(self, data: bytes) -> list[int]:
        """The same."""
        found: list[int] = []
        keep = found.append

        def note(number: int, _start: int, end: int, _flags: int, _context: object) -> None:
            keep(end << _NUMBER_BITS | number)

        self._database.scan(data, match_event_handler=note)
        return found

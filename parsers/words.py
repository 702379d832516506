"""Many fixed words looked for in one pass over a buffer of any size.

``bytes.find`` reads the whole buffer once a word, and a regular expression with many branches tries each of them at
each byte.  Here every word is represented by four of its bytes; one array pass finds where any of these stand, and only
there the words are compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from parsers.mapping import I64

__all__ = ["Words"]

_CHUNK = 1 << 17
"""Bytes looked at together: what the array pass makes of them stays in the cache."""
_FACTOR = np.uint32(0x9E3779B1)
_BITS = 14
_GRAM = 4
# Letters of log text from common to rare: of a word, the four bytes that are seen least often stand for it.
_COMMON = b" 0etaoisnrdl1mcpu2:x3fhb."


class Words:
    """Fixed words of at least four bytes.

    >>> words = Words([b"kernel BUG at ", b"Oops"])
    >>> list(words.find(b"x kernel BUG at mm/a.c:1! Internal error: Oops: "))
    [(2, 0), (42, 1)]
    """

    def __init__(self, words: Sequence[bytes]) -> None:
        self.words = tuple(words)
        self._by_gram: dict[int, list[tuple[int, int]]] = {}
        self._wanted = np.zeros(1 << _BITS, dtype=np.bool_)
        for number, word in enumerate(self.words):
            if len(word) < _GRAM:
                raise ValueError(f"{word!r} is shorter than {_GRAM} bytes")
            at = _rarest(word)
            gram = int.from_bytes(word[at : at + _GRAM], "little")
            self._by_gram.setdefault(gram, []).append((number, at))
            self._wanted[int(_hash(np.array([gram], dtype=np.uint32))[0])] = True
        self._grams = np.array(sorted(self._by_gram), dtype=np.uint32)

    def find(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Offset and number of each word found, by the place of the four bytes that stand for it."""
        by_gram, words = self._by_gram, self.words
        for start in range(0, max(len(data) - _GRAM + 1, 0), _CHUNK):
            for at, gram in zip(*self._places(data, start), strict=True):
                for number, offset in by_gram[gram]:
                    if data.startswith(words[number], at - offset) and at >= offset:
                        yield at - offset, number

    def _places(self, data: bytes, start: int) -> tuple[list[int], list[int]]:
        """Where in the chunk at ``start`` four wanted bytes stand, and which."""
        count = min(_CHUNK, len(data) - start - _GRAM + 1)
        grams = np.ndarray((count,), dtype=np.dtype("<u4"), buffer=data, offset=start, strides=(1,))
        places: I64 = np.flatnonzero(self._wanted[_hash(grams)])
        found = grams[places]
        exact = self._grams[np.minimum(np.searchsorted(self._grams, found), self._grams.size - 1)] == found
        return (places[exact] + start).tolist(), found[exact].tolist()


def _hash(grams: np.ndarray) -> np.ndarray:
    product: np.ndarray = grams * _FACTOR
    product >>= np.uint32(32 - _BITS)
    return product


def _rarest(word: bytes) -> int:
    """Where the four bytes of a word begin that other text holds least often."""
    weight = {byte: len(_COMMON) - place for place, byte in enumerate(_COMMON)}
    places = range(len(word) - _GRAM + 1)
    return min(places, key=lambda at: (sum(weight.get(byte, 0) for byte in word[at : at + _GRAM]), at))

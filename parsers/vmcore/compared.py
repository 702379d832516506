"""Pages of words that are compared piece by piece as they are read, while the processor's caches still hold them.

Almost all tables of a linear map that is made of pages map one run of pages: every entry is the one before it and a
page.  Of such a table the first entry says everything.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from parsers.mapping import U8, U64, Bool

__all__ = ["Compared", "Room"]

_PIECE_BYTES = 1 << 20
"""Less costs more in calls than the second-level cache saves."""
_PART_WORDS = 64 << 10
"""Of a piece, what is compared at once: the differences stay in that cache."""


class Compared(NamedTuple):
    """Some of the pages that were asked for."""

    piece: slice
    """Which."""
    present: Bool
    regular: Bool
    """Whether every word is the one before it and a page; present ones only."""
    first: U64
    """The first word of each; 0 where nothing of it is present."""
    others: U8
    """Those present and not regular, ``(m, page_size)``: valid until the next are asked for."""


class Room:
    """What one thread needs to read and compare pages of ``page_size`` bytes piece by piece."""

    def __init__(self, page_size: int) -> None:
        self.pages: U8 = np.empty((max(_PIECE_BYTES // page_size, 1), page_size), dtype=np.uint8)
        self._step = np.uint64(page_size)
        self._steps = np.empty(_PART_WORDS, dtype=np.uint64)
        self._differs = np.zeros(self.pages.size // 8, dtype=np.bool_)

    def compare(self, piece: slice, pages: U8, present: Bool, may: Bool | None) -> Compared:
        """What was read of a piece; only those are regular that ``may`` be, none without it."""
        words: U64 = pages.view("<u8")
        first = words[:, 0].astype(np.uint64)
        if may is None:
            regular, others = np.zeros(first.size, dtype=np.bool_), present
        else:
            regular = self._regular(words) & may[piece]
            others = present & ~regular
        return Compared(piece, present, regular, first, pages if others.all() else pages[others])

    def _regular(self, words: U64) -> Bool:
        """Which pages are descriptors of one run of pages; pages of zeros are not."""
        flat, per_page = words.reshape(-1), words.shape[1]
        differs = self._differs[: flat.size]
        for at in range(0, flat.size - 1, _PART_WORDS):
            end = min(at + _PART_WORDS, flat.size - 1)
            steps = np.subtract(flat[at + 1 : end + 1], flat[at:end], out=self._steps[: end - at])
            np.not_equal(steps, self._step, out=differs[at:end])
        differs[per_page - 1 :: per_page] = False  # from one page to the next
        pages = words[:, 0] & np.uint64(3) == 3
        if differs.any():
            pages &= ~differs.reshape(-1, per_page).any(axis=1)
        return np.asarray(pages, dtype=np.bool_)

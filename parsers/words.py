"""Many fixed words looked for in one pass over a buffer of any size.

``bytes.find`` reads the whole buffer once a word, and a regular expression with many branches tries each of them at
each byte; hyperscan looks for all of them at once.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import hyperscan

__all__ = ["Words"]


class Words:
    """Fixed words.

    >>> words = Words([b"kernel BUG at ", b"Oops"])
    >>> words.find(b"x kernel BUG at mm/a.c:1! Internal error: Oops: ")
    [(2, 0), (42, 1)]
    """

    def __init__(self, words: Sequence[bytes]) -> None:
        self.words = tuple(words)
        self._sizes = [len(word) for word in words]

    @cached_property
    def _database(self) -> hyperscan.Database:
        import hyperscan  # noqa: PLC0415  only where there is a log to read

        database = hyperscan.Database()
        database.compile(expressions=[re.escape(word) for word in self.words], ids=list(range(len(self.words))))
        return database

    def find(self, data: bytes) -> list[tuple[int, int]]:
        """Offset and number of each word found, in the order of the offsets."""
        found: list[tuple[int, int]] = []
        sizes, keep = self._sizes, found.append

        def note(number: int, _start: int, end: int, _flags: int, _context: object) -> None:
            keep((end - sizes[number], number))

        self._database.scan(data, match_event_handler=note)
        found.sort()
        return found

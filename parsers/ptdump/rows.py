"""Rows while a dump is being read: still with the number of their tail, and with what was lost before them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parsers.mapping import I64, U16, U32, U64, Bool

__all__ = ["RowStore", "Rows", "concatenate"]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Rows:
    """One row a range line, in the order of the file; all arrays have one element a row."""

    start: U64
    size: U64
    inclusive: Bool
    """The size says that the printed end is the last byte."""
    tail: U16
    """Index in `parsers.ptdump.tails.Tails.kinds`."""
    line: U32
    lost: U32
    """Unusable rows before this one, counted from the top of the file."""
    prose: U32
    """Lines of other text before this one, counted from the top of the file."""

    def __len__(self) -> int:
        return int(self.start.size)

    @property
    def last(self) -> U64:
        """Inclusive last address of each row."""
        return self.start + (self.size - np.uint64(1))

    def without(self, dropped: Bool, *, lost: bool = True) -> Rows:
        """The other rows; ``lost`` where what is dropped leaves a gap in what the dump says."""
        rows = replace(self, lost=self.lost + np.cumsum(dropped, dtype=np.uint32)) if lost else self
        return rows.take(np.flatnonzero(~dropped))

    def take(self, index: I64) -> Rows:
        """The rows with the numbers ``index``, in that order."""
        return Rows(**{each.name: getattr(self, each.name)[index] for each in fields(Rows)})


_COLUMNS = {"start": np.uint64, "size": np.uint64, "inclusive": np.bool_, "tail": np.uint16} | dict.fromkeys(
    ("line", "lost", "prose"), np.uint32
)
_SHORTEST_ROW = 36
"""Bytes: two addresses, a dash, a size with its unit, a line end."""


class RowStore:
    """The rows of a text, collected block by block in arrays that are made once.

    What is not written of an array takes no memory, so there is room for the most rows that ``text_bytes`` can hold.
    """

    def __init__(self, text_bytes: int) -> None:
        room = text_bytes // _SHORTEST_ROW + 1
        self._arrays: dict[str, NDArray[Any]] = {name: np.empty(room, dtype) for name, dtype in _COLUMNS.items()}
        self._count = 0

    def add(self, rows: Rows) -> None:
        """Append ``rows``."""
        end = self._count + len(rows)
        for name, array in self._arrays.items():
            array[self._count : end] = getattr(rows, name)
        self._count = end

    def rows(self) -> Rows:
        """All rows so far; the arrays are shared."""
        return Rows(**{name: array[: self._count] for name, array in self._arrays.items()})


def concatenate(parts: list[Rows]) -> Rows:
    """All rows of ``parts``."""
    return Rows(**{each.name: np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(Rows)})

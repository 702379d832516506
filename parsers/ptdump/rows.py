"""Rows while a dump is being read: still with the number of their tail, and with what was lost before them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from parsers.mapping import I64, U16, U32, U64, Bool

__all__ = ["Rows", "concatenate"]


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
    """Lines of other text before this one, likewise."""

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


def concatenate(parts: list[Rows]) -> Rows:
    """All rows of ``parts``."""
    if not parts:
        return Rows(
            start=np.zeros(0, np.uint64),
            size=np.zeros(0, np.uint64),
            inclusive=np.zeros(0, np.bool_),
            tail=np.zeros(0, np.uint16),
            line=np.zeros(0, np.uint32),
            lost=np.zeros(0, np.uint32),
            prose=np.zeros(0, np.uint32),
        )
    return Rows(**{each.name: np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(Rows)})

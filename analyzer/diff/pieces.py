"""One region of two captures side by side, cut wherever a row of either begins or ends: columns, no loop over rows.

Offsets count from where page frame 0 has its place in the region (or from the region's base where PHYS_OFFSET is not
known), so two boots with other random bases compare.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from parsers.arm64 import Attr
from parsers.ranges import Ranges
from parsers.records import dataclass

if TYPE_CHECKING:
    from parsers.mapping import I8, I64, U8, U16, U64, Bool
    from rules.model.memory.regions import RegionMap

__all__ = ["SHAPE", "Pieces", "Side"]

SHAPE = Attr.CONT | Attr.BLOCK
"""Attributes that say how large a leaf is, not what it allows."""


@dataclass(frozen=True, eq=False)
class Side:
    """A region and the distance of its offsets from the common ones."""

    region: RegionMap
    shift: int

    def edges(self) -> I64:
        """Common offsets at which a row or what was observed begins or ends."""
        region, seen = self.region, self.region.observed
        return np.concatenate((region.start, region.end, seen.start, seen.end)) + self.shift

    def rows(self, start: I64) -> I64:
        """The row that holds each common offset, -1 where none does."""
        region = self.region
        if not region.start.size:
            return np.full(start.size, -1, dtype=np.int64)
        own = start - self.shift
        row = np.searchsorted(region.start, own, side="right") - 1
        return np.where((row >= 0) & (own < region.end[row]), row, -1)


class Pieces:
    """The pieces ``[start, end)`` of a region that both captures cover."""

    def __init__(self, before: Side, after: Side) -> None:
        self.before, self.after = before, after
        cuts = np.unique(np.concatenate((before.edges(), after.edges())))
        start, end = cuts[:-1], cuts[1:]
        seen = np.ones(start.size, dtype=np.bool_)
        for side in (before, after):
            seen &= side.region.observed.shift(side.shift).contains(start)
        self.start: I64 = start[seen]
        self.end: I64 = end[seen]
        self.row_before, self.row_after = before.rows(self.start), after.rows(self.start)
        self.attrs_before: U16 = _column(before.region.attrs, self.row_before)
        self.attrs_after: U16 = _column(after.region.attrs, self.row_after)
        self.valid_before: Bool = (self.attrs_before & np.uint16(Attr.VALID)) != 0
        self.valid_after: Bool = (self.attrs_after & np.uint16(Attr.VALID)) != 0

    def ranges(self, mask: Bool) -> Ranges:
        """Common offsets of the pieces in ``mask``."""
        return Ranges.of(self.start[mask], self.end[mask])

    @cached_property
    def unmapped(self) -> Bool:
        """Pieces that no longer translate."""
        return self.valid_before & ~self.valid_after

    @cached_property
    def mapped(self) -> Bool:
        """Pieces that translate now and did not."""
        return ~self.valid_before & self.valid_after

    @cached_property
    def resized(self) -> Bool:
        """Pieces that translate in both, by leaves of another size."""
        level = self._both(lambda region: region.level)
        cont = (self.attrs_before ^ self.attrs_after) & np.uint16(Attr.CONT)
        return np.asarray(self.valid_before & self.valid_after & (level | (cont != 0)))

    @cached_property
    def moved(self) -> Bool:
        """Pieces that translate in both, to another address; none where a capture does not know addresses."""
        outputs = self._output(self.before, self.row_before), self._output(self.after, self.row_after)
        if outputs[0] is None or outputs[1] is None:
            return np.zeros(self.start.size, dtype=np.bool_)
        return np.asarray(self.valid_before & self.valid_after & (outputs[0] != outputs[1]))

    def _output(self, side: Side, row: I64) -> U64 | None:
        if side.region.pa is None:
            return None
        inside = (self.start - side.shift - _column(side.region.start, row)).astype(np.uint64)
        return np.asarray(_column(side.region.pa, row) + inside)

    @cached_property
    def retyped(self) -> Bool:
        """Pieces that translate in both, with other permissions or another memory type."""
        allowed = (self.attrs_before ^ self.attrs_after) & ~np.uint16(SHAPE)
        other = (allowed != 0) | self._both(lambda region: region.memtype)
        return np.asarray(self.valid_before & self.valid_after & other)

    def _both(self, column: Any) -> Bool:  # noqa: ANN401 a column of a region
        before, after = column(self.before.region), column(self.after.region)
        return np.asarray(_column(before, self.row_before) != _column(after, self.row_after))

    def levels(self) -> tuple[I8, I8]:
        """Arm level of each piece before and after, 0 where no row is."""
        return (
            _column(self.before.region.level, self.row_before),
            _column(self.after.region.level, self.row_after),
        )

    def memtypes(self) -> tuple[U8, U8]:
        """Memory type of each piece before and after."""
        return (
            _column(self.before.region.memtype, self.row_before),
            _column(self.after.region.memtype, self.row_after),
        )


def _column(values: NDArray[Any], row: I64) -> NDArray[Any]:
    """A column by row number, zero where there is no row."""
    if not values.size:
        return np.zeros(row.size, dtype=values.dtype)
    return np.where(row >= 0, values[np.maximum(row, 0)], np.zeros(1, dtype=values.dtype))

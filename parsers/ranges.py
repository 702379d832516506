"""Sets of half-open integer ranges as sorted numpy columns, and the algebra on them.

Used for page frame numbers and for offsets into a region, never for raw virtual addresses: the
end of the address space, 2**64, has no half-open form that fits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from parsers.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray

    from parsers.mapping import I64, Bool

__all__ = ["EMPTY", "Ranges", "distinct"]

Scalar = TypeVar("Scalar", bound=np.generic)


def distinct(values: NDArray[Scalar]) -> NDArray[Scalar]:
    """The values, ascending and each once.

    `np.unique` does the same, but imports `numpy.ma` to ask whether they are masked: a twentieth of a cold start.
    """
    ordered = np.sort(values, axis=None)
    new = np.ones(ordered.size, dtype=np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    return ordered[new]


@dataclass(frozen=True, eq=False, slots=True)
class Ranges:
    """Disjoint, non-adjacent, ascending ranges ``[start, end)``, int64."""

    start: I64
    end: I64

    @classmethod
    def of(cls, start: ArrayLike, end: ArrayLike) -> Ranges:
        """Any ranges, in any order, overlapping or empty ones included, made canonical."""
        lo = np.atleast_1d(np.asarray(start, dtype=np.int64))
        hi = np.atleast_1d(np.asarray(end, dtype=np.int64))
        keep = hi > lo
        if not keep.all():
            lo, hi = lo[keep], hi[keep]
        if lo.size == 0:
            return EMPTY
        if (lo[1:] < lo[:-1]).any():
            order = np.argsort(lo, kind="stable")
            lo, hi = lo[order], hi[order]
        reach = np.maximum.accumulate(hi)
        first = np.concatenate(([True], lo[1:] > reach[:-1]))
        last = np.concatenate((first[1:], [True]))
        return cls(lo[first], reach[last])

    @classmethod
    def one(cls, start: int, end: int) -> Ranges:
        """A single range."""
        return cls.of([start], [end])

    @classmethod
    def pairs(cls, pairs: Iterable[tuple[int, int]]) -> Ranges:
        """Ranges of ``(start, end)`` pairs."""
        table = np.array(list(pairs), dtype=np.int64).reshape(-1, 2)
        return cls.of(table[:, 0], table[:, 1])

    def __len__(self) -> int:
        return int(self.start.size)

    def __bool__(self) -> bool:
        return self.start.size > 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ranges):
            return NotImplemented
        return np.array_equal(self.start, other.start) and np.array_equal(self.end, other.end)

    def __hash__(self) -> int:
        return hash((self.start.tobytes(), self.end.tobytes()))

    def __repr__(self) -> str:
        shown = ", ".join(f"[{lo:#x}, {hi:#x})" for lo, hi in self.tuples()[:8])
        return f"Ranges({shown}{', …' if len(self) > 8 else ''})"

    def tuples(self) -> list[tuple[int, int]]:
        """The ranges as Python integers."""
        return list(zip(self.start.tolist(), self.end.tolist(), strict=True))

    @property
    def total(self) -> int:
        """Sum of the lengths."""
        return int((self.end - self.start).sum())

    def below(self, points: ArrayLike) -> I64:
        """For each point, how much of the set lies below it."""
        at = np.asarray(points, dtype=np.int64)
        sums = np.concatenate(([0], np.cumsum(self.end - self.start)))
        ends = np.concatenate(([np.iinfo(np.int64).min // 2], self.end))
        index = np.searchsorted(self.start, at, side="right")
        return np.asarray(sums[index] - np.maximum(ends[index] - at, 0), dtype=np.int64)

    def covered(self, start: ArrayLike, end: ArrayLike) -> I64:
        """How much of each window ``[start, end)`` lies in the set."""
        low, high = np.asarray(start, dtype=np.int64), np.asarray(end, dtype=np.int64)
        if low.ndim == 1 and low.size and np.array_equal(low[1:], high[:-1]):  # windows side by side
            return np.diff(self.below(np.append(low, high[-1])))
        return self.below(high) - self.below(low)

    def contains(self, points: ArrayLike) -> Bool:
        """Which points lie in the set."""
        at = np.asarray(points, dtype=np.int64)
        if not self:
            return np.zeros(at.shape, dtype=np.bool_)
        index = np.searchsorted(self.start, at, side="right") - 1
        return np.asarray((index >= 0) & (at < self.end[index]))

    def touches(self, start: ArrayLike, end: ArrayLike) -> Bool:
        """Which windows share at least one element with the set."""
        low, high = np.asarray(start, dtype=np.int64), np.asarray(end, dtype=np.int64)
        if not self:
            return np.zeros(low.shape, dtype=np.bool_)
        index = np.searchsorted(self.end, low, side="right")  # the first range that ends after the window's start
        following = self.start[np.minimum(index, self.start.size - 1)]
        return np.asarray((index < self.start.size) & (following < high) & (low < high))

    def __or__(self, other: Ranges) -> Ranges:
        if not other:
            return self
        if not self:
            return other
        return Ranges.of(np.concatenate((self.start, other.start)), np.concatenate((self.end, other.end)))

    def __and__(self, other: Ranges) -> Ranges:
        if not self or not other:
            return EMPTY
        self, other = self._near(other), other._near(self)  # noqa: PLW0642  a few ranges of many need no pass over all
        cuts = np.sort(np.concatenate((self.start, self.end, other.start, other.end)))
        keep = self.contains(cuts[:-1]) & other.contains(cuts[:-1])
        return Ranges.of(cuts[:-1][keep], cuts[1:][keep])

    def __sub__(self, other: Ranges) -> Ranges:
        if not self or not other:
            return self
        cuts = np.sort(np.concatenate((self.start, self.end, other.start, other.end)))
        keep = self.contains(cuts[:-1]) & ~other.contains(cuts[:-1])
        return Ranges.of(cuts[:-1][keep], cuts[1:][keep])

    def _near(self, other: Ranges) -> Ranges:
        """The ranges that lie between the first and the last of ``other``."""
        if not self or not other:
            return EMPTY
        low = int(np.searchsorted(self.end, other.start[0], side="right"))
        high = int(np.searchsorted(self.start, other.end[-1], side="left"))
        return Ranges(self.start[low:high], self.end[low:high])

    def shift(self, by: int) -> Ranges:
        """The same ranges, moved."""
        return Ranges(self.start + by, self.end + by)

    def scale(self, factor: int) -> Ranges:
        """Units of ``factor``: pages to bytes, for example."""
        return Ranges(self.start * factor, self.end * factor)

    def widen(self, unit: int) -> Ranges:
        """Each edge moved outwards to a multiple of ``unit``."""
        return Ranges.of(self.start // unit * unit, -(-self.end // unit) * unit)

    def shrink(self, unit: int) -> Ranges:
        """Each edge moved inwards to a multiple of ``unit``; what holds no whole unit vanishes."""
        return Ranges.of(-(-self.start // unit) * unit, self.end // unit * unit)

    def divide(self, unit: int, *, outward: bool) -> Ranges:
        """From fine units to coarse ones: touched units if ``outward``, else wholly covered ones."""
        snapped = self.widen(unit) if outward else self.shrink(unit)
        return Ranges(snapped.start // unit, snapped.end // unit)


EMPTY = Ranges(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))

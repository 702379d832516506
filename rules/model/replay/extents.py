"""Where each call's memory lies: page frames, and rows of the table of subsections.

Computed for all calls at once, for the replay looks them up call by call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.ftrace.functions import Kind, Unit, kinds_in
from parsers.ranges import EMPTY, Ranges
from parsers.records import dataclass
from rules.model.replay.state import SUBSECTION

if TYPE_CHECKING:
    from parsers.mapping import I64, Bool
    from rules.model.replay.calibration import Calibration
    from rules.model.replay.calls import Calls

__all__ = [
    "PMD_BYTES",
    "Extents",
    "first_is_no_add",
    "never_added",
    "pfns_of",
]

PMD_BYTES = 2 << 20
"""What a PMD block maps with 4K pages, the only page size whose struct pages are ever mapped by blocks."""
MAX_SUBSECTIONS = 1 << 22
"""8 TiB of memory added or removed in one trace; the state takes 40 bytes for each subsection."""
MAX_VISITS = 1 << 28
"""Subsections visited by all calls together, a few seconds' work; and besides, for each call:"""
VISITS_OF_A_CALL = 1 << 16
_WILD = 1 << 23
"""Subsections of one call that no machine has."""

_REMOVALS = (Kind.TRY_REMOVE_MEMORY, Kind.ARCH_REMOVE_MEMORY, Kind.REMOVE_PAGES, Kind.SPARSE_REMOVE_SECTION)

_BY_BYTES, _BY_PFN, _BY_STRUCT_PAGE = (kinds_in(unit) for unit in (Unit.BYTES, Unit.PFN, Unit.STRUCT_PAGE))


def pfns_of(calls: Calls, calibration: Calibration) -> tuple[I64, I64]:
    """``[first, end)`` page frames that each call concerns; equal where it concerns none."""
    low, high = np.zeros(len(calls), dtype=np.int64), np.zeros(len(calls), dtype=np.int64)
    page, size = np.uint64(calibration.page_size), np.uint64(calibration.struct_page_size)
    for kinds, unit in ((_BY_BYTES, page), (_BY_PFN, np.uint64(1))):
        mine = _plausible(calls, np.isin(calls.kind, kinds), np.uint64(1 << 52))
        low[mine] = (calls.start[mine] // unit).astype(np.int64)
        high[mine] = -(-calls.end[mine].astype(np.int64) // int(unit))
    if calibration.vmemmap is not None:
        base = np.uint64(calibration.vmemmap)
        mine = _plausible(calls, np.isin(calls.kind, _BY_STRUCT_PAGE), np.uint64(2**64 - 1))
        first = (calls.start[mine] - base) // size  # modulo 2**64, as the kernel's own arithmetic
        low[mine] = np.minimum(first, np.uint64(1 << 52)).astype(np.int64)
        high[mine] = low[mine] + ((calls.end[mine] - calls.start[mine]) // size).astype(np.int64)
    wild = (high - low > _WILD * (SUBSECTION // calibration.page_size)) | (low >= 1 << 52)
    high[wild] = low[wild]
    return low, high


def _plausible(calls: Calls, mine: Bool, top: np.uint64) -> I64:
    return np.flatnonzero(mine & calls.start_known & (calls.end > calls.start) & (calls.end <= top))


@dataclass(frozen=True, eq=False)
class Extents:
    """For each call, its page frames and its rows ``[first, end)`` among the subsections of all touched sections."""

    start_pfn: I64
    """Of each subsection, ascending."""
    pages: int
    """Of one subsection."""
    low: I64
    high: I64
    first: I64
    end: I64
    too_many: bool
    calibration: Calibration

    @classmethod
    def of(cls, calls: Calls, calibration: Calibration, replayed: Bool) -> Extents:
        """Extents; the calls of ``replayed`` decide which sections there are."""
        pages, section = SUBSECTION // calibration.page_size, calibration.pages_per_section
        low, high = pfns_of(calls, calibration)
        widened_low, widened_high = _window(low[replayed], high[replayed], PMD_BYTES, calibration)
        if calibration.page_size != 4096:
            widened_low, widened_high = low[replayed], high[replayed]
        touched = (high > low)[replayed]
        sections = Ranges.of(widened_low[touched], widened_high[touched]).divide(section, outward=True)
        too_many = sections.total * (section // pages) > MAX_SUBSECTIONS
        numbers = [np.arange(lo, hi) for lo, hi in (EMPTY if too_many else sections).tuples()]
        number = np.concatenate(numbers) if numbers else np.empty(0, dtype=np.int64)
        start = (number[:, None] * section + np.arange(section // pages) * pages).reshape(-1)
        first, end = _rows(start, pages, low, high)
        if int((end - first)[replayed].sum()) > MAX_VISITS + VISITS_OF_A_CALL * len(calls):
            too_many, start, first, end = True, start[:0], first * 0, end * 0
        return cls(start, pages, low, high, first, end, too_many, calibration)

    def windows(self, span: int) -> tuple[I64, I64]:
        """Rows of the subsections that share a leaf of ``span`` bytes of vmemmap with each call's page frames."""
        low, high = _window(self.low, self.high, span, self.calibration)
        first, end = _rows(self.start_pfn, self.pages, low, high)
        return first, np.where(self.high > self.low, end, first)

    def window(self, low: int, high: int, span: int) -> slice:
        """The same of one range of page frames."""
        first, end = _window(np.array([low]), np.array([high]), span, self.calibration)
        return self.rows(int(first[0]), int(end[0]))

    def removed_with(self, calls: Calls, call: int) -> slice:
        """Rows of the widest removal that a call is part of: a leaf of several sections goes with the first of them."""
        first, end, above = int(self.first[call]), int(self.end[call]), call
        while (above := int(calls.parent[above])) >= 0:
            if calls.kind[above] in _REMOVALS and self.end[above] > self.first[above]:
                first, end = min(first, int(self.first[above])), max(end, int(self.end[above]))
        return slice(first, end)

    def rows(self, low: int, high: int) -> slice:
        """Rows of the subsections that ``[low, high)`` touches."""
        first, end = _rows(self.start_pfn, self.pages, np.array([low]), np.array([high]))
        return slice(int(first[0]), int(end[0]))

    def blocks(self, span: int) -> I64:
        """For each subsection, which leaf of ``span`` bytes its first struct page lies in."""
        skew = (self.calibration.vmemmap or 0) % span
        return np.asarray((self.start_pfn * self.calibration.struct_page_size + skew) // span)

    def within_leaves(self, lost: Ranges, spared: Bool) -> Ranges:
        """``lost``, whole subsections, without what a leaf beside them maps in whose subsections nothing was lost.

        A struct page of 80 bytes makes the struct pages of a subsection begin in one leaf and end in the next.
        ``spared`` says of each subsection whether its struct pages are known not to be lost.
        """
        size, pages = self.calibration.struct_page_size, self.pages
        span = PMD_BYTES if self.calibration.page_size == 4096 else self.calibration.page_size
        skew = (self.calibration.vmemmap or 0) % span
        long = lost.end - lost.start > pages
        low, high = (lost.end - pages) * size + skew, lost.end * size + skew
        edge = high // span * span
        after = _is_true_at(spared, self.start_pfn, lost.end)
        end = np.where(long & (low < edge) & (edge < high) & after, -((skew - edge) // size), lost.end)
        low, high = lost.start * size + skew, (lost.start + pages) * size + skew
        edge = -(-low // span) * span
        before = _is_true_at(spared, self.start_pfn, lost.start - pages)
        start = np.where(long & (low < edge) & (edge < high) & before, (edge - skew) // size, lost.start)
        return Ranges.of(start, end)


def _is_true_at(mask: Bool, start_pfn: I64, pfns: I64) -> Bool:
    """For each of ``pfns`` whether a subsection begins there and ``mask`` has it."""
    row = np.minimum(np.searchsorted(start_pfn, pfns), start_pfn.size - 1)
    return np.asarray((start_pfn[row] == pfns) & mask[row]) if start_pfn.size else np.zeros(pfns.size, np.bool_)


def first_is_no_add(extents: Extents, calls: Calls, order: I64, adds: tuple[Kind, ...]) -> Bool:
    """Subsections whose first operation is not an add: what an earlier dump shows of them was so at the start."""
    rows = np.ones(extents.start_pfn.size, dtype=np.bool_)
    seen = np.zeros(rows.size, dtype=np.bool_)
    for call in order.tolist():
        mine = slice(int(extents.first[call]), int(extents.end[call]))
        if calls.kind[call] in adds:
            rows[mine] &= seen[mine]
        seen[mine] = True
    return rows


def never_added(extents: Extents, calls: Calls, order: I64, adds: tuple[Kind, ...]) -> Bool:
    """Subsections that no call of the trace adds."""
    adding = order[np.isin(calls.kind[order], adds)]
    depth = np.zeros(extents.start_pfn.size + 1, dtype=np.int64)
    np.add.at(depth, extents.first[adding], 1)
    np.subtract.at(depth, extents.end[adding], 1)
    return np.asarray(np.cumsum(depth)[:-1] == 0)


def _rows(start: I64, pages: int, low: I64, high: I64) -> tuple[I64, I64]:
    first = np.searchsorted(start, low - pages, side="right")
    return first, np.maximum(np.searchsorted(start, high, side="left"), first)


def _window(low: I64, high: I64, span: int, calibration: Calibration) -> tuple[I64, I64]:
    """Page frames whose struct pages lie in the same leaves."""
    size, skew = calibration.struct_page_size, (calibration.vmemmap or 0) % span
    first = (low * size + skew) // span * span - skew
    end = -(-(high * size + skew) // span) * span - skew
    return np.maximum(first // size, 0), np.maximum(-(-end // size), 0)

"""The walk of the page tables in a crash dump, and the output addresses that it found, region by region.

The walk of one address is the evidence of every finding that comes from a dump.  A row of a walk is physically
contiguous, or every entry in it has the same output address.  `Outputs` cuts rows at addresses of either side, so that
each piece lies in one place on both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from parsers.ranges import Ranges, distinct
from parsers.records import dataclass
from rules.finding import Evidence

if TYPE_CHECKING:
    from collections.abc import Callable

    from parsers.errors import Diagnostic
    from parsers.mapping import I64, U64, Bool, TablePages
    from parsers.vmcore.faults import TableFaults
    from rules.model.memory.regions import RegionMap

__all__ = ["Outputs", "PageWalk", "WalkStep"]


class WalkStep(Protocol):
    """One level of the walk of one address (`parsers.vmcore.explain.Step`)."""

    @property
    def level(self) -> int:
        """Arm level."""

    @property
    def table_pa(self) -> int:
        """Physical address of the table."""

    @property
    def index(self) -> int:
        """Entry in the table."""

    @property
    def descriptor(self) -> int | None:
        """The entry, None where the dump does not hold it."""

    @property
    def meaning(self) -> str:
        """What the entry is, in words."""

    @property
    def entry_pa(self) -> int:
        """Physical address of the entry."""


@dataclass(frozen=True, eq=False)
class PageWalk:
    """The tables of a dump, and the walk of any address."""

    source: str
    tables: TablePages
    table_descriptor: U64
    """For each table, the descriptor that points at it."""
    repeated: Bool
    """Rows of the mapping in which every entry has the same output address."""
    faults: TableFaults
    """Malformed entries, and those that could not be followed."""
    diagnostics: tuple[Diagnostic, ...]
    steps: Callable[[int], list[WalkStep]]

    def evidence(self, va: int) -> tuple[Evidence, ...]:
        """The walk of ``va``, each level's table, index and value, and how to see the same in crash and drgn."""
        steps = self.steps(va)
        if not steps:
            return ()
        levels = tuple(Evidence(self.source, _text(step), address=step.entry_pa) for step in steps)
        last = steps[-1]
        return (
            *levels,
            Evidence(self.source, f"crash: vtop {va:x}"),
            Evidence(self.source, f"drgn: prog.read_u64({last.entry_pa:#x}, physical=True)"),
        )


def _text(step: WalkStep) -> str:
    value = "not in the dump" if step.descriptor is None else f"{step.descriptor:#018x}"
    return f"level {step.level} table {step.table_pa:#x} index {step.index}: {value} {step.meaning}"


@dataclass(frozen=True, eq=False)
class Outputs:
    """Columns, one row a piece that translates, ascending by ``start``; addresses in bytes, int64."""

    row: I64
    """Row of the region."""
    start: I64
    """Byte offset in the region."""
    end: I64
    pa: I64
    """Physical address of the first byte."""
    repeated: Bool
    """Every entry of the piece maps the same block or page, at ``pa``."""
    entry: I64
    """Bytes of one entry."""

    @classmethod
    def of(cls, region: RegionMap, walk: PageWalk) -> Outputs:
        """The rows of a region that translate, one piece each."""
        row = np.flatnonzero(region.valid)
        spans = {level: region.layout.granule.span(level) for level in distinct(region.level[row]).tolist()}
        entry = np.array([spans[level] for level in region.level[row].tolist()], dtype=np.int64)
        repeated = walk.repeated[region.rows[row]]
        mapped = region.mapping.pa
        if mapped is None:
            raise TypeError("a mapping without output addresses")
        pa = np.where(repeated, mapped[region.rows[row]], _at_start(region)[row]).astype(np.int64)
        return cls(row, region.start[row], region.end[row], pa, repeated, entry)

    def __getitem__(self, chosen: Bool) -> Outputs:
        return Outputs(
            self.row[chosen],
            self.start[chosen],
            self.end[chosen],
            self.pa[chosen],
            self.repeated[chosen],
            self.entry[chosen],
        )

    def __len__(self) -> int:
        return int(self.row.size)

    @property
    def pa_end(self) -> I64:
        """Physical end, exclusive."""
        return np.asarray(self.pa + np.where(self.repeated, self.entry, self.end - self.start), dtype=np.int64)

    @property
    def offsets(self) -> Ranges:
        """Byte offsets in the region."""
        return Ranges.of(self.start, self.end)

    @property
    def memory(self) -> Ranges:
        """Physical byte ranges."""
        return Ranges.of(self.pa, self.pa_end)

    def shared(self) -> Ranges:
        """Physical byte ranges to which more than one entry leads."""
        lo, hi = self.pa, self.pa_end
        cuts = np.sort(np.concatenate((lo, hi)))
        depth = np.searchsorted(np.sort(lo), cuts[:-1], side="right")
        depth -= np.searchsorted(np.sort(hi), cuts[:-1], side="right")
        many = depth > 1
        twice = self.repeated & (self.end - self.start > self.entry)
        return Ranges.of(np.concatenate((cuts[:-1][many], lo[twice])), np.concatenate((cuts[1:][many], hi[twice])))

    def cut(self, offsets: I64, memory: I64) -> Outputs:
        """The same, with no piece across any of ``offsets`` (in the region) or any address in ``memory``."""
        pieces = self._cut_at(distinct(offsets), self.start, self.end)
        stop = np.where(pieces.repeated, pieces.pa, pieces.pa_end)
        return pieces._cut_at(distinct(memory), pieces.pa, stop)

    def _cut_at(self, edges: I64, low: I64, high: I64) -> Outputs:
        """Pieces cut where ``edges`` lie inside of ``(low, high)``, which runs in step with ``start``."""
        first = np.searchsorted(edges, low, side="right")
        count = np.maximum(np.searchsorted(edges, high, side="left") - first, 0)
        piece = np.repeat(np.arange(len(self)), count)
        step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        inner = edges[first[piece] + step] - low[piece] + self.start[piece]
        start = np.concatenate((self.start, inner))
        piece = np.concatenate((np.arange(len(self)), piece))
        order = np.argsort(start, kind="stable")
        start, piece = start[order], piece[order]
        end = self.end[piece].copy()
        inside = np.flatnonzero(piece[1:] == piece[:-1])
        end[inside] = start[inside + 1]
        moved = np.where(self.repeated[piece], 0, start - self.start[piece])
        return Outputs(self.row[piece], start, end, self.pa[piece] + moved, self.repeated[piece], self.entry[piece])


def _at_start(region: RegionMap) -> I64:
    """Output address of each row's first byte inside of the region."""
    pa = region.pa
    return np.zeros(region.start.size, np.int64) if pa is None else pa.astype(np.int64)

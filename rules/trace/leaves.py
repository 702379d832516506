"""Leaves of struct pages that a replayed trace leaves behind, for rules whose page tables were not collected.

Nothing here claims more than *probable*: what the kernel did between the probes is inferred.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.ranges import Ranges, distinct
from rules.finding import Claim, Hit, Severity
from rules.model.replay.state import YES
from rules.trace.anomalies import MAX_HITS, places

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.mapping import I64, Bool
    from rules.model.replay.timeline import Timeline

__all__ = ["hit_of_state", "leaves_of_parts", "leaves_whole_sections"]


def leaves_of_parts(timeline: Timeline, span: int, chosen: Bool) -> Iterator[tuple[I64, list[int]]]:
    """(Rows, operations that added the valid ones) of each leaf of ``span`` bytes that maps ``chosen`` valid rows."""
    state = timeline.state
    mine = chosen & (state.valid == YES) & (state.added_by >= 0)
    if not mine.any():
        return
    block = timeline.extents.blocks(span)
    edges = np.append(0, np.flatnonzero(block[1:] != block[:-1]) + 1)
    del block  # of the largest hosts, as large as all the rest
    first, last = np.minimum.reduceat, np.maximum.reduceat
    unset = np.iinfo(state.added_by.dtype).max
    least = first(np.where(mine, state.added_by, unset), edges)
    most = last(np.where(mine, state.added_by, -1), edges)
    valid = np.add.reduceat(mine, edges, dtype=np.int32)
    sizes = np.diff(np.append(edges, mine.size))
    suspicious = (valid > 0) & ((least != most) | (valid < sizes))
    for index in np.flatnonzero(suspicious)[:MAX_HITS].tolist():
        rows = np.arange(edges[index], edges[index] + sizes[index])
        yield rows, distinct(state.added_by[rows[mine[rows]]]).tolist()


def leaves_whole_sections(timeline: Timeline, rows: I64) -> bool:
    """Whether a leaf of several sections has struct pages of whole ones only: VMM-05, not a part of a section."""
    state, size = timeline.state, timeline.calibration.pages_per_section
    number = state.start_pfn // size
    mine = distinct(number[rows])
    partly = np.isin(number, distinct(number[rows[state.valid[rows] == YES]])) & (state.valid != YES)
    return mine.size > 1 and not partly.any()


def hit_of_state(timeline: Timeline, rows: I64, owners: list[int], title: str, why: str) -> Hit:
    """A hit for subsections (``rows`` of the state) that the operations ``owners`` added."""
    start = timeline.state.start_pfn[rows]
    pfns = Ranges.of(start, start + timeline.extents.pages)
    weak = bool(timeline.undecided)
    return Hit(
        title=title,
        message=f"{places(pfns)}: {why}. The trace alone says so; the page tables were not collected.",
        claim=Claim.SUSPECTED if weak else Claim.PROBABLE,
        severity=Severity.MEDIUM if weak else None,
        pfns=pfns,
        evidence=timeline.evidence(*owners[:4]),
        cause=timeline.cause(owners[-1]),
    )

"""What a trace alone foretells about page tables that were not collected: for the rules that would look at them.

Most of it is read off the state after the last event; nothing here claims more than *probable*, for what the
kernel did between the probes is inferred.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.ftrace.functions import Kind
from parsers.ranges import Ranges
from rules.finding import Claim, Hit, Severity
from rules.model.replay.behaviour import Leaf
from rules.model.replay.extents import PMD_BYTES
from rules.model.replay.flushes import early_frees, flushes_by_unmap, linear_unmaps, live_remaps, reuses
from rules.model.replay.state import UNKNOWN, YES
from rules.model.replay.timeline import Timeline, Trouble
from rules.trace.anomalies import MAX_HITS, hit_of_call, places

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.mapping import I64, Bool

__all__ = [
    "half_added",
    "live_output_changes",
    "live_size_changes",
    "mixed_granularity",
    "offline_refused",
    "partial_section_blocks",
    "populate_skipped",
    "shared_base_pages",
    "shared_blocks",
    "tlb_shatter",
]

_EPERM = -1
_TABLE = np.uint64(3)
"""Low bits of a descriptor that points to a table (Arm ARM D8.3)."""


def partial_section_blocks(timeline: Timeline) -> Iterator[Hit]:
    """VMM-01: blocks over parts of sections that stand at the end, and removals of less than was added whole."""
    if timeline.calibration.page_size != 4096:
        return
    state = timeline.state
    for rows, owners in _shared(timeline, PMD_BYTES, state.leaf == Leaf.PMD):
        mine = state.valid[rows] == YES
        if len(owners) > 1 or (state.valid[rows] != UNKNOWN).all():
            case = "VMM-01b" if len(owners) > 1 else "VMM-01"
            yield _hit(
                timeline, rows[mine], owners, f"{case}: one PMD block maps the struct pages of part of a section",
                f"populated by {len(owners)} adds; removing one clears the block for all that it maps",
            )  # fmt: skip
    for anomaly in timeline.of(Trouble.ASYMMETRIC_UNIT)[:MAX_HITS]:
        removed = timeline.pfns_of(anomaly.call)
        if removed != removed.widen(timeline.calibration.pages_per_section):
            yield hit_of_call(
                timeline, anomaly.call, "VMM-01c: part of a section is removed that was added whole",
                f"{timeline.describe(anomaly.call)} leaves {places(anomaly.pfns)} of what one operation added: "
                "the block that maps the struct pages of both is cleared.",
                Claim.PROBABLE,
            )  # fmt: skip


def shared_blocks(timeline: Timeline) -> Iterator[Hit]:
    """VMM-05: blocks that reach over the edge of a section into memory that another operation added."""
    calibration, state = timeline.calibration, timeline.state
    for rows, owners in _shared(timeline, PMD_BYTES, state.leaf == Leaf.PMD):
        sections = np.unique(state.start_pfn[rows] // calibration.pages_per_section)
        if len(owners) > 1 and sections.size > 1:
            yield _hit(
                timeline, rows, owners, "One PMD block maps struct pages of two sections",
                f"struct page has {calibration.struct_page_size} bytes; removing one section clears the block for both",
            )  # fmt: skip


def shared_base_pages(timeline: Timeline) -> Iterator[Hit]:
    """VMM-06: pages of struct pages that several operations share, and last pages that were not populated."""
    if timeline.calibration.page_size == 4096:
        return  # a subsection's struct pages fill pages of their own: nothing to search
    for rows, owners in _shared(timeline, timeline.calibration.page_size, timeline.state.mapped == YES):
        if len(owners) > 1:
            yield _hit(
                timeline, rows, owners, f"One page of struct pages serves {len(owners)} ranges that were added apart",
                "removing one of them frees the page under the others",
            )  # fmt: skip
    for anomaly in timeline.of(Trouble.POPULATED_TOO_LITTLE)[:MAX_HITS]:
        yield hit_of_call(
            timeline, anomaly.call, "The last struct pages of a range are not populated",
            f"{timeline.describe(anomaly.call)}: {anomaly.text} ({places(anomaly.pfns)}).", Claim.PROBABLE,
        )  # fmt: skip


def mixed_granularity(timeline: Timeline) -> Iterator[Hit]:
    """VMM-07: whole sections that were seen to fall back to pages."""
    if timeline.calibration.page_size != 4096:
        return
    state = timeline.state
    units = timeline.calibration.pages_per_section // timeline.extents.pages
    sections = (state.valid.size // units, units)
    owner = state.added_by.reshape(sections)
    in_pages = ((state.valid == YES) & (state.leaf == Leaf.PTE) & (state.added_by >= 0)).reshape(sections).all(axis=1)
    in_pages &= (owner == owner[:, :1]).all(axis=1)
    if in_pages.any():
        mine = np.repeat(in_pages, units)
        owners = np.unique(state.added_by[mine]).tolist()
        yield _hit(
            timeline, np.flatnonzero(mine), owners,
            f"Struct pages of {int(in_pages.sum())} whole sections were populated page by page",
            "no block could be allocated",
        )  # fmt: skip


def populate_skipped(timeline: Timeline) -> Iterator[Hit]:
    """VMM-08: vmemmap_check_pmd() takes a table for a block."""
    calls = timeline.calls
    mine = calls.of(Kind.VMEMMAP_CHECK_PMD)
    pmd, _ = calls.argument("pmd")
    accepted = (calls.ret[mine] == 1) & ((pmd[mine] & _TABLE) == _TABLE)
    for call in mine[accepted][:MAX_HITS].tolist():
        yield hit_of_call(
            timeline, call, "A table was taken for a block of struct pages",
            f"{timeline.describe(call)} accepts the table {int(pmd[call]):#x}: what its entries do not map stays "
            "unmapped.",
            Claim.PROBABLE,
        )  # fmt: skip


def half_added(timeline: Timeline) -> Iterator[Hit]:
    """VMM-14: sections of a failed add that are valid at the end."""
    for anomaly in timeline.of(Trouble.FAILED_WITHOUT_CLEANUP)[:MAX_HITS]:
        yield hit_of_call(
            timeline, anomaly.call, "A failed add left valid sections behind",
            f"{timeline.describe(anomaly.call)}: {anomaly.text} ({places(anomaly.pfns)}).", Claim.PROBABLE,
        )  # fmt: skip


def offline_refused(timeline: Timeline) -> Iterator[Hit]:
    """MOM-14: self-hosted memory whose offlining a notifier refused."""
    calls, state = timeline.calls, timeline.state
    mine = calls.of(Kind.OFFLINE_PAGES)
    refused = mine[calls.ret[mine] == _EPERM]
    hosted = [call for call in refused.tolist() if (state.self_hosted[timeline.rows_of(call)] == YES).any()]
    if hosted:
        yield hit_of_call(
            timeline, hosted[0], "Self-hosted memory cannot be offlined",
            f"{len(hosted)} attempts to offline self-hosted memory were refused (-EPERM), first "
            f"{timeline.describe(hosted[0])}: its struct pages begin inside of a vmemmap block.",
            Claim.PROBABLE,
        )  # fmt: skip


def tlb_shatter(timeline: Timeline) -> Iterator[Hit]:
    """CNT-04: the linear map is flushed entry by entry while it is unmapped."""
    calls = timeline.calls
    unmaps, count = flushes_by_unmap(calls)
    mine = np.isin(unmaps, linear_unmaps(calls)) & (count > 1)
    for call, flushes in zip(unmaps[mine][:MAX_HITS].tolist(), count[mine].tolist(), strict=False):
        yield hit_of_call(
            timeline, call, "The TLB is flushed between the entries of a removal",
            f"{timeline.describe(call)} flushed {flushes} times; in contiguous runs that leaves stale translations.",
            Claim.SUSPECTED,
        )  # fmt: skip


def live_size_changes(timeline: Timeline) -> Iterator[Hit]:
    """CNT-05: blocks that are split while they are in use, not flushed before they are used again."""
    yield from _live(timeline, "A live block was split without a flush in between", Kind.VMEMMAP_SPLIT_PMD)


def live_output_changes(timeline: Timeline) -> Iterator[Hit]:
    """CNT-06: addresses that are mapped elsewhere without a flush in between, and pages given away before it."""
    calls = timeline.calls
    yield from _live(
        timeline,
        "A live entry was changed without a flush in between",
        Kind.VMEMMAP_REMAP_PTE,
        Kind.VMEMMAP_RESTORE_PTE,
    )
    for make, unmap in zip(*(found[:MAX_HITS].tolist() for found in reuses(calls)), strict=True):
        yield hit_of_call(
            timeline, make, "A range is mapped again before the TLB was flushed",
            f"{timeline.describe(make)} follows {timeline.describe(unmap)} without a TLB invalidation.", Claim.PROBABLE,
        )  # fmt: skip
    unmaps, rows = early_frees(calls)
    for call in np.unique(unmaps)[:MAX_HITS].tolist():
        hit = hit_of_call(
            timeline, call, "Pages are given away before the TLB was flushed",
            f"{int((unmaps == call).sum())} pages are freed in {timeline.describe(call)} before its first TLB "
            f"invalidation, first {timeline.trace.quote(int(rows[unmaps == call][0]))}.",
            Claim.PROBABLE,
        )  # fmt: skip
        yield hit


def _live(timeline: Timeline, title: str, *kinds: Kind) -> Iterator[Hit]:
    """One hit for all live changes of these kinds that were not flushed in time; none where flushes are not traced."""
    changes, _ = live_remaps(timeline.calls, *kinds)
    if changes.size:
        yield hit_of_call(
            timeline, int(changes[0]), title,
            f"{changes.size} changes, first {timeline.describe(int(changes[0]))}: the TLB may hold both translations.",
            Claim.PROBABLE,
        )  # fmt: skip


def _shared(timeline: Timeline, span: int, chosen: Bool) -> Iterator[tuple[I64, list[int]]]:
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
        yield rows, np.unique(state.added_by[rows[mine[rows]]]).tolist()


def _hit(timeline: Timeline, rows: I64, owners: list[int], title: str, why: str) -> Hit:
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

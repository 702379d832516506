"""CNT-06: an address that maps another page than before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.ftrace.functions import Kind
from parsers.ranges import EMPTY, Ranges, distinct
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.memory.regions import LinearMap, Vmemmap
from rules.model.memory.sections import SectionTable
from rules.model.memory.snapshots import Earlier
from rules.model.replay.flushes import early_frees, reuses
from rules.model.replay.timeline import Timeline
from rules.rule import UndecidedError, rule
from rules.trace.anomalies import MAX_HITS, hit_of_call, live_changes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.mapping import I64, U64
    from rules.model.memory.regions import RegionMap


@rule(
    code="CNT-06",
    name="output-address-change",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=("Arm ARM D8.17: a change of the output address needs break-before-make, whatever FEAT_BBM says",),
)
def output_change(
    linear: LinearMap, vmemmap: Vmemmap, earlier: Earlier, *, section_table: SectionTable | None
) -> Iterator[Hit]:
    """A mapped address of the linear map or the vmemmap area maps another page than in the earlier dump.

    What it means:
    If the entry went from one page to the other without being invalid in between, CPUs may hold both
    translations: writes go to the page that is no longer there.

    How it is detected:
    Two crash dumps of one boot: addresses that are mapped in both, with different output addresses.

    When it is not a problem:
    Hot-added memory that was removed and added again between the dumps has new struct pages: it is only
    suspected. Boot memory is never removed; there only HugeTLB vmemmap optimisation moves struct pages (HVO-01).

    What to do:
    Collect a trace of the change: an invalid entry and a TLB flush must stand between the two values.
    """
    for now, before in ((linear, earlier.linear), (vmemmap, earlier.vmemmap)):
        changed = _changed(before, now)
        early = section_table.early if section_table is not None else EMPTY
        for key, part in (("boot", changed & _bytes(now, early)), ("other", changed - _bytes(now, early))):
            if part:
                yield Hit(
                    title=f"The {now.name} area maps other pages than before",
                    message=(
                        f"{part.total >> 10} KiB of the {now.name} area, first at {now.va(int(part.start[0])):#x}, are "
                        "mapped in both dumps and lead to different physical addresses"
                        + (", and belong to boot memory." if key == "boot" else ".")
                    ),
                    claim=Claim.PROBABLE if key == "boot" else Claim.SUSPECTED,
                    severity=None if key == "boot" else Severity.MEDIUM,
                    pfns=now.pages_touched(part).shift(now.layout.start_pfn),
                    vas=now.va_ranges(part)[:64],
                    evidence=before.quote_at(part) + now.quote_at(part),
                    key=f"{now.name} {key}",
                )


@output_change.fallback
def predicted_by_trace(timeline: Timeline) -> Iterator[Hit]:
    """Addresses that are mapped elsewhere without a flush in between, and pages given away before it."""
    calls = timeline.calls
    yield from live_changes(
        timeline,
        "A live entry was changed without a flush in between",
        Kind.VMEMMAP_REMAP_PTE,
        Kind.VMEMMAP_RESTORE_PTE,
    )
    for make, unmap in zip(*(found[:MAX_HITS].tolist() for found in reuses(calls)), strict=True):
        yield hit_of_call(
            timeline, make, "A range is mapped again before the TLB was flushed",
            f"{timeline.describe(make)} follows {timeline.describe(unmap)} without a TLB invalidation.", Claim.PROBABLE,
            doubtful=not timeline.trace.is_counted or timeline.is_undecided(make, int(calls.row[unmap])),
        )  # fmt: skip
    unmaps, rows = early_frees(calls)
    for call in distinct(unmaps)[:MAX_HITS].tolist():
        yield hit_of_call(
            timeline, call, "Pages are given away before the TLB was flushed",
            f"{int((unmaps == call).sum())} pages are freed in {timeline.describe(call)} before its first TLB "
            f"invalidation, first {timeline.trace.quote(int(rows[unmaps == call][0]))}.",
            Claim.PROBABLE,
            doubtful=not timeline.trace.is_counted,
        )  # fmt: skip


def _bytes(region: RegionMap, pfns: Ranges) -> Ranges:
    """Byte offsets in the region that belong to ``pfns``."""
    return region.offsets(pfns.shift(-region.layout.start_pfn)) if pfns else EMPTY


def _changed(before: RegionMap, now: RegionMap) -> Ranges:
    """Byte offsets that are mapped in both, to different output addresses; UndecidedError without those."""
    if before.pa is None or now.pa is None:
        raise UndecidedError("a text dump has no output addresses: two crash dumps are needed", "vmcore")
    edges = distinct(np.concatenate((before.start, before.end, now.start, now.end)))
    start, end = edges[:-1], edges[1:]
    both = before.mapped.contains(start) & now.mapped.contains(start)
    start, end = start[both], end[both]
    differ = _output(before, before.pa, start) != _output(now, now.pa, start)
    return Ranges.of(start[differ], end[differ])


def _output(region: RegionMap, pa: U64, offset: I64) -> U64:
    """Output address of mapped offsets, where rows are taken to go on."""
    row = np.searchsorted(region.start, offset, side="right") - 1
    return pa[row] + (offset - region.start[row]).astype(np.uint64)

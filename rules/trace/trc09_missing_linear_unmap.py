"""TRC-09: memory is removed and its linear map is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.ftrace.functions import Kind
from parsers.ranges import distinct
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.replay.calls import NEVER, innermost
from rules.model.replay.flushes import linear_unmaps
from rules.model.replay.timeline import Timeline
from rules.rule import UndecidedError, rule
from rules.trace.anomalies import MAX_HITS, hit_of_call

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="TRC-09",
    name="missing-linear-unmap",
    severity=Severity.HIGH,
    impact=Impact.LATENT,
    references=("arch/arm64/mm/mmu.c arch_remove_memory(): __remove_pages(), then __remove_pgd_mapping()",),
)
def missing_linear_unmap(timeline: Timeline) -> Iterator[Hit]:
    """Memory is removed and its linear map is not.

    What it means:
    The linear map still translates to memory that has gone: a stray access reads a device, a hole or whatever
    is plugged there next, instead of faulting.

    How it is detected:
    unmap_hotplug_range() of the linear map is looked for between the beginning and the end of every
    arch_remove_memory().

    When it is not a problem:
    Where unmap_hotplug_range() has no probe (it is static and may be inlined) its absence proves nothing: undecided.

    What to do:
    Compare with the page tables (LIN-01); look for an error message of the same moment in the log.
    """
    calls = timeline.calls
    unmaps = linear_unmaps(calls)
    if not unmaps.size:
        timeline.must_show(Kind.ARCH_REMOVE_MEMORY)
        raise UndecidedError(
            "no unmap_hotplug_range() of the linear map is in the trace: it may have no probe", Timeline
        )
    removals = calls.of(Kind.ARCH_REMOVE_MEMORY)
    over = removals[calls.start_known[removals] & (calls.until[removals] != NEVER)]
    done = innermost(calls, Kind.ARCH_REMOVE_MEMORY, calls.row[unmaps])
    for call in np.setdiff1d(over, distinct(done), assume_unique=True)[:MAX_HITS].tolist():
        yield hit_of_call(
            timeline, call, "Memory is removed and stays in the linear map",
            f"{timeline.describe(call)} ended without unmapping the linear map.", Claim.PROBABLE,
            doubtful=not timeline.trace.is_counted,
        )  # fmt: skip
    timeline.must_show(Kind.ARCH_REMOVE_MEMORY)
    if over.size < removals.size:
        raise UndecidedError(f"{timeline.describe(int(removals[-1]))} does not end within the trace", Timeline)

"""CNT-04: hot-added memory in contiguous runs on a kernel that flushes inside of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import Attr
from parsers.uname import KernelRelease
from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.model.bugs import bug, describe_fixes
from rules.model.memory.regions import LinearMap
from rules.model.memory.sections import SectionTable
from rules.model.replay.flushes import flushes_by_unmap, linear_unmaps
from rules.model.replay.timeline import Timeline
from rules.rule import NotApplicableError, UndecidedError, rule
from rules.trace.anomalies import MAX_HITS, hit_of_call

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="CNT-04",
    name="contiguous-tlb-shatter",
    severity=Severity.MEDIUM,
    impact=Impact.LATENT,
    references=("Linux commit 48478b9f7913 (v7.1; stable 6.12.86, 6.1.176)",),
)
def contiguous_tlb_shatter(linear: LinearMap, sections: SectionTable, release: KernelRelease) -> Iterator[Hit]:
    """Removing this memory flushes the TLB in the middle of contiguous runs.

    What it means:
    The kernel clears a run entry by entry and flushes after each: a speculative walk can load a TLB
    entry for the whole run from those not yet cleared, and keep translating to removed memory.

    How it is detected:
    Hot-added memory that the linear map holds in contiguous runs, on a release without the fix.

    When it is not a problem:
    A linear map of single pages or plain blocks is not exposed. Vendors backport the fix without
    changing the release: this stays a suspicion.

    What to do:
    Update, or boot with rodata=full so that the linear map is made of pages.
    """
    entry = bug("cont-tlb-shatter")
    if not entry.possible_in(release):
        raise NotApplicableError(f"{release.raw} has the fix")
    runs = linear.pfns(linear.pages(linear.where(linear.valid & linear.has(Attr.CONT))))
    exposed = runs & (sections.hotadded | sections.device)
    if exposed:
        offsets = linear.offsets(exposed.shift(-linear.layout.start_pfn))
        yield Hit(
            title="Hot-added memory is mapped in contiguous runs on a kernel that flushes inside of them",
            message=f"{exposed.total} hot-added pages lie in contiguous runs; {describe_fixes(entry)}.",
            claim=Claim.SUSPECTED,
            pfns=exposed,
            vas=linear.va_ranges(offsets),
            evidence=(
                *linear.quote_at(offsets),
                Evidence(release.path, release.raw, release.line),
            ),
        )
    elif runs & sections.early_unknown:
        raise UndecidedError("whether the memory in contiguous runs was hot-added is not known", "dmesg")
    elif not sections.devices_known and runs - sections.ram_sections:
        raise UndecidedError("what the contiguous runs outside of RAM belong to is not known", "iomem")


@contiguous_tlb_shatter.fallback
def predicted_by_trace(timeline: Timeline) -> Iterator[Hit]:
    """The linear map is flushed entry by entry while it is unmapped."""
    calls = timeline.calls
    unmaps, count = flushes_by_unmap(calls)
    mine = np.isin(unmaps, linear_unmaps(calls)) & (count > 1)
    for call, flushes in zip(unmaps[mine][:MAX_HITS].tolist(), count[mine].tolist(), strict=False):
        yield hit_of_call(
            timeline, call, "The TLB is flushed between the entries of a removal",
            f"{timeline.describe(call)} flushed {flushes} times; in contiguous runs that leaves stale translations.",
            Claim.SUSPECTED,
        )  # fmt: skip

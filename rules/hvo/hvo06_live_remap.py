"""HVO-06: struct pages were remapped while in use."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from parsers.ftrace.functions import Kind
from parsers.kconfig import Kconfig
from parsers.ranges import EMPTY
from rules.finding import Hit, Impact, Severity
from rules.model.replay.timeline import Timeline
from rules.rule import NotApplicableError, rule
from rules.trace.anomalies import hit_of_call

if TYPE_CHECKING:
    from collections.abc import Iterator

OPTION = "HUGETLB_PAGE_OPTIMIZE_VMEMMAP"
REMAPS = (
    Kind.HUGETLB_VMEMMAP_OPTIMIZE,
    Kind.HUGETLB_VMEMMAP_OPTIMIZE_FOLIOS,
    Kind.HUGETLB_VMEMMAP_RESTORE,
    Kind.HUGETLB_VMEMMAP_RESTORE_FOLIOS,
    Kind.VMEMMAP_REMAP_RANGE,
)


@rule(
    code="HVO-06",
    name="live-remap-in-trace",
    severity=Severity.HIGH,
    impact=Impact.LATENT,
    references=("Linux commit 060a2c92d1b6 (v6.3; stable 6.1.16, 6.2.3): arm64 no longer selects the optimisation",),
)
def live_remap(timeline: Timeline, *, kconfig: Kconfig | None) -> Iterator[Hit]:
    """Struct pages were remapped while in use.

    What it means:
    HugeTLB vmemmap optimisation changes where live struct pages are mapped to. arm64 requires an invalid entry and a
    flush in between, during which any reader of these struct pages faults; without them the TLB may hold both.

    How it is detected:
    Calls of hugetlb_vmemmap_optimize(), hugetlb_vmemmap_restore() or vmemmap_remap_range() in the trace.

    When it is not a problem:
    A kernel that stops all other CPUs while it remaps; none was released by 7.3.

    What to do:
    Boot with hugetlb_free_vmemmap=off, or set vm.hugetlb_optimize_vmemmap to 0 before huge pages are allocated.
    """
    if kconfig is not None and kconfig.is_enabled(OPTION) is False:
        raise NotApplicableError(f"the kernel is built without CONFIG_{OPTION}")
    calls = timeline.calls
    mine = calls.of(*REMAPS)
    if mine.size:
        first, last = int(mine[0]), int(mine[-1])
        counts = ", ".join(
            f"{int((calls.kind[mine] == kind).sum())} x {kind.name.lower()}"
            for kind in REMAPS
            if (calls.kind[mine] == kind).any()
        )
        hit = hit_of_call(timeline, first, "Struct pages of huge pages were remapped live", f"{counts}.")
        yield replace(hit, pfns=EMPTY, evidence=timeline.evidence(first, last), key="remap")
    timeline.must_show(*REMAPS)

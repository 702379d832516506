"""VMM-14: sections that a failed hot-add left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.layout import Precision
from parsers.ranges import Ranges
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.memory.regions import LinearMap
from rules.model.memory.resources import Resources
from rules.model.memory.sections import SectionTable
from rules.model.replay.timeline import Timeline, Trouble
from rules.rule import UndecidedError, rule
from rules.trace.anomalies import MAX_HITS, hit_of_call, places

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="VMM-14",
    name="half-added-range",
    severity=Severity.HIGH,
    impact=Impact.LATENT,
    references=(
        "Derived from mm/memory_hotplug.c __add_pages() and arch/arm64/mm/mmu.c arch_add_memory() (6.12): the error "
        "path unmaps the linear map and keeps the sections; no upstream report known",
        "Seen on 7.3.4: ndctl create-namespace -m devdax -M dev -a 4K -s 400M in a region that begins in a section",
    ),
)
def half_added(sections: SectionTable, linear: LinearMap, resources: Resources) -> Iterator[Hit]:
    """Sections are valid although nothing owns their memory and the linear map does not have it.

    What it means:
    A hot-add failed half-way: the sections that it had made stay, with struct pages, while the linear
    map and the resource are gone. pfn_valid() says that the memory exists, whoever touches it
    oopses, and adding the range again fails with -EEXIST.

    How it is detected:
    Sections of the exact section table that came after boot, are not online, have no memory block, no linear
    mapping, and no separate resource in /proc/iomem: a persistent-memory region, a CXL or a PCI window that
    they lie in does not count, nor does what a driver claimed there before its add failed.

    When it is not a problem:
    Device-private memory has no linear mapping by design, and a separate resource outside of such windows. Memory
    that was being added while the capture was taken looks like this for a moment.

    What to do:
    Search the log for "add_memory failed" or a driver that could not add its range (error -12). Adding the range again
    fails (-17), and a raw namespace over it may overwrite struct pages that lie in it (VMM-09). Reboot.
    """
    if sections.precision is not Precision.EXACT:
        raise UndecidedError("which sections are valid is not known exactly", "vmcore")
    if not sections.blocks_known:
        raise UndecidedError("which sections have a memory block is not known", "memory blocks")
    # A window of firmware or of a bus owns nothing, and what a driver claims in it is mapped, or was not added at all.
    owners = (resources.everything - resources.windows) | resources.ram
    owned = resources.pfns(owners, linear.layout.page_size) | sections.blocks | sections.online
    lone = (sections.hotadded - owned) & linear.pfns(linear.pages_observed - linear.pages_mapped)
    for lo, hi in lone.widen(sections.pages_per_section).tuples():
        left = lone & Ranges.one(lo, hi)
        offsets = linear.offsets(left.shift(-linear.layout.start_pfn))
        yield Hit(
            title="A failed hot-add left valid sections behind",
            message=(
                f"{left.total} pages ({', '.join(f'PFNs {a:#x}-{b:#x}' for a, b in left.tuples()[:4])}) are valid in "
                "mem_section; they are not online, have no memory block and no separate resource, and the linear "
                "map is empty there."
            ),
            claim=Claim.PROBABLE,
            pfns=left,
            vas=linear.va_ranges(offsets),
            evidence=linear.quote_at(offsets),
        )


@half_added.fallback
def predicted_by_trace(timeline: Timeline) -> Iterator[Hit]:
    """Sections of a failed add that are valid at the end."""
    for anomaly in timeline.of(Trouble.FAILED_WITHOUT_CLEANUP)[:MAX_HITS]:
        yield hit_of_call(
            timeline, anomaly.call, "A failed add left valid sections behind",
            f"{timeline.describe(anomaly.call)}: {anomaly.text} ({places(anomaly.pfns)}).", Claim.PROBABLE,
            doubtful=timeline.is_doubtful(anomaly),
        )  # fmt: skip

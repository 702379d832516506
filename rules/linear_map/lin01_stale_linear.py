"""LIN-01: linear addresses mapped for absent memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.ranges import EMPTY, Ranges, distinct
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.memory.regions import LinearMap, Vmemmap
from rules.model.memory.resources import Resources
from rules.model.memory.sections import SectionTable
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="LIN-01",
    name="stale-linear",
    severity=Severity.HIGH,
    impact=Impact.LATENT,
    references=("Linux commit bbd6ec605c0f (v5.7): before it arch_remove_memory() left the linear map in place",),
)
def stale_linear(
    linear: LinearMap, resources: Resources, sections: SectionTable, *, vmemmap: Vmemmap | None
) -> Iterator[Hit]:
    """The linear map still maps page frames of memory that is gone.

    What it means:
    The CPU may speculate into the mapping and load it into its TLB at any time. Where the hypervisor or
    the platform has taken the memory away, that ends in an external abort.

    How it is detected:
    Every mapped leaf of the linear map is compared with /proc/iomem and the memory blocks: a leaf
    of which no byte is RAM, a memory block or any other claimed resource is stale. Persistent or
    soft-reserved memory that no driver claims any more counts as gone, and is only suspected.

    When it is not a problem:
    Unplugged sub-blocks of virtio-mem stay mapped on purpose and are inside of System RAM. A leaf
    that only rounds the end of memory is another matter (LIN-08). Poisoned pages stay mapped. Removal takes the struct
    pages too (since 5.7): memory that has them, or of which the dump does not show them, may only be missing in a copy
    of /proc/iomem that lost lines, and is suspected.

    What to do:
    Find the removal in the trace or log, report it, and reboot before the platform reuses the range.
    """
    page = linear.layout.page_size
    known = resources.pfns(resources.everything, page) | sections.blocks
    # RAM whose section lost its memmap is not a device's: SEC-06 is about that.
    owned = resources.pfns(resources.ram | resources.nomap | resources.claimed, page) | sections.valid
    gone = _whole_leaves_outside(linear, known)
    described = EMPTY if vmemmap is None else gone & linear.offsets(vmemmap.pages_mapped)
    bare = EMPTY if vmemmap is None else gone & linear.offsets(vmemmap.pages_observed) - described
    parts = {
        "": (bare, Severity.HIGH, sections.claim, "no resource in /proc/iomem and no memory block"),
        "described": (
            described,
            Severity.MEDIUM,
            Claim.SUSPECTED,
            "no resource in /proc/iomem and no memory block, but have struct pages: a list may have lost lines",
        ),
        "unseen": (
            gone - bare - described,
            Severity.MEDIUM,
            Claim.SUSPECTED,
            "no resource in /proc/iomem and no memory block; whether they have struct pages is not in the dump",
        ),
        "unclaimed": (
            _whole_leaves_outside(linear, owned) - gone,
            Severity.MEDIUM,
            Claim.SUSPECTED,
            "memory that no driver claims any more",
        ),
    }
    for key, (stale, severity, claim, where) in parts.items():
        for lo, hi in stale.tuples():
            offsets = Ranges.one(lo, hi)
            pfns = linear.pfns(linear.pages(offsets))
            yield Hit(
                title="The linear map holds memory that is gone",
                message=(
                    f"{(hi - lo) >> 10} KiB of the linear map translate to PFNs {int(pfns.start[0]):#x}-"
                    f"{int(pfns.end[0]):#x}, which are {where}."
                ),
                claim=claim,
                severity=severity,
                pfns=pfns,
                vas=linear.va_ranges(offsets),
                evidence=linear.quote_at(offsets),
                key=key,
            )


def _whole_leaves_outside(linear: LinearMap, present: Ranges) -> Ranges:
    """Byte offsets of the mapped leaves that touch nothing in ``present`` (PFNs)."""
    offsets = linear.offsets(present.shift(-linear.layout.start_pfn))
    stale = linear.mapped
    for leaf in distinct(linear.leaf_size[linear.valid]).tolist():
        stale = stale - (linear.widen(offsets, leaf) & linear.where(linear.leaf_size == leaf))
    return stale

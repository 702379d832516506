"""LIN-08: a linear-map block that reaches past the end of memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.layout import Precision
from parsers.ranges import Ranges, distinct
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.memory.regions import LinearMap
from rules.model.memory.resources import Resources
from rules.model.memory.sections import SectionTable
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="LIN-08",
    name="block-over-nonram",
    severity=Severity.HIGH,
    impact=Impact.LATENT,
    references=("arch/arm64/mm/mmu.c alloc_init_pud(), init_pmd(): a block needs the whole span inside the range",),
)
def block_over_nonram(linear: LinearMap, resources: Resources, sections: SectionTable) -> Iterator[Hit]:
    """A block or contiguous run of the linear map covers addresses that are not memory.

    What it means:
    The kernel maps with a block only what lies wholly inside of a memory range. A leaf that
    reaches past it lets the CPU speculate into whatever is there, or is the residue of a removal.

    How it is detected:
    Leaves larger than a page of which one part is known memory and another is in no resource at all.

    When it is not a problem:
    /proc/iomem lists every memory range page by page; a driver's memory that it does not list is unknown here. A copy
    of it may have lost a line. The resource tree of a crash dump is whole, and a boot log that lists the memory shows
    that it is; without them this is suspected, and of medium severity.

    What to do:
    Find out who owns the physical addresses named below before touching them; report the leaf.
    """
    known = resources.pfns(resources.everything, linear.layout.page_size)
    offsets = linear.offsets(known.shift(-linear.layout.start_pfn))
    outside = linear.mapped - offsets
    size = linear.leaf_size
    for leaf in distinct(size[linear.valid]).tolist():
        partly = linear.widen(outside & linear.where(size == leaf), leaf) & linear.widen(offsets, leaf)
        for lo, hi in partly.tuples():
            beyond = Ranges.one(lo, hi) & outside
            pfns = linear.pfns(linear.pages(beyond))
            # Boot memory is known from a log only if /proc/iomem has all of it.
            sure = sections.precision is Precision.EXACT or not pfns - sections.early
            yield Hit(
                title="A linear-map block reaches past the end of memory",
                message=(
                    f"Leaves of {leaf >> 10} KiB at {linear.va(lo):#x} also cover PFNs "
                    f"{', '.join(f'{a:#x}-{b:#x}' for a, b in pfns.tuples()[:4])}, which /proc/iomem does not list."
                ),
                claim=sections.claim if sure else Claim.SUSPECTED,
                severity=None if sure else Severity.MEDIUM,
                pfns=pfns,
                vas=linear.va_ranges(beyond),
                evidence=linear.quote_at(beyond),
            )

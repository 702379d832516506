"""LIN-07: no-map memory that is in the linear map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rules.finding import Claim, Hit, Impact, Severity
from rules.linear_map.listed import need_all_listed
from rules.model.bugs import bug, describe_fixes
from rules.model.memory.regions import LinearMap
from rules.model.memory.resources import Resources
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="LIN-07",
    name="nomap-mapped",
    severity=Severity.HIGH,
    impact=Impact.SECURITY,
    references=("Linux commit 7ace06a01efa (stable 6.12.117): no-map regions were rounded outwards",),
)
def nomap_mapped(linear: LinearMap, resources: Resources) -> Iterator[Hit]:
    """Memory that firmware asked not to be mapped has a linear alias.

    What it means:
    No-map memory belongs to firmware, a secure world or a co-processor. A cacheable alias lets the CPU
    speculate into it, which can end in an external abort or in stale data.

    How it is detected:
    "reserved" ranges at the top level of /proc/iomem are no-map; they are looked up in the linear map.

    When it is not a problem:
    A carve-out smaller than a page shares its page with RAM, and /proc/iomem lists whole pages.

    What to do:
    Align the carve-out to the page size. Update to a kernel with 7ace06a01efa.
    """
    nomap = resources.pfns(resources.nomap, linear.layout.page_size) - resources.pfns(
        resources.ram, linear.layout.page_size
    )
    mapped = nomap & linear.pfns(linear.pages_mapped)
    if not mapped:
        need_all_listed(linear, resources)
        return
    offsets = linear.offsets(mapped.shift(-linear.layout.start_pfn))
    yield Hit(
        title="No-map memory is in the linear map",
        message=(
            f"{mapped.total} pages of no-map memory ({', '.join(f'{a:#x}-{b:#x}' for a, b in mapped.tuples()[:4])}) "
            f"are mapped. One page at an edge is the rounding bug: {describe_fixes(bug('nomap-mapped'))}."
        ),
        claim=Claim.PROBABLE,
        pfns=mapped,
        vas=linear.va_ranges(offsets),
        evidence=linear.quote_at(offsets),
    )

"""ATT-06: read-only pages in the linear map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import PMD, PTE, Attr
from parsers.ranges import Ranges
from rules.finding import Hit, Impact, Severity
from rules.model.memory.regions import LinearMap
from rules.model.memory.resources import Resources
from rules.model.memory.sections import SectionTable
from rules.rule import UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="ATT-06",
    name="readonly-linear",
    severity=Severity.MEDIUM,
    impact=Impact.INFORMATIONAL,
    references=("arch/arm64/mm/pageattr.c: with rodata=full the aliases of read-only vmalloc pages are read-only",),
)
def readonly_linear(linear: LinearMap, sections: SectionTable, *, resources: Resources | None) -> Iterator[Hit]:
    """Blocks of the linear map are read-only outside of the kernel image.

    What it means:
    A write through the linear map to such memory faults. The kernel makes single pages read-only (the
    aliases of module and BPF text); it never makes whole blocks of other memory read-only.

    How it is detected:
    Read-only rows above the last level, outside of the alias of "Kernel code" in /proc/iomem.

    When it is not a problem:
    The linear alias of the kernel's text and rodata is read-only. Single read-only pages are aliases of
    modules and BPF programs with rodata=full, and are not reported.

    What to do:
    Find out what the physical range is used for; take a crash dump if it is ordinary memory.
    """
    rows = linear.valid & linear.has(Attr.RDONLY) & (linear.level < PTE)
    if not rows.any():
        return
    if resources is None or not resources.kernel_code:
        raise UndecidedError("where the kernel image lies is not known", "iomem")
    # The protected part ends at __init_begin, "Kernel code" before it: rodata follows, aligned to a block at the most.
    unit = linear.layout.granule.span(PMD) >> linear.layout.page_shift
    image = resources.pfns(resources.kernel_code, linear.layout.page_size).widen(unit)
    outside = linear.pfns(linear.pages(linear.where(rows))) - image
    other = ~np.isin(outside.start, image.end)
    outside = Ranges(outside.start[other], outside.end[other])
    if outside:
        offsets = linear.offsets(outside.shift(-linear.layout.start_pfn))
        yield Hit(
            title="Blocks of the linear map are read-only",
            message=f"{outside.total} pages outside of the kernel image are read-only in whole blocks.",
            claim=sections.claim,
            pfns=outside,
            vas=linear.va_ranges(offsets),
            evidence=linear.quote(np.flatnonzero(rows & offsets.touches(linear.start, linear.end))),
        )

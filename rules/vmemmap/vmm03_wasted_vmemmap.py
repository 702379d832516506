"""VMM-03: a 2 MiB vmemmap block for a section that is only partly populated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.ranges import Ranges
from rules.finding import Hit, Impact, Severity
from rules.model.memory.regions import Vmemmap
from rules.model.memory.sections import SectionTable
from rules.rule import NotApplicableError, rule
from rules.vmemmap.blocks import Blocks
from rules.vmemmap.devices import need_devices

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="VMM-03",
    name="wasted-vmemmap",
    severity=Severity.LOW,
    impact=Impact.WASTE,
    references=("Linux commit d4234d131b0a (v6.14; stable 6.12.20, 6.1.132)",),
)
def wasted_vmemmap(vmemmap: Vmemmap, sections: SectionTable) -> Iterator[Hit]:
    """Struct pages are allocated 2 MiB at a time for ranges that need less.

    What it means:
    A 2 MiB subsection needs 32 KiB of struct pages; a kernel without d4234d131b0a allocates a 2 MiB
    block for it, of which 98 % is never used.

    How it is detected:
    The blocks that VMM-01 looks at, those under which part of the memory is not valid; the unused
    part is summed up.

    When it is not a problem:
    The memmap of a boot section covers the whole section by design, also where RAM ends inside it.

    What to do:
    Align namespaces and DIMMs to the section size (128 MiB), or update the kernel.
    """
    if vmemmap.layout.page_size != 4096:
        raise NotApplicableError(f"{vmemmap.layout.granule.name} pages: struct pages are always mapped with base pages")
    blocks = Blocks.of(vmemmap, at=sections.device)
    idle = blocks.pages - sections.valid.covered(blocks.start_pfn, blocks.end_pfn)
    wasteful = (idle != 0) & ~blocks.touching(sections.ram_sections)
    wasteful &= sections.in_part.touches(blocks.start_pfn, blocks.end_pfn)
    if not wasteful.any():
        need_devices(vmemmap, sections)
        return
    unused = int(idle[wasteful].sum()) * vmemmap.layout.struct_page_size
    pfns, offsets = Ranges.of(blocks.start_pfn[wasteful], blocks.end_pfn[wasteful]), blocks.offsets(wasteful)
    yield Hit(
        title=f"{unused >> 10} KiB of struct pages describe no memory",
        message=(
            f"{np.count_nonzero(wasteful)} vmemmap blocks of 2 MiB lie over sections that are only partly populated; "
            f"{unused >> 10} KiB of them are never used."
        ),
        claim=sections.claim,
        pfns=pfns & sections.valid,
        vas=vmemmap.va_ranges(offsets),
        evidence=vmemmap.quote_at(offsets),
    )

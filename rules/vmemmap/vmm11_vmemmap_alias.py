"""VMM-11: one page of struct pages at several addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import Attr
from parsers.ranges import EMPTY, distinct
from parsers.uname import KernelRelease
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.bugs import bug, describe_fixes
from rules.model.memory.regions import Vmemmap
from rules.model.memory.sections import SectionTable
from rules.model.memory.walk import Outputs, PageWalk
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_HITS = 64


@rule(
    code="VMM-11",
    name="vmemmap-alias",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=(
        "mm/sparse-vmemmap.c vmemmap_populate_compound_pages(): tail pages of device-dax are shared (v5.19)",
        "Linux commit 87a7ae75d738 (v6.4; stable 6.1.184): only where the architecture asks for it",
    ),
)
def vmemmap_alias(
    vmemmap: Vmemmap, walk: PageWalk, *, section_table: SectionTable | None, kernel_release: KernelRelease | None
) -> Iterator[Hit]:
    """Struct pages of different memory share one writable page.

    What it means:
    Two page frames have one struct page: a reference count or a flag of one changes the other. Sooner or
    later a page is freed that is in use.

    How it is detected:
    The output addresses of all entries in the vmemmap area, from the walk of a crash dump: a physical
    page that more than one writable entry leads to.

    When it is not a problem:
    HugeTLB vmemmap optimisation shares pages read-only, which HVO-03 judges. Kernels from 5.19 to 6.3 share
    the tail pages of device-dax memory, writable, on purpose; on such a kernel device memory is left out.

    What to do:
    Stop memory hotplug and device-dax activity, take a crash dump, reboot.
    """
    outputs = Outputs.of(vmemmap, walk)
    writable = outputs[~vmemmap.has(Attr.RDONLY)[outputs.row]]
    shared = writable.shared()
    if not shared:
        return
    pieces = writable.cut(EMPTY.start, np.concatenate((shared.start, shared.end)))
    deduplicated = kernel_release is not None and bug("dax-dedup").possible_in(kernel_release)
    device = section_table.device if deduplicated and section_table is not None else EMPTY
    for lo, hi in shared.tuples()[:MAX_HITS]:
        here = pieces[(pieces.pa < hi) & (pieces.pa_end > lo)]
        pfns = vmemmap.pfns(vmemmap.pages_touched(here.offsets))
        if not pfns - device:
            continue
        places = ", ".join(f"{vmemmap.va(int(start)):#x}" for start in here.start[:4].tolist())
        yield Hit(
            title="One page of struct pages is mapped at several addresses",
            message=(
                f"Physical {lo:#x}-{hi:#x} is mapped, writable, at {places}"
                f"{' and more' if len(here) > 4 else ''}: the struct pages of PFNs "
                f"{', '.join(f'{a:#x}-{b:#x}' for a, b in pfns.tuples()[:4])} are not their own."
                + (f" Device memory may share them: {describe_fixes(bug('dax-dedup'))}." if deduplicated else "")
            ),
            claim=Claim.PROVEN,
            pfns=pfns,
            vas=vmemmap.va_ranges(here.offsets)[:64],
            evidence=vmemmap.quote(distinct(here.row)),
        )

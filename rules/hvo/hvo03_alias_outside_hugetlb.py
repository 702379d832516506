"""HVO-03: struct pages shared read-only by memory that is not a huge page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import Attr
from parsers.ranges import EMPTY, distinct
from parsers.vmcore.rows import HugetlbRows
from rules.finding import Claim, Hit, Impact, Severity
from rules.hvo.evidence import huge_page_sizes, into_memmap, memmap_bytes
from rules.model.memory.regions import Vmemmap
from rules.model.memory.walk import Outputs, PageWalk
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.mapping import I64, Bool

MAX_HITS = 64


@rule(
    code="HVO-03",
    name="alias-outside-hugetlb",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=("mm/hugetlb_vmemmap.c vmemmap_remap_free() (v5.19 to 6.2): tails are mapped to the page of the head",),
)
def alias_outside_hugetlb(vmemmap: Vmemmap, walk: PageWalk, *, hugetlb_rows: HugetlbRows | None) -> Iterator[Hit]:
    """Read-only struct pages share a page across more than one huge page, or where none can be.

    What it means:
    HugeTLB vmemmap optimisation maps the tail struct pages of a huge page to the page of its head. Here
    pages that are not the tails of one huge page share one: they have the state of memory that they are not.

    How it is detected:
    The output addresses of the vmemmap area, from the walk of a crash dump. All entries that map one page
    must lie in the struct pages of one aligned huge page, of a size that has huge pages.

    When it is not a problem:
    The tails of one huge page, on kernels with the optimisation. Pages that several writable entries
    lead to are VMM-11.

    What to do:
    Disable the optimisation (hugetlb_free_vmemmap=off), take a crash dump.
    """
    outputs = Outputs.of(vmemmap, walk)
    shared = outputs.shared()
    if not shared:
        return
    pieces = outputs.cut(EMPTY.start, np.concatenate((shared.start, shared.end)))
    pieces = pieces[shared.contains(pieces.pa)]
    group = np.searchsorted(shared.start, pieces.pa, side="right") - 1
    writable = ~vmemmap.has(Attr.RDONLY)[pieces.row]
    # A writable run of equal entries, or two writable entries, is not made by this optimisation.
    entries = np.concatenate((group[writable], group[writable & pieces.repeated]))
    many = np.bincount(entries, minlength=len(shared)) > 1
    wrong = ~many & ~_one_huge_page(vmemmap, pieces, group, hugetlb_rows)
    for index in np.flatnonzero(wrong)[:MAX_HITS].tolist():
        here = pieces[group == index]
        pfns = vmemmap.pfns(vmemmap.pages_touched(here.offsets))
        yield Hit(
            title="Struct pages are shared by memory that is not a huge page",
            message=(
                f"Physical {int(shared.start[index]):#x} is the page of struct pages of PFNs "
                f"{', '.join(f'{a:#x}-{b:#x}' for a, b in pfns.tuples()[:4])}, read-only; those are not the tails of "
                "one huge page."
            ),
            claim=Claim.PROVEN,
            pfns=pfns,
            vas=vmemmap.va_ranges(here.offsets)[:64],
            evidence=vmemmap.quote(distinct(here.row)),
        )


def _one_huge_page(vmemmap: Vmemmap, pieces: Outputs, group: I64, pools: HugetlbRows | None) -> Bool:
    """Groups of pieces that lie in the struct pages of one aligned huge page of a size that is in use."""
    layout = vmemmap.layout
    sizes = set(huge_page_sizes(layout.granule))
    if pools is not None:
        used = pools.order[np.flatnonzero(pools.nr_huge_pages)]
        sizes &= {layout.page_size << order for order in used.tolist()}
    # Pieces ascend, and every group has some.
    _, first = np.unique(group, return_index=True)
    _, last = np.unique(np.flip(group), return_index=True)
    start, end = pieces.start[first], np.flip(pieces.end)[last]
    fits = np.zeros(first.size, dtype=np.bool_)
    for size in sizes:
        fits |= into_memmap(layout, start, size) + (end - start) <= memmap_bytes(layout, size)
    return fits

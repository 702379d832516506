"""HVO-04: read-only struct pages in a shape that no huge page explains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import PTE, Attr
from parsers.cmdline import CommandLine
from parsers.kconfig import Kconfig
from parsers.ranges import Ranges
from parsers.uname import KernelRelease
from rules.finding import Claim, Hit, Impact, Severity
from rules.hvo.evidence import HvoEvidence, huge_page_sizes, into_memmap, memmap_bytes
from rules.model.bugs import HVO_RELEASES
from rules.model.memory.regions import Vmemmap
from rules.model.memory.walk import PageWalk
from rules.rule import NotApplicableError, UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="HVO-04",
    name="hvo-bad-pattern",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=(
        "mm/hugetlb_vmemmap.c vmemmap_remap_free(): the head page stays, the tails are aliased (v5.19 to 6.2)",
    ),
)
def bad_pattern(
    vmemmap: Vmemmap,
    *,
    kconfig: Kconfig | None,
    command_line: CommandLine | None,
    kernel_release: KernelRelease | None,
    page_walk: PageWalk | None,
) -> Iterator[Hit]:
    """Optimised struct pages do not have the shape of a huge page.

    What it means:
    The struct pages of an optimised huge page are one writable page (two before 5.18) and read-only
    pages up to the end of its memmap. Another shape means a remapping that stopped half-way.

    How it is detected:
    Each run of read-only base pages must end where the memmap of a huge page ends, and start one or two
    pages after where it starts. In a crash dump all entries of a run must map one page.

    When it is not a problem:
    Kernels without the optimisation have no read-only struct pages (HVO-02). Huge pages whose memmap fits
    into a page are never optimised.

    What to do:
    Disable the optimisation (hugetlb_free_vmemmap=off), take a crash dump.
    """
    rows = vmemmap.valid & vmemmap.has(Attr.RDONLY)
    if not rows.any():
        raise NotApplicableError("no struct page is read-only")
    built_in = HvoEvidence.of(kconfig, command_line).built_in
    if built_in is False:
        raise NotApplicableError("the kernel is built without the optimisation (HVO-02 applies)")
    in_range = kernel_release is not None and HVO_RELEASES[0] <= kernel_release.series < HVO_RELEASES[1]
    if built_in is None and not in_range:
        raise UndecidedError("whether the kernel has HugeTLB vmemmap optimisation is not known", Kconfig)
    wrong = unexplained(vmemmap, vmemmap.where(rows)) | vmemmap.where(rows & (vmemmap.level != PTE))
    if page_walk is not None:
        wrong = wrong | vmemmap.where(rows & ~page_walk.repeated[vmemmap.rows])
    if wrong:
        yield Hit(
            title="Read-only struct pages in a shape that no huge page has",
            message=f"{len(wrong)} read-only runs of struct pages do not fit a huge page's memmap.",
            claim=Claim.PROBABLE,
            vas=vmemmap.va_ranges(wrong)[:64],
            evidence=vmemmap.quote_at(wrong),
        )


def unexplained(vmemmap: Vmemmap, runs: Ranges) -> Ranges:
    """Read-only runs (byte offsets) that are not the tail of some huge page's memmap."""
    layout = vmemmap.layout
    fits = np.zeros(len(runs), dtype=np.bool_)
    for size in huge_page_sizes(layout.granule):
        ends = into_memmap(layout, runs.end, size) == 0
        for kept in (1, 2):
            fits |= ends & (runs.end - runs.start == memmap_bytes(layout, size) - kept * layout.page_size)
    return Ranges.of(runs.start[~fits], runs.end[~fits])

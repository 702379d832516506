"""Page size, sizeof(struct page) and the vmemmap base as the trace itself shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.ftrace.functions import Kind
from parsers.ranges import distinct
from parsers.records import dataclass
from rules.model.layout.builder import STRUCT_PAGE_SIZES

if TYPE_CHECKING:
    from parsers.layout import KernelLayout
    from parsers.mapping import I64
    from parsers.uname import KernelRelease
    from rules.model.replay.calls import Calls

__all__ = ["Calibration", "calibrate", "seen_behaviour"]

_DEFAULT_STRUCT_PAGE = 64
_PAGE_SIZES = (4096, 16384, 65536)
_BY_PAGES = (Kind.ADD_PAGES, Kind.SPARSE_ADD_SECTION, Kind.REMOVE_PAGES, Kind.SPARSE_REMOVE_SECTION)
_SMALL_SECTIONS = (5, 12)
"""arch/arm64/include/asm/sparsemem.h: sections of 1 GiB until f0b13ee23241."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Page size, sizeof(struct page) and the vmemmap base that the trace itself betrays."""

    page_size: int
    struct_page_size: int
    vmemmap: int | None
    """Address of the struct page of PFN 0 (the biased pointer), None without a populate or free."""
    pages_per_section: int
    source: str

    def foreign_to(self, layout: KernelLayout) -> str:
        """Why the trace is not of the kernel of ``layout``: another page size, or struct pages elsewhere (KASLR)."""
        pages = layout.get("page_size")
        if self.source == "the trace" and pages not in {None, self.page_size}:
            return f"its pages have {self.page_size} bytes, those of the kernel {pages}"
        known = layout.knows("vmemmap_start", "phys_offset", "page_size", "struct_page_size")
        if not known or self.vmemmap is None or self.struct_page_size != layout.struct_page_size:
            return ""
        there = (layout.vmemmap_start - layout.start_pfn * self.struct_page_size) & (2**64 - 1)
        if self.vmemmap == there:
            return ""
        return f"the struct page of PFN 0 is at {self.vmemmap:#x} in it, and at {there:#x} in the page tables"


def calibrate(calls: Calls, layout: KernelLayout | None, release: KernelRelease | None) -> Calibration:
    """Sizes from the calls themselves: an add in bytes and in pages, a populate in addresses and its pages."""
    page_size, source = _page_size(calls), "the trace"
    if not page_size:
        known = layout.get("page_size") if layout is not None else None
        page_size, source = (known, "the layout") if known else (4096, "assumed")
    struct_page, vmemmap = _struct_page(calls)
    if struct_page is None:
        struct_page = (layout.get("struct_page_size") if layout is not None else None) or _DEFAULT_STRUCT_PAGE
        if layout is not None and layout.knows("vmemmap_start", "phys_offset", "page_size"):
            vmemmap = (layout.vmemmap_start - layout.start_pfn * struct_page) & (2**64 - 1)
    section = _pages_per_section(calls, page_size, layout, release)
    return Calibration(page_size, struct_page, vmemmap, section, source)


def _page_size(calls: Calls) -> int:
    """The first pair of a call in pages and the call in bytes around it that fit each other, 0 without one."""
    inner = calls.of(*_BY_PAGES)
    outer = calls.parent[inner]
    by_pages = (outer >= 0) & np.isin(calls.kind[outer], _BY_PAGES)
    outer = np.where(by_pages, calls.parent[outer], outer)
    both = (outer >= 0) & calls.start_known[inner] & calls.start_known[outer] & (calls.start[inner] > 0)
    both &= np.isin(calls.kind[outer], (Kind.ARCH_ADD_MEMORY, Kind.ARCH_REMOVE_MEMORY))
    sizes = calls.start[outer[both]] // calls.start[inner[both]]
    fitting = sizes[np.equal.outer(sizes, _PAGE_SIZES).any(axis=1)]
    return int(fitting[0]) if fitting.size else 0


def _struct_page(calls: Calls) -> tuple[int | None, int | None]:
    """sizeof(struct page) and the biased vmemmap pointer from a populate or free inside of its section."""
    inner = calls.of(Kind.VMEMMAP_POPULATE, Kind.VMEMMAP_FREE)
    outer = calls.parent[inner]
    both = (outer >= 0) & calls.start_known[inner] & calls.start_known[outer] & (calls.end[outer] > calls.start[outer])
    both &= np.isin(calls.kind[outer], (Kind.SPARSE_ADD_SECTION, Kind.SPARSE_REMOVE_SECTION))
    inner, outer = inner[both], outer[both]
    pages, span = calls.end[outer] - calls.start[outer], calls.end[inner] - calls.start[inner]
    size = span // pages
    fitting = np.flatnonzero(np.equal.outer(size, STRUCT_PAGE_SIZES).any(axis=1) & (size * pages == span))
    if not fitting.size:
        return None, None
    first = int(fitting[0])
    found = int(size[first])
    return found, (int(calls.start[inner[first]]) - int(calls.start[outer[first]]) * found) & (2**64 - 1)


def _pages_per_section(calls: Calls, page_size: int, layout: KernelLayout | None, release: KernelRelease | None) -> int:
    """From the layout, or the largest section call seen, or what the release has."""
    if layout is not None and layout.knows("section_size_bits") and layout.get("page_size") == page_size:
        return layout.section_size // page_size
    bits = 29 if page_size == 65536 else 27
    if release is not None and release.series < _SMALL_SECTIONS:
        bits = 30
    sections = calls.of(Kind.SPARSE_ADD_SECTION, Kind.SPARSE_REMOVE_SECTION)
    sections = sections[calls.start_known[sections]]
    default = (1 << bits) // page_size
    largest = int((calls.end[sections] - calls.start[sections]).max()) if sections.size else 0
    return max(default, min(1 << (largest - 1).bit_length(), (1 << 30) // page_size)) if largest else default


def seen_behaviour(calls: Calls, calibration: Calibration) -> bool | None:
    """Whether a short populate was seen to use base pages (True) or a block (False); None if neither was."""
    if calibration.page_size != 4096:
        return None
    whole = np.uint64(calibration.pages_per_section * calibration.struct_page_size)
    populates = calls.of(Kind.VMEMMAP_POPULATE)
    short = populates[calls.start_known[populates] & (calls.end[populates] - calls.start[populates] < whole)]

    def inside(*kinds: Kind) -> I64:
        return np.intersect1d(short, distinct(calls.parent[calls.of(*kinds)]), assume_unique=True)

    if inside(Kind.VMEMMAP_POPULATE_HUGEPAGES, Kind.VMEMMAP_SET_PMD).size:
        return False
    return True if inside(Kind.VMEMMAP_POPULATE_BASEPAGES).size else None

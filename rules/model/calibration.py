"""Page size, sizeof(struct page) and the vmemmap base that a trace betrays of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from parsers.ftrace.functions import Kind
from rules.model.layout import STRUCT_PAGE_SIZES

if TYPE_CHECKING:
    from parsers.layout import KernelLayout
    from rules.model.operations import Calls

__all__ = ["Calibration", "calibrate", "seen_behaviour"]

_DEFAULT_STRUCT_PAGE = 64


@dataclass(frozen=True, slots=True)
class Calibration:
    """Page size, sizeof(struct page) and the vmemmap base that the trace itself betrays."""

    page_size: int
    struct_page_size: int
    vmemmap: int | None
    """Address of the struct page of PFN 0 (the biased pointer), None without a populate or free."""
    pages_per_section: int
    source: str


def calibrate(calls: Calls, layout: KernelLayout | None) -> Calibration:
    """Sizes from the calls themselves: an add in bytes and in pages, a populate in addresses and its pages."""
    page_size, source = 0, "the trace"
    for inner in calls.of(
        Kind.ADD_PAGES, Kind.SPARSE_ADD_SECTION, Kind.REMOVE_PAGES, Kind.SPARSE_REMOVE_SECTION
    ).tolist():
        outer = int(calls.parent[inner])
        while outer >= 0 and calls.kind[outer] not in {Kind.ARCH_ADD_MEMORY, Kind.ARCH_REMOVE_MEMORY}:
            outer = int(calls.parent[outer])
        if outer >= 0 and calls.start_known[inner] and calls.start_known[outer] and int(calls.start[inner]):
            page_size = int(calls.start[outer]) // int(calls.start[inner])
            break
    if page_size not in {4096, 16384, 65536}:
        known = layout.get("page_size") if layout is not None else None
        page_size, source = (known, "the layout") if known else (4096, "assumed")
    struct_page, vmemmap = _struct_page(calls)
    if struct_page is None:
        struct_page = (layout.get("struct_page_size") if layout is not None else None) or _DEFAULT_STRUCT_PAGE
    section = _pages_per_section(calls, page_size, layout)
    return Calibration(page_size, struct_page, vmemmap, section, source)


def _struct_page(calls: Calls) -> tuple[int | None, int | None]:
    """sizeof(struct page) and the biased vmemmap pointer from a populate or free inside of its section."""
    for inner in calls.of(Kind.VMEMMAP_POPULATE, Kind.VMEMMAP_FREE).tolist():
        outer = int(calls.parent[inner])
        if outer < 0 or not (calls.start_known[inner] and calls.start_known[outer]):
            continue
        if calls.kind[outer] not in {Kind.SPARSE_ADD_SECTION, Kind.SPARSE_REMOVE_SECTION}:
            continue
        pages = int(calls.end[outer]) - int(calls.start[outer])
        span = int(calls.end[inner]) - int(calls.start[inner])
        size = span // pages if pages > 0 else 0
        if size in STRUCT_PAGE_SIZES and span == size * pages:
            return size, (int(calls.start[inner]) - int(calls.start[outer]) * size) & (2**64 - 1)
    return None, None


def _pages_per_section(calls: Calls, page_size: int, layout: KernelLayout | None) -> int:
    """From the layout, or the largest section call seen, or the size of sections since 5.12."""
    if layout is not None and layout.knows("section_size_bits") and layout.get("page_size") == page_size:
        return layout.section_size // page_size
    sections = calls.of(Kind.SPARSE_ADD_SECTION, Kind.SPARSE_REMOVE_SECTION)
    default = (1 << (29 if page_size == 65536 else 27)) // page_size
    if sections.size:
        return max(default, int((calls.end[sections] - calls.start[sections]).max()))
    return default


def seen_behaviour(calls: Calls, calibration: Calibration) -> bool | None:
    """Whether a short populate was seen to use base pages (True) or a block (False); None if neither was."""
    if calibration.page_size != 4096:
        return None
    whole = calibration.pages_per_section * calibration.struct_page_size
    short = [
        number
        for number in calls.of(Kind.VMEMMAP_POPULATE).tolist()
        if calls.start_known[number] and int(calls.end[number] - calls.start[number]) < whole
    ]
    inner = {
        int(calls.parent[number]) for number in calls.of(Kind.VMEMMAP_POPULATE_HUGEPAGES, Kind.VMEMMAP_SET_PMD).tolist()
    }
    if any(number in inner for number in short):
        return False
    base = {int(calls.parent[number]) for number in calls.of(Kind.VMEMMAP_POPULATE_BASEPAGES).tolist()}
    return True if any(number in base for number in short) else None

"""Where tables can be: the kernel makes them in memory that the linear map reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from parsers.layout import KernelLayout
    from parsers.mapping import I64, Bool

__all__ = ["beyond_linear_map"]


def beyond_linear_map(layout: KernelLayout, pfn: I64) -> Bool:
    """Page frames that no linear address stands for: memory cannot be there (mhp_get_pluggable_range())."""
    first = layout.start_pfn
    return (pfn < first) | (pfn >= first + ((layout.linear_end - layout.page_offset) >> layout.page_shift))

"""Faults just outside of the vmemmap area: what the pointer to a struct page was computed from.

virt_to_page() and page_to_pfn() are plain arithmetic (include/asm-generic/memory_model.h,
arch/arm64/include/asm/memory.h): of an address that is not linear, or a page frame number below the start of memory,
they make a pointer just past or just before the struct pages.  One division gives back what went in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.layout import MASK
from parsers.records import dataclass
from rules.model.oops import Region

if TYPE_CHECKING:
    from rules.model.oops import DecodedOops

__all__ = ["Outside", "struct_page_outside"]

MAX_BELOW = 64 << 30
"""Bytes below the start of memory that a wrong page frame number, such as 0, can mean."""
MAX_ABOVE = 1 << 40
"""Bytes above PAGE_END that hold modules and the kernel image wherever it was moved."""
_USERS = (
    *("kfree", "__kfree", "kmem_cache_free", "ksize", "__check_object_size", "__check_heap_object", "usercopy"),
    *("virt_to_", "mem_cgroup_from", "obj_to", "__free_pages", "free_pages", "free_page", "put_page", "__put_page"),
    *("page_to_", "dax_", "get_page", "try_get", "gup_", "follow_page", "dma_", "swiotlb", "sg_", "skb_", "bio_"),
    *("memcg_slab", "slab_", "___cache_free", "kasan_", "__page_", "page_", "folio_", "vunmap", "free_large_kmalloc"),
)


@dataclass(frozen=True, slots=True)
class Outside:
    """What a pointer beside the struct pages was made from."""

    virtual: int | None
    """The address that is not linear; None where the page frame number lies below memory."""
    area: str
    """The area of ``virtual``."""
    below: int
    """Bytes below the start of the linear map's memory; 0 for a virtual address."""
    pfn: int | None
    """The page frame number below memory, where PHYS_OFFSET is known."""
    witness: str
    """A register that holds what the pointer was made from, or a function that does such arithmetic."""

    @property
    def text(self) -> str:
        """In one sentence."""
        if self.virtual is not None:
            area = "the kernel image, or vmalloc" if self.area in {"image", "vmalloc"} else self.area
            return f"virt_to_page() of {self.virtual:#x} ({area}), which is not a linear address{self.witness}"
        number = f"PFN {self.pfn:#x}" if self.pfn is not None else "a page frame number"
        return f"the struct page of {number}, {self.below >> 20} MiB below the start of memory{self.witness}"


def struct_page_outside(oops: DecodedOops) -> Outside | None:
    """What the address was computed from, None where it is not that of a struct page beside the area."""
    address, layout = oops.report.address, oops.layout
    known = layout.knows("vmemmap_start", "vmemmap_end", "page_offset", "linear_end", "page_size", "struct_page_size")
    if address is None or not known or oops.region is not Region.OTHER or address.tag is not None or address.value & 3:
        return None
    if address.value >= layout.vmemmap_end:
        return _above(oops, address.value)
    return _below(oops, address.value)


def _above(oops: DecodedOops, va: int) -> Outside | None:
    layout = oops.layout
    index = (va - layout.vmemmap_start) // layout.struct_page_size
    virtual = (layout.page_offset + (index << layout.page_shift)) & MASK
    if not layout.linear_end <= virtual < min(layout.linear_end + MAX_ABOVE, layout.vmemmap_start):
        return None
    area = oops.area_of(virtual)
    held = [
        name
        for name, value in oops.report.registers.items()
        if value >> layout.page_shift == virtual >> layout.page_shift
    ]
    user = oops.report.passes(*_USERS)
    if held:
        return Outside(virtual, area, 0, None, f"; {held[0]} points into that page")
    vmalloc = next((one.start for one in oops.areas if one.name == "vmalloc"), layout.linear_end)
    near = virtual < vmalloc + _IMAGE_AT_MOST
    return Outside(virtual, area, 0, None, f"; {user}() computes one") if user and near else None


_IMAGE_AT_MOST = 512 << 20
"""Bytes after the modules in which the image and the first stacks of a kernel lie that is not moved."""


def _below(oops: DecodedOops, va: int) -> Outside | None:
    layout = oops.layout
    index = (va - layout.vmemmap_first) // layout.struct_page_size
    below = -index << layout.page_shift
    if not 0 < below <= MAX_BELOW:
        return None
    pfn = index + oops.first_index + layout.start_pfn if layout.knows("phys_offset") else None
    registers = oops.report.registers
    starts = {layout.vmemmap_first, layout.vmemmap_start}
    start = next((name for name, value in registers.items() if value in starts), "")
    offset = next((name for name, value in registers.items() if value == below), "")
    user = oops.report.passes(*_USERS)
    if pfn is None and offset:
        return Outside(None, "", below, 0, f": {offset} holds PHYS_OFFSET, {below:#x}")
    if pfn is not None and pfn < 0:
        return None
    # The top of vmalloc is close: an address there needs more evidence.
    if not (start or offset) and (not user or oops.area == "vmalloc"):
        return None
    return Outside(None, "", below, pfn, f"; {start} holds the start of vmemmap" if start else "")

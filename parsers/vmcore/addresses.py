"""Kernel virtual to physical addresses by arithmetic, from VMCOREINFO alone, and the shape of the page tables.

A dump is audited because its page tables may be wrong, so the linear map and the kernel image are never
translated through them.  Formulas: arch/arm64/include/asm/memory.h, 4.14 to 6.18.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from parsers.arm64 import GRANULES, Granule
from parsers.errors import FormatError, LayoutError
from parsers.layout import ERAS, regions
from parsers.mapping import U64, Bool
from parsers.records import dataclass
from parsers.vmcoreinfo import VmcoreInfo

__all__ = ["MASK", "AddressMap"]

MASK = (1 << 64) - 1
_MAX_IMAGE = 512 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressMap:
    """How one kernel lays out its addresses; all arithmetic is modulo 2**64."""

    granule: Granule
    va_bits: int
    """Bits that ``swapper_pg_dir`` is laid out for."""
    va_actual: int
    """Bits in use: 64 - TCR_EL1.T1SZ."""
    page_offset: int
    linear_end: int
    """End of the linear map, exclusive; 2**64 up to 5.3."""
    phys_offset: int
    kimage_voffset: int
    swapper_pg_dir: int
    """Virtual address, in the kernel image."""
    image_start: int
    image_end: int
    vmemmap: tuple[int, int] | None = None
    """First address of the struct pages and the end, exclusive; None where VMCOREINFO and the release do not say."""

    @classmethod
    def from_vmcoreinfo(cls, info: VmcoreInfo) -> AddressMap:
        """The map that VMCOREINFO describes; LayoutError naming what is missing."""
        needed = {
            "PAGESIZE": info.page_size,
            "NUMBER(VA_BITS)": info.number("VA_BITS"),
            "NUMBER(PHYS_OFFSET)": info.number("PHYS_OFFSET"),
            "NUMBER(kimage_voffset)": info.number("kimage_voffset"),
            "SYMBOL(swapper_pg_dir)": info.symbol("swapper_pg_dir"),
        }
        missing = [name for name, value in needed.items() if value is None]
        if missing:
            raise LayoutError(f"VMCOREINFO lacks {', '.join(missing)}")
        page_size, va_bits, phys_offset, voffset, swapper = (int(value or 0) & MASK for value in needed.values())
        if page_size not in GRANULES or not 36 <= va_bits <= 52:
            raise FormatError(f"VMCOREINFO states pages of {page_size} bytes and {va_bits} address bits")
        t1sz = info.number("TCR_EL1_T1SZ")
        va_actual = va_bits if t1sz is None or not 12 <= t1sz <= 28 else 64 - t1sz
        # Since the flip of the linear map (14c127c957c1, 5.4) the kernel image lies in the upper half.
        flipped = bool(swapper >> (va_bits - 1) & 1)
        page_offset, linear_end = -(1 << (va_bits - 1)), 1 << 64
        if flipped:
            # Before 7bc1a0f9e176 (5.10) a 52-bit kernel on 48-bit hardware did not shift memstart_addr below zero.
            unshifted = va_actual < va_bits and phys_offset < 1 << 52
            page_offset = -(1 << (va_actual if unshifted else va_bits))
            va_min = va_bits if va_bits < 52 else 47 if page_size == 16384 else 48
            linear_end = -(1 << (va_min - 1)) & MASK
        stext = info.symbol("_stext") or swapper
        return cls(
            granule=GRANULES[page_size],
            # With 64K pages swapper_pg_dir is always laid out for CONFIG_ARM64_VA_BITS; with 4K and 16K, 52-bit kernels
            # fold levels away on hardware without LPA2.
            va_bits=va_bits if page_size == 65536 else va_actual,
            va_actual=va_actual,
            page_offset=page_offset & MASK,
            linear_end=linear_end,
            phys_offset=phys_offset,
            kimage_voffset=voffset,
            swapper_pg_dir=swapper,
            image_start=min(stext, swapper) & ~0x1FFFFF,
            image_end=min(max(stext, swapper) + _MAX_IMAGE, MASK),
            vmemmap=_vmemmap(info, page_size, va_bits, va_actual),
        )

    @property
    def root_pa(self) -> int:
        """Physical address of ``swapper_pg_dir``."""
        return (self.swapper_pg_dir - self.kimage_voffset) & MASK

    @property
    def image_known(self) -> tuple[int, int]:
        """Physical bounds of what is the kernel image for certain, text to page tables; exclusive at the end."""
        start = (self.image_start - self.kimage_voffset) & MASK
        return start, self.root_pa + self.granule.page_size

    @property
    def lpa2(self) -> bool:
        """Whether descriptors hold PA[51:50] in their SH bits: Linux turns LPA2 on for 52 address bits only."""
        return self.granule.page_size < 65536 and self.va_actual == 52

    def with_image(self, start: int, end: int) -> AddressMap:
        """The same with the bounds of the kernel image (``_text`` and ``_end``)."""
        return replace(self, image_start=start, image_end=end)

    def below_shadow(self, scale: int) -> AddressMap:
        """The same with the linear map ending where KASAN's shadow begins, which holds a byte for 2**scale bytes.

        PAGE_END is KASAN_SHADOW_START since the shadow ends where the linear map did (f4693c2716b3, 5.11).
        """
        shadow = self.linear_end - (1 << (self.va_actual - scale))
        return replace(self, linear_end=shadow) if shadow > self.page_offset else self

    def canonical(self, va: U64) -> U64:
        """Kernel addresses without the tag that KASAN keeps in the top byte."""
        kernel = (va >> np.uint64(55)) & np.uint64(1) != 0
        return np.where(kernel, va | np.uint64(0xFF << 56), va).astype(np.uint64)

    def of_memory(self, start: U64, last: U64) -> Bool:
        """Which ranges, inclusive at the end, touch the linear map or the struct pages."""
        areas = [(self.page_offset, (self.linear_end - 1) & MASK)]
        if self.vmemmap is not None:
            areas.append((self.vmemmap[0], (self.vmemmap[1] - 1) & MASK))
        touched = np.zeros(start.size, dtype=np.bool_)
        for low, high in areas:
            touched |= (start <= np.uint64(high)) & (last >= np.uint64(low))
        return touched

    def physical(self, va: U64) -> tuple[U64, Bool]:
        """Physical addresses of addresses in the linear map and the kernel image, and which those are."""
        va = self.canonical(va)
        linear = (va >= np.uint64(self.page_offset)) & (va <= np.uint64((self.linear_end - 1) & MASK))
        image = ~linear & (va >= np.uint64(self.image_start)) & (va < np.uint64(self.image_end))
        offset = np.where(
            linear, np.uint64((self.phys_offset - self.page_offset) & MASK), np.uint64(-self.kimage_voffset & MASK)
        )
        known = linear | image
        return np.where(known, va + offset, 0).astype(np.uint64), known


def _vmemmap(info: VmcoreInfo, page_size: int, va_bits: int, va_actual: int) -> tuple[int, int] | None:
    """The struct pages of what the linear map can hold at run time.

    VMCOREINFO has their bounds since 2369f171d5c5 (6.0); before, they follow from the release.
    """
    size, shift = info.size("page"), page_size.bit_length() - 1
    start, end = info.number("VMEMMAP_START"), info.number("VMEMMAP_END")
    if size is None:
        return None
    if start is not None and end is not None:
        unused = ((1 << va_bits) - (1 << va_actual)) >> shift
        first, end = (start + unused * size) & MASK, end & MASK
        return (first, end) if first < end else None
    release = re.match(r"(\d{1,3})\.(\d{1,3})", info.osrelease or "")
    era = next((one for one in ERAS if release is not None and one.has((int(release[1]), int(release[2])))), None)
    if era is None:
        return None
    found = regions(era, shift, va_bits, size, va_actual)
    return found.vmemmap_used, found.vmemmap_end

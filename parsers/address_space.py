"""The parts of the kernel's half of the address space that hold neither memory nor struct pages, by era.

arch/arm64/include/asm/{memory,pgtable,kasan,fixmap}.h: modules, vmalloc (with the kernel image), PCI I/O, fixmap and
KASAN's shadow.  The linear map and the vmemmap area are in `parsers.layout`.
"""

from __future__ import annotations

from enum import StrEnum

from parsers.layout import ERAS, MASK, KernelLayout
from parsers.records import dataclass

__all__ = ["Area", "KasanMode", "areas_of", "kasan_shadow"]

_2M, _8M, _16M, _128M, _256M, _1G, _2G = 1 << 21, 1 << 23, 1 << 24, 1 << 27, 1 << 28, 1 << 30, 1 << 31
_LARGE_MODULES = (6, 5)
_MODULES_AT_PAGE_END = (5, 17)


class KasanMode(StrEnum):
    """The modes of KASAN that need a shadow of the address space."""

    GENERIC = "generic"
    SW_TAGS = "sw_tags"

    @property
    def scale_shift(self) -> int:
        """KASAN_SHADOW_SCALE_SHIFT: a byte of shadow covers 8 or 16 bytes."""
        return 3 if self is KasanMode.GENERIC else 4


@dataclass(frozen=True, slots=True)
class Area:
    """A named part of the address space, ``[start, end)``."""

    name: str
    start: int
    end: int


def kasan_shadow(mode: KasanMode, page_size: int, va_bits: int, va_bits_actual: int, series: tuple[int, int]) -> Area:
    """Where KASAN's shadow lies: below PAGE_END since 5.4, at the bottom of the kernel's half before."""
    if series < (5, 4):
        start = -(1 << va_bits)
        return Area("kasan_shadow", start & MASK, (start + (1 << (va_bits - mode.scale_shift))) & MASK)
    end = -(1 << (_va_min(page_size, va_bits, series) - 1))
    return Area("kasan_shadow", (end - (1 << (va_bits_actual - mode.scale_shift))) & MASK, end & MASK)


def areas_of(layout: KernelLayout, series: tuple[int, int], kasan: KasanMode | None) -> tuple[Area, ...]:
    """The areas of a kernel of a mainline (major, minor); none where the layout or the era is not known.

    The image is in the vmalloc area (4.6 and later).
    """
    era = next((era for era in ERAS if era.has(series)), None)
    if era is None or not layout.knows("page_size", "va_bits", "vmemmap_start", "vmemmap_end"):
        return ()
    va_bits, page = layout.need("va_bits"), layout.page_size
    va_min = _va_min(page, va_bits, series)
    shadow = None if kasan is None else kasan_shadow(kasan, page, va_bits, layout.va_bits_actual, series)
    vmemmap = layout.vmemmap_start
    pud = _pud_size(page, va_bits)
    if era.name == "A":
        start = -(1 << va_bits) + (0 if shadow is None else shadow.end - shadow.start)
        start += _128M if series >= (5, 0) else 0  # BPF
        modules = Area("modules", start & MASK, (start + _128M) & MASK)
        vmalloc_end = layout.page_offset - pud - (layout.page_offset - vmemmap) - (1 << 16)
        above = [Area("fixmap", vmalloc_end, vmemmap)]
    elif era.name == "E":
        start = -(1 << (va_min - 1))
        modules = Area("modules", start & MASK, (start + _2G) & MASK)
        vmalloc_end = layout.vmemmap_first - _8M
        end = layout.vmemmap_end
        above = [
            Area("pci_io", end + _8M, end + _8M + _16M),
            Area("fixmap", end + _8M + _16M + _8M, MASK - _8M + 1),
        ]
    else:
        start = -(1 << (va_min - 1)) + (0 if series >= _MODULES_AT_PAGE_END else _128M)
        size = _2G if series >= _LARGE_MODULES else _128M
        modules = Area("modules", start & MASK, (start + size) & MASK)
        vmalloc_end = vmemmap - _256M if era.name == "C" else vmemmap + _2M - pud - (1 << 16)
        above = [Area("fixmap", vmalloc_end & MASK, vmemmap)]
    vmalloc = Area("vmalloc", modules.end, vmalloc_end & MASK)
    return tuple(area for area in (shadow, modules, vmalloc, *above) if area is not None)


def _pud_size(page_size: int, va_bits: int) -> int:
    """PUD_SIZE, also where the level is folded into the one above."""
    if page_size == 4096:
        return _1G
    folded = {16384: (36, 25, 36), 65536: (42, 29, 42)}[page_size]
    return 1 << (folded[1] if va_bits <= folded[0] else folded[2])


def _va_min(page_size: int, va_bits: int, series: tuple[int, int]) -> int:
    if va_bits != 52:
        return va_bits
    return 47 if series >= (6, 9) and page_size == 16384 else 48

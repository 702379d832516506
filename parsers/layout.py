"""Where an arm64 kernel puts things: the virtual memory map by era, and address arithmetic on it.

The formulae come from arch/arm64/include/asm/memory.h and pgtable.h: 4.14 (era A), 5.4 after the
flip of the linear map (14c127c957c1, era B), 5.11 (9ad7c6d5e75b, 8c96400d6a39, era C), 6.9 (031e011d8b22,
b730b0f2b1fc, 32697ff38287, era E); 5.17 to 6.8 differ from C in the modules area only.
All virtual addresses are taken modulo 2**64.

A :class:`KernelLayout` holds each value with its source, and refuses to guess: a value that is not
known raises :class:`~parsers.errors.LayoutError` that says what to collect.
"""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

from parsers.arm64 import Granule, granule
from parsers.errors import LayoutError
from parsers.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping as Dict


__all__ = ["ERAS", "LAYOUT_KEYS", "Era", "Fact", "KernelLayout", "Precision", "Regions", "regions"]

MASK = (1 << 64) - 1
_1G, _2M = 1 << 30, 1 << 21


class Precision(StrEnum):
    """How a fact is known: read from the kernel's own structures, computed from another fact, or guessed well."""

    EXACT = "exact"
    DERIVED = "derived"
    INFERRED = "inferred"


@dataclass(frozen=True, slots=True)
class Fact:
    """An integer with the place it came from."""

    value: int
    source: str
    precision: Precision


@dataclass(frozen=True, slots=True)
class Regions:
    """The parts of the kernel's address space that are audited, half-open, ``linear_end`` may be 2**64."""

    page_offset: int
    linear_start: int
    """Where the linear map begins at run time: above ``page_offset`` when 52-bit kernels run with 48 bits."""
    linear_end: int
    vmemmap_start: int
    vmemmap_end: int
    vmemmap_used: int
    """First struct page that the run-time linear map can need: where 6.9 and later dumps put "vmemmap start"."""


@dataclass(frozen=True, slots=True)
class Era:
    """A generation of the virtual memory map, and the first and last mainline release that has it."""

    name: str
    first: tuple[int, int]
    last: tuple[int, int]
    va_bits: Dict[int, tuple[int, ...]]
    """Configurable VA_BITS by page shift."""

    def has(self, series: tuple[int, int]) -> bool:
        """Whether a mainline (major, minor) is of this era."""
        return self.first <= series <= self.last


_VA_BITS = {12: (39, 48), 14: (36, 47, 48), 16: (42, 48)}
_VA_BITS_LVA = {12: (39, 48), 14: (36, 47, 48), 16: (42, 48, 52)}
_VA_BITS_LPA2 = {12: (39, 48, 52), 14: (36, 47, 48, 52), 16: (42, 48, 52)}

ERAS: tuple[Era, ...] = (
    Era("A", (4, 10), (5, 3), _VA_BITS),
    Era("B", (5, 4), (5, 10), _VA_BITS_LVA),
    Era("C", (5, 11), (6, 8), _VA_BITS_LVA),
    Era("E", (6, 9), (99, 0), _VA_BITS_LPA2),
)


def regions(era: Era, page_shift: int, va_bits: int, struct_page_size: int, va_actual: int | None = None) -> Regions:
    """The map of an era; ``va_actual`` is 64 - TCR_EL1.T1SZ, by default all of ``va_bits``."""
    va_actual = va_bits if va_actual is None else va_actual
    va_min = va_bits if va_bits != 52 else (47 if era.name == "E" and page_shift == 14 else 48)
    shift = (struct_page_size - 1).bit_length()  # STRUCT_PAGE_MAX_SHIFT
    if era.name == "A":
        offset = -(1 << (va_bits - 1))
        size = 1 << (va_bits - page_shift - 1 + shift)
        return _wrapped(offset, offset, 0, offset - size, offset, 0)
    offset, linear_end = -(1 << va_bits), -(1 << (va_min - 1))
    pages = (linear_end - offset) >> page_shift
    if era.name == "B":
        start = -(pages << shift) - _2M
        end = start + (pages << shift)
        linear_end = -(1 << (va_actual - 1))
    elif era.name == "C":
        start = -(1 << (va_bits - page_shift + shift))
        end = start + (pages << shift)
    else:
        end = -_1G
        start = end - pages * struct_page_size
    unused = (((1 << va_bits) - (1 << va_actual)) >> page_shift) * struct_page_size  # VMEMMAP_UNUSED_NPAGES
    return _wrapped(offset, -(1 << va_actual), linear_end, start, end, unused)


def _wrapped(
    offset: int, linear_start: int, linear_end: int, vmemmap_start: int, vmemmap_end: int, unused: int
) -> Regions:
    return Regions(
        offset & MASK,
        linear_start & MASK,
        (linear_end & MASK) or 1 << 64,
        vmemmap_start & MASK,
        vmemmap_end & MASK,
        (vmemmap_start + unused) & MASK,
    )


LAYOUT_KEYS: dict[str, str] = {
    "page_size": "bytes of a page: 4096, 16384, 65536",
    "va_bits": "CONFIG_ARM64_VA_BITS",
    "va_bits_actual": "virtual address bits in use: 64 - TCR_EL1.T1SZ",
    "page_offset": "PAGE_OFFSET: the linear map's base, from VA_BITS",
    "linear_end": "end of the linear map (PAGE_END), 2**64 up to 5.3",
    "vmemmap_start": "VMEMMAP_START",
    "vmemmap_end": "end of the vmemmap area",
    "struct_page_size": "sizeof(struct page)",
    "phys_offset": "PHYS_OFFSET: memstart_addr, modulo 2**64",
    "section_size_bits": "SECTION_SIZE_BITS",
    "block_size": "bytes of a memory block",
}

SUBSECTION_SIZE = 1 << 21  # SUBSECTION_SHIFT is 21 for every page size (include/linux/mmzone.h, 5.3)


@dataclass(frozen=True)
class KernelLayout:
    """The layout of one kernel: facts by name (`LAYOUT_KEYS`), and what was in doubt.

    ``phys_offset_candidates`` lists several values of PHYS_OFFSET that all fit; it is empty when
    one is known or none was found.
    """

    facts: Dict[str, Fact]
    phys_offset_candidates: tuple[int, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def get(self, key: str) -> int | None:
        """The value of ``key``, or None."""
        fact = self.facts.get(key)
        return None if fact is None else fact.value

    def need(self, key: str) -> int:
        """The value of ``key``; LayoutError, with what would determine it, if it is not known."""
        fact = self.facts.get(key)
        if fact is not None:
            return fact.value
        if key == "phys_offset" and self.phys_offset_candidates:
            several = ", ".join(f"{value:#x}" for value in self.phys_offset_candidates[:4])
            raise LayoutError(f"PHYS_OFFSET is ambiguous: {several} all fit")
        raise LayoutError(f"{LAYOUT_KEYS[key].split(':')[0]} is not known")

    def knows(self, *keys: str) -> bool:
        """Whether all of ``keys`` are known."""
        return all(key in self.facts for key in keys)

    @cached_property
    def page_size(self) -> int:
        return self.need("page_size")

    @cached_property
    def page_shift(self) -> int:
        return self.page_size.bit_length() - 1

    @cached_property
    def granule(self) -> Granule:
        return granule(self.page_size)

    @cached_property
    def va_bits_actual(self) -> int:
        actual = self.get("va_bits_actual")
        return self.need("va_bits") if actual is None else actual

    @cached_property
    def page_offset(self) -> int:
        return self.need("page_offset")

    @cached_property
    def linear_start(self) -> int:
        """First address of the linear map at run time."""
        return max(self.page_offset, (1 << 64) - (1 << self.va_bits_actual))

    @cached_property
    def linear_end(self) -> int:
        """End of the linear map, exclusive; may be 2**64."""
        return self.need("linear_end")

    @cached_property
    def vmemmap_start(self) -> int:
        return self.need("vmemmap_start")

    @cached_property
    def vmemmap_first(self) -> int:
        """First address of the vmemmap area at run time: the struct page of the first page of the linear map.

        VMEMMAP_START is that of CONFIG_ARM64_VA_BITS.  Where a kernel built for 52 bits runs with fewer, the struct
        pages below this address describe linear addresses that do not exist, and since 6.9 (32697ff38287) vmalloc
        ends 8 MiB below it (VMALLOC_END, VMEMMAP_UNUSED_NPAGES in arch/arm64/include/asm/pgtable.h).
        """
        unused = self.linear_start - self.page_offset if self.knows("page_offset", "va_bits") else 0
        if not unused or not self.knows("page_size", "struct_page_size"):
            return self.vmemmap_start
        return self.vmemmap_va(unused >> self.page_shift)

    @cached_property
    def vmemmap_end(self) -> int:
        return self.need("vmemmap_end")

    @cached_property
    def struct_page_size(self) -> int:
        return self.need("struct_page_size")

    @cached_property
    def phys_offset(self) -> int:
        return self.need("phys_offset")

    @cached_property
    def start_pfn(self) -> int:
        """PFN of the first page of the linear map (memstart_addr >> PAGE_SHIFT, signed: it may be negative)."""
        value = self.phys_offset
        return (value - (1 << 64) if value >> 63 else value) >> self.page_shift

    @cached_property
    def section_size(self) -> int:
        """Bytes of a memory section."""
        return 1 << self.need("section_size_bits")

    @cached_property
    def pages_per_section(self) -> int:
        return self.section_size >> self.page_shift

    @cached_property
    def pages_per_subsection(self) -> int:
        return SUBSECTION_SIZE >> self.page_shift

    def linear_va(self, index: int) -> int:
        """Linear-map address of a page index."""
        return (self.page_offset + (index << self.page_shift)) & MASK

    def vmemmap_va(self, index: int) -> int:
        """Address of the struct page of a page index."""
        return (self.vmemmap_start + index * self.struct_page_size) & MASK

    def region_of(self, va: int) -> str:
        """``linear``, ``vmemmap`` or ``other``."""
        if self.knows("page_offset", "linear_end") and self.linear_start <= va < self.linear_end:
            return "linear"
        if self.knows("vmemmap_start", "vmemmap_end") and self.vmemmap_first <= va < self.vmemmap_end:
            return "vmemmap"
        return "other"

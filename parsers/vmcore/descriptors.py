"""What a VMSAv8-64 descriptor means: output address, kind, attributes.

Bit layout from the Arm ARM (D8.3) and arch/arm64/include/asm/pgtable-hwdef.h (4.14 to 6.18).  Everything here works
on whole uint64 arrays.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from parsers.arm64 import ATTRIBUTE_FIELDS, PTE, Attr, Granule, MemType
from parsers.mapping import I8, U8, U16, U64, Bool
from parsers.records import dataclass

__all__ = ["TABLE_ATTRIBUTES", "DescriptorFormat", "Kind", "memory_types"]

TABLE_ATTRIBUTES: dict[str, int] = {
    "PXNTable": 1 << 59,
    "UXNTable": 1 << 60,
    "APTable[0]": 1 << 61,
    "APTable[1]": 1 << 62,
    "NSTable": 1 << 63,
}
"""Bits of a table descriptor that restrict everything below it."""

_TYPE = np.uint64(3)
_INDEX_SHIFT = np.uint64(2)

# Memory types by AttrIndx (arch/arm64/include/asm/memory.h), newest first.  Normal memory moved to index 0 in 5.10
# (MTE); GRE and write-through went away in 5.14 (58cc6b72a212).
_NUMBERING_5_14 = (
    MemType.NORMAL,
    MemType.NORMAL_TAGGED,
    MemType.NORMAL_NC,
    MemType.DEVICE_nGnRnE,
    MemType.DEVICE_nGnRE,
)
_NUMBERING_5_10 = (
    *(MemType.NORMAL, MemType.NORMAL_TAGGED, MemType.NORMAL_NC, MemType.NORMAL_WT),
    *(MemType.DEVICE_nGnRnE, MemType.DEVICE_nGnRE, MemType.DEVICE_GRE),
)
_NUMBERING_OLD = (
    *(MemType.DEVICE_nGnRnE, MemType.DEVICE_nGnRE, MemType.DEVICE_GRE),
    *(MemType.NORMAL_NC, MemType.NORMAL, MemType.NORMAL_WT),
)


class Kind(IntEnum):
    """What an entry is."""

    EMPTY = 0
    TABLE = 1
    LEAF = 2
    """A page or block that translates."""
    INVALID = 3
    """Not zero, and bit 0 is clear: nothing is translated."""
    RESERVED = 4
    """An encoding that the architecture does not define at this level."""


@dataclass(frozen=True, slots=True)
class DescriptorFormat:
    """Where output addresses are in a descriptor, and at which levels blocks may be."""

    granule: Granule
    lpa2: bool
    """4K and 16K pages with 52 address bits: SH holds PA[51:50]."""

    @property
    def _low_mask(self) -> int:
        top = 50 if self.lpa2 else 48
        return (1 << top) - (1 << self.granule.page_shift)

    def output(self, descriptor: U64) -> U64:
        """Output address, or address of the next table."""
        pa = descriptor & np.uint64(self._low_mask)
        if self.lpa2:
            return pa | (descriptor & np.uint64(3 << 8)) << np.uint64(42)
        if self.granule.page_size == 65536:  # PA[51:48] in bits 15:12, zero without LPA
            return pa | (descriptor & np.uint64(0xF << 12)) << np.uint64(36)
        return pa

    def leaf_output(self, descriptor: U64, level: I8) -> U64:
        """Output address of pages and blocks: bits below the size of the block are not part of it."""
        shift = (self.granule.page_shift + (3 - level.astype(np.int64)) * self.granule.bits_per_level).astype(np.uint64)
        return self.output(descriptor) >> shift << shift

    def block_levels(self) -> frozenset[int]:
        """Levels that may hold blocks: PUD and PMD with 4K pages, PMD with others, one more with 52-bit addresses."""
        levels = {1, 2} if self.granule.page_size == 4096 else {2}
        if self.lpa2 or self.granule.page_size == 65536:
            levels.add(min(levels) - 1)
        return frozenset(levels)

    def kinds(self, descriptor: U64, level: I8) -> U8:
        """:class:`Kind` of each entry; ``level`` has the shape of ``descriptor``."""
        kind = (descriptor & _TYPE).astype(np.uint8)
        last = level == PTE
        blocks = np.isin(level, list(self.block_levels()))
        result = np.full(descriptor.shape, Kind.INVALID, dtype=np.uint8)
        result[descriptor == 0] = Kind.EMPTY
        result[(kind == 3) & last] = Kind.LEAF
        result[(kind == 3) & ~last] = Kind.TABLE
        result[kind == 1] = Kind.RESERVED
        result[(kind == 1) & blocks] = Kind.LEAF
        return result

    @property
    def attribute_mask(self) -> np.uint64:
        """Bits that make two leaves print differently: the attribute columns and AttrIndx."""
        mask = 7 << 2
        for field in ATTRIBUTE_FIELDS:
            mask |= field.mask
        return np.uint64(mask & ~(3 << 8) if self.lpa2 else mask)

    def attributes(self, descriptor: U64, kind: U8) -> U16:
        """:class:`~parsers.arm64.Attr` bits of leaves and invalid entries; 0 for empty ones."""
        result = np.full(descriptor.shape, int(Attr.PRESENT), dtype=np.uint16)
        for field in ATTRIBUTE_FIELDS:
            if field.attr is Attr.SHARED and self.lpa2:
                continue
            held = descriptor & np.uint64(field.mask) == np.uint64(field.value)
            result |= np.where(held, np.uint16(field.attr), np.uint16(0)).astype(np.uint16)
        result &= np.where(kind == Kind.RESERVED, ~np.uint16(Attr.VALID), np.uint16(0xFFFF)).astype(np.uint16)
        return np.where(kind == Kind.EMPTY, np.uint16(0), result).astype(np.uint16)


def indices(descriptor: U64) -> U8:
    """AttrIndx: which byte of MAIR_EL1 gives the memory type."""
    return (descriptor >> _INDEX_SHIFT & np.uint64(7)).astype(np.uint8)


def memory_types(descriptor: U64, kind: U8, image: Bool) -> U8:
    """:class:`~parsers.arm64.MemType` of each leaf, by the numbering that the tables themselves show.

    ``image`` marks the leaves of the kernel image, which is normal memory: index 4 there means a
    kernel before 5.10.  Indices 5 and 6 exist only in 5.10 to 5.13 otherwise.
    """
    index = indices(descriptor)
    leaf = kind == Kind.LEAF
    known = index[leaf & image]
    numbering: tuple[MemType, ...]
    if known.size and int(np.bincount(known, minlength=8).argmax()) == 4:
        numbering = _NUMBERING_OLD
    elif np.isin(index[leaf], (5, 6)).any():
        numbering = _NUMBERING_5_10
    else:
        numbering = _NUMBERING_5_14
    table = np.zeros(8, dtype=np.uint8)
    table[: len(numbering)] = numbering
    return np.where(kind == Kind.EMPTY, np.uint8(MemType.UNKNOWN), table[index]).astype(np.uint8)

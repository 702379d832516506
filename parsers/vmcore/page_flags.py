"""What the fields of a ``struct page`` say: node, zone, flags, type and references.

``flags`` holds the node in its highest bits and the zone below it, for SPARSEMEM_VMEMMAP keeps no section there
(include/linux/page-flags-layout.h, 4.14 to 7.3).  How wide they are is a matter of configuration, and shows in types:
``struct zonelist`` has an entry for each zone of each node, and one that ends it (include/linux/mmzone.h).
"""

from __future__ import annotations

import numpy as np

from parsers.mapping import I64, U64
from parsers.records import dataclass
from parsers.vmcore.dump import Dump
from parsers.vmcore.rows import PageKind

__all__ = ["TYPE_BYTE", "ZONE_NAMES", "FlagsLayout", "page_kinds"]

TYPE_BYTE = 24
"""Since 6.11 the type of a page is its highest byte (4ffca5a96678)."""
ZONE_NAMES = {"ZONE_DMA": "DMA", "ZONE_DMA32": "DMA32", "ZONE_NORMAL": "Normal", "ZONE_MOVABLE": "Movable"} | {
    "ZONE_HIGHMEM": "HighMem",
    "ZONE_DEVICE": "Device",
}
"""Enumerators of ``enum zone_type``, and the names that ``struct zone`` has (mm/page_alloc.c ``zone_names``)."""
_WORD = 64
_INT = np.uint64(0xFFFFFFFF)
_NO_TYPE = np.uint64(0xFFFFFFFF)
_TYPED = np.uint64(1 << 31)


@dataclass(frozen=True)
class FlagsLayout:
    """Where node and zone lie in ``page->flags``."""

    node_bits: int
    zone_bits: int
    zone_names: tuple[str, ...]
    """By their index; empty for an index that has no name."""

    @classmethod
    def of(cls, dump: Dump) -> FlagsLayout:
        """The layout of the kernel in a dump; LookupError where its types do not say."""
        zones = dump.enumerator("__MAX_NR_ZONES")
        entries = dump.member("zonelist", "_zonerefs").count
        if not zones or not entries or zones > 8 or (entries - 1) % zones:  # more zones do not compile
            raise LookupError(
                f"the bits of node and zone in page flags: {zones} zones, {entries} entries of a zonelist"
            )
        index = {dump.enumerator(name): word for name, word in ZONE_NAMES.items()}
        names = tuple(index.get(number, "") for number in range(zones))
        return cls(((entries - 1) // zones - 1).bit_length(), (zones - 1).bit_length(), names)

    def node(self, flags: U64) -> I64:
        """Node of each page."""
        return self._bits(flags, _WORD - self.node_bits, self.node_bits)

    def zone(self, flags: U64) -> I64:
        """Zone of each page, an index into ``zone_names``; one beyond them is damage."""
        return self._bits(flags, _WORD - self.node_bits - self.zone_bits, self.zone_bits)

    @staticmethod
    def _bits(flags: U64, shift: int, bits: int) -> I64:
        if not bits:
            return np.zeros(flags.size, dtype=np.int64)
        return ((flags >> np.uint64(shift)) & np.uint64((1 << bits) - 1)).astype(np.int64)


def page_kinds(dump: Dump, mapcount: U64) -> I64:
    """`PageKind` of each page by the 32 bits at ``_mapcount``: a count of mappings, less one, or a type.

    VMCOREINFO has the values for free and for PageOffline pages; a type that it does not name is `PageKind.OTHER`.
    """
    value = mapcount & _INT
    kinds = np.where(value & _TYPED == 0, PageKind.MAPPED, PageKind.OTHER).astype(np.int64)
    for name, kind in (("BUDDY", PageKind.BUDDY), ("OFFLINE", PageKind.OFFLINE)):
        wanted = dump.vmcoreinfo.number(f"PAGE_{name}_MAPCOUNT_VALUE")
        if wanted is not None:
            shift = np.uint64(TYPE_BYTE if wanted & ((1 << TYPE_BYTE) - 1) == 0 else 0)
            kinds[value >> shift == (np.uint64(wanted & int(_INT)) >> shift)] = kind
    kinds[value == _NO_TYPE] = PageKind.PLAIN
    return kinds

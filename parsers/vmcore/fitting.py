"""Whether VMCOREINFO belongs to the memory that it came with.

VMCOREINFO may be of another boot or another kernel: a text given by the user, or a page found in memory that an earlier
kernel, a crash kernel or a guest has left there.  What is read with it looks like damage.  Two facts show it:

- The page tables map themselves: ``swapper_pg_dir`` lies in the kernel image, which they map (map_kernel() in
  arch/arm64/mm/mmu.c, since 6.9 in arch/arm64/kernel/pi/map_kernel.c; 4.14 to 7.3).
- The linear map is physical memory at one distance, ``PAGE_OFFSET - memstart_addr``.
"""

from __future__ import annotations

import numpy as np

from parsers.arm64 import Attr
from parsers.errors import FormatError, LayoutError
from parsers.mapping import Mapping
from parsers.vmcore.addresses import MASK, AddressMap
from parsers.vmcore.descriptors import DescriptorFormat, Kind
from parsers.vmcore.explain import explain
from parsers.vmcore.memory import UNIT, MissingMemoryError, PhysicalMemory
from parsers.vmcoreinfo import VmcoreInfo

__all__ = ["other_phys_offset", "why_not_of"]

_FEW = 2


def why_not_of(memory: PhysicalMemory, info: VmcoreInfo) -> str | None:
    """Why VMCOREINFO is of another boot or kernel than ``memory``; empty if it is of this one, None if unknown.

    Unknown where the page tables on the way to ``swapper_pg_dir`` are missing, or read as zeros.
    """
    try:
        addresses = AddressMap.from_vmcoreinfo(info)
        if not _is_table(memory, addresses):
            return f"by it the page tables lie at {addresses.root_pa:#x}, where no table is"
        last = explain(memory, addresses, addresses.swapper_pg_dir)[-1]
        if last.descriptor is None or not any(memory.read(last.entry_pa // UNIT * UNIT, UNIT)):
            return None
    except (LayoutError, MissingMemoryError):
        return None
    except FormatError as error:
        return error.message
    if last.output == addresses.root_pa:
        return ""
    found = "is not mapped" if last.output is None else f"is mapped to {last.output:#x}"
    return f"by it the page tables lie at {addresses.root_pa:#x}, and swapper_pg_dir {found} there"


def _is_table(memory: PhysicalMemory, addresses: AddressMap) -> bool:
    """Whether the page that should be ``swapper_pg_dir`` may be: its entries are tables, blocks or empty.

    A few may be damaged (TBL-05).
    """
    granule, level = addresses.granule, addresses.granule.first_level(addresses.va_bits)
    count = 1 << (addresses.va_bits - (granule.span(level).bit_length() - 1))
    words = np.frombuffer(memory.read(addresses.root_pa, 8 * count), dtype="<u8").astype(np.uint64)
    kinds = DescriptorFormat(granule, addresses.lpa2).kinds(words, np.full(count, level, dtype=np.int8))
    wrong = int((~np.isin(kinds, (Kind.EMPTY, Kind.TABLE, Kind.LEAF))).sum())
    return wrong <= _FEW or wrong * 8 <= int(np.count_nonzero(words))


def other_phys_offset(mapping: Mapping, addresses: AddressMap) -> int | None:
    """PHYS_OFFSET by which most of the linear map lies, where none of it lies by the one of VMCOREINFO.

    None where some of it does, or where no other value fits half of it.
    """
    if mapping.pa is None:
        return None
    row = mapping.has(Attr.VALID) & (mapping.start >= np.uint64(addresses.page_offset))
    row &= mapping.start <= np.uint64((addresses.linear_end - 1) & MASK)
    offset = mapping.pa[row] - (mapping.start[row] - np.uint64(addresses.page_offset))
    found, where = np.unique(offset, return_inverse=True)
    if not found.size or (found == np.uint64(addresses.phys_offset)).any():
        return None
    share = np.bincount(where, weights=mapping.size[row].astype(np.float64))
    most = int(np.argmax(share))
    return int(found[most]) if share[most] * 2 > share.sum() else None

"""Struct pages of hot-added memory that were never initialised.

A removal that takes the struct pages of its neighbours away, and an add that maps fresh pages there again, leave page
tables that look right.  The contents of the struct pages show it: __vmemmap_alloc_block_buf() hands out zeros
(mm/sparse-vmemmap.c), and only the memory that is added is initialised (__init_single_page() in mm/mm_init.c, 6.18).
"""

from __future__ import annotations

import numpy as np

from parsers.arm64 import Attr
from parsers.errors import FormatError
from parsers.mapping import I64, U64, Bool
from parsers.vmcore.dump import Dump
from parsers.vmcore.pagetable import Walk
from parsers.vmcore.rows import SectionRows, StructPageRows, subsection_bits

__all__ = ["addresses_of", "read_struct_pages", "struct_page_size", "translate"]

_SUBSECTION_SHIFT = 21
_MAX_SUBSECTIONS = 1 << 15  # 64 GiB; of more, the first and the last of each whole section are looked at
_AT_A_TIME = 1 << 13  # each is in a separate page
_FLAG_BITS = 6  # below the memmap pointer of a section: it is a multiple of 64 (SECTION_MAP_LAST_BIT, mmzone.h)
_MAX_STRUCT_PAGE = 1024


def read_struct_pages(dump: Dump, sections: SectionRows | None, walk: Walk) -> StructPageRows | None:
    """The last struct page of every valid subsection that was not there at boot, as far as the dump holds it.

    None without a section table.  Struct pages of zeros are not held by a dump that has zeros for what it left out.

    Raises FormatError where VMCOREINFO does not give the size of a struct page.
    """
    if sections is None:
        return None
    size = struct_page_size(dump)
    page_size = dump.addresses.granule.page_size
    per_subsection = (1 << _SUBSECTION_SHIFT) // page_size
    row, subsection = _chosen(sections)
    per_section = per_subsection << (sections.section_size_bits - _SUBSECTION_SHIFT)
    pfn = sections.section_nr[row].astype(np.int64) * per_section + (subsection + 1) * per_subsection - 1
    va = addresses_of(sections, row, pfn, size)
    words = np.asarray(va[:, None] + np.arange(0, size, 8, dtype=np.uint64), dtype=np.uint64).ravel()
    pa, known = translate(walk, words, np.uint64(page_size))
    mapped = known.copy()
    values = np.zeros(words.size, dtype=np.uint64)
    step = _AT_A_TIME * size // 8
    for at in range(0, words.size, step):
        mine = at + np.flatnonzero(known[at : at + step])
        values[mine], known[mine] = dump.memory.read_words(pa[mine])
    used = np.asarray(values.reshape(-1, size // 8).any(axis=1), dtype=np.bool_)
    if dump.memory.has_false_zeros:
        known &= np.repeat(used, size // 8)
    read = known.reshape(-1, size // 8).all(axis=1)
    return StructPageRows(
        pfn=pfn[read],
        va=va[read],
        blank=np.equal(used[read], False),
        pages_per_subsection=per_subsection,
        absent=(pa[mapped & ~known] // np.uint64(page_size)).astype(np.int64),
    )


def struct_page_size(dump: Dump) -> int:
    """Bytes of a struct page; FormatError where VMCOREINFO gives none that is possible."""
    size = dump.size("page")
    if size is None or not 0 < size <= _MAX_STRUCT_PAGE or size % 8:
        raise FormatError(f"size of a struct page: {size}")
    return size


def addresses_of(sections: SectionRows, row: I64, pfn: I64, size: int) -> U64:
    """Virtual addresses of the struct pages of PFNs that lie in the given rows of the section table."""
    memmap = sections.section_mem_map[row] & ~np.uint64((1 << _FLAG_BITS) - 1)
    return np.asarray(memmap + pfn.astype(np.uint64) * np.uint64(size), dtype=np.uint64)


def _chosen(sections: SectionRows) -> tuple[I64, I64]:
    """Rows of ``sections`` and subsections in them that are looked at, ascending."""
    bits = subsection_bits(sections.subsections)[:, : 1 << (sections.section_size_bits - _SUBSECTION_SHIFT)]
    bits &= (sections.present & sections.has_memmap & ~sections.early & sections.subsections_known)[:, None]
    if int(bits.sum()) > _MAX_SUBSECTIONS:
        whole = bits.all(axis=1)
        bits[whole, 1:-1] = False
    row, subsection = np.nonzero(bits)
    return row.astype(np.int64), subsection.astype(np.int64)


def translate(walk: Walk, va: U64, page_size: np.uint64) -> tuple[U64, Bool]:
    """Physical addresses by the rows of the walk, and which of ``va`` translate."""
    mapping = walk.mapping
    if mapping.pa is None or not len(mapping):
        return np.zeros(va.size, dtype=np.uint64), np.zeros(va.size, dtype=np.bool_)
    row = np.maximum(np.searchsorted(mapping.start, va, side="right") - 1, 0)
    inside = va - mapping.start[row]
    known = (va >= mapping.start[row]) & (inside < mapping.size[row]) & mapping.has(Attr.VALID)[row]
    # Struct pages that HugeTLB vmemmap optimisation shares: one page, entry after entry.
    inside = np.where(walk.repeated[row], inside % page_size, inside)
    return mapping.pa[row] + inside, known

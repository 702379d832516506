"""Struct pages of the pages that hold the struct pages of their own memory block (memmap_on_memory).

mhp_init_memmap_on_memory() in mm/memory_hotplug.c (5.13 to 7.3) gives them node and zone of the block and, since 6.0,
marks them PG_vmemmap_self_hosted; it runs when the block goes online, so before that they say nothing.
"""

from __future__ import annotations

import numpy as np

from parsers.mapping import I64, U64, Bool
from parsers.vmcore.dump import Dump
from parsers.vmcore.page_flags import FlagsLayout, page_kinds
from parsers.vmcore.pagetable import Walk
from parsers.vmcore.rows import BlockRows, SectionRows, SelfHostedRows
from parsers.vmcore.struct_pages import addresses_of, struct_page_size, translate

__all__ = ["read_self_hosted"]

_MAX_PAGES = 1 << 15  # 64 blocks of 128 MiB; of more, the first and the last page of each


def read_self_hosted(
    dump: Dump, sections: SectionRows | None, blocks: BlockRows | None, walk: Walk
) -> SelfHostedRows | None:
    """The struct pages of all self-hosted pages, as far as the dump holds them; None without sections and blocks.

    Raises FormatError where VMCOREINFO does not give the size of a struct page.
    """
    if sections is None or blocks is None:
        return None
    per_section = (1 << sections.section_size_bits) // dump.addresses.granule.page_size
    host = np.flatnonzero(blocks.nr_vmemmap_pages)
    first = blocks.start_section_nr[host].astype(np.int64) * per_section
    size = blocks.sections_per_block * per_section
    held = np.minimum(blocks.nr_vmemmap_pages[host], np.uint64(size)).astype(np.int64)
    owner, pfn = _chosen(first, held)
    everything = np.concatenate((pfn, first + held))
    flags, mapcount, refcount, va, known = _read(dump, sections, walk, everything, per_section)
    layout = dump.attempt("node and zone of struct pages", lambda: FlagsLayout.of(dump))
    unknown = np.full(everything.size, -1, dtype=np.int64)
    node, zone = (unknown, unknown) if layout is None else (layout.node(flags), layout.zone(flags))
    rest_node, rest_zone = (np.where(known, column, -1)[pfn.size :][owner] for column in (node, zone))
    read = known[: pfn.size]
    there = np.flatnonzero(read)
    return SelfHostedRows(
        pfn=pfn[there],
        va=va[there],
        section_nr=blocks.start_section_nr[host].astype(np.int64)[owner][there],
        node=node[there],
        zone=zone[there],
        zone_names=() if layout is None else layout.zone_names,
        reserved=_flag(dump, "PG_reserved", flags)[there],
        marked=_flag(dump, "PG_vmemmap_self_hosted", flags)[there],
        refcount=refcount[there],
        kind=page_kinds(dump, mapcount)[there],
        rest_node=rest_node[there],
        rest_zone=rest_zone[there],
        unread=pfn[~read],
    )


def _chosen(first: I64, held: I64) -> tuple[I64, I64]:
    """Self-hosted pages that are looked at, ascending by block: the number of the block, and the PFN."""
    number = np.arange(held.size)
    if int(held.sum()) > _MAX_PAGES:
        owner = np.repeat(number, 2)
        return owner, (first[:, None] + np.column_stack((np.zeros_like(held), held - 1))).ravel()
    owner = np.repeat(number, held)
    return owner, first[owner] + np.arange(owner.size) - np.repeat(np.cumsum(held) - held, held)


def _read(dump: Dump, sections: SectionRows, walk: Walk, pfn: I64, per_section: int) -> tuple[U64, U64, I64, U64, Bool]:
    """Flags, ``_mapcount`` and ``_refcount`` of struct pages, where they are, and which were read."""
    size, page_size = struct_page_size(dump), np.uint64(dump.addresses.granule.page_size)
    row = np.minimum(np.searchsorted(sections.section_nr, pfn // per_section), max(len(sections) - 1, 0))
    if not len(sections) or not pfn.size:
        zeros = np.zeros(pfn.size, dtype=np.uint64)
        return zeros, zeros, zeros.astype(np.int64), zeros, zeros.astype(np.bool_)
    known = (sections.section_nr[row] == pfn // per_section) & sections.present[row] & sections.has_memmap[row]
    va = addresses_of(sections, row, pfn, size)
    values = []
    for name, length in (("flags", 8), ("_mapcount", 4), ("_refcount", 4)):
        at = va + np.uint64(dump.member("page", name).offset)
        pa, mapped = translate(walk, at & ~np.uint64(7), page_size)
        known &= mapped
        value = np.zeros(pfn.size, dtype=np.uint64)
        value[known], present = dump.memory.read_words(pa[known])
        known[known] = present
        values.append((value >> (at % np.uint64(8) * np.uint64(8))) & np.uint64((1 << 8 * length) - 1))
    flags, mapcount, refcount = values
    known &= (flags | mapcount | refcount) != 0  # _mapcount of a page that is not mapped is -1: the dump has zeros
    return flags, mapcount, refcount.astype(np.uint32).view(np.int32).astype(np.int64), va, known


def _flag(dump: Dump, name: str, flags: U64) -> I64:
    """Whether a flag is set, 1 or 0; -1 where the kernel's types do not have it."""
    bit = dump.enumerator(name)
    if bit is None or not 0 <= bit < 64:
        return np.full(flags.size, -1, dtype=np.int64)
    return ((flags >> np.uint64(bit)) & np.uint64(1)).astype(np.int64)

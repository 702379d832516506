"""Tables that a crash dump gives: columns, one row an object of the kernel.

Kept apart from what reads them, so that a rule can name them without loading a dump reader.
"""

from __future__ import annotations

from dataclasses import field
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from parsers.mapping import I64, U64, Bool
from parsers.records import dataclass

__all__ = [
    "RECORDS",
    "BlockRows",
    "CrashKernelMemory",
    "HugetlbRows",
    "ListedMemory",
    "PageKind",
    "Record",
    "SectionRows",
    "SelfHostedRows",
    "StructPageRows",
    "ZoneRows",
    "subsection_bits",
]


@dataclass(frozen=True, eq=False, kw_only=True)
class SectionRows:
    """One row a section that is present or has traces of having been, ascending by number."""

    section_nr: U64
    section_mem_map: U64
    """The raw word: the biased memmap pointer and the flags below it."""
    present: Bool
    has_memmap: Bool
    online: Bool
    early: Bool
    device: Bool
    """TAINT_ZONE_DEVICE; False everywhere where the kernel has no such flag."""
    subsections: U64
    """``(n, words)``: subsection_map, bit i of word w is subsection 64*w + i; 0 where not ``subsections_known``."""
    subsections_known: Bool
    usage: U64
    """Virtual address of ``struct mem_section_usage``; 0 for none."""
    pa: U64
    """Physical address of the ``struct mem_section``: the evidence."""
    flags: dict[str, int]
    """Flag name to the mask used for it."""
    section_size_bits: int
    unknown_start: U64
    """First section numbers of ranges about which the dump says nothing."""
    unknown_end: U64
    blank_start: U64 = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    """First section numbers of ranges whose part of the table is in the dump, a page of zeros each."""
    blank_end: U64 = field(default_factory=lambda: np.empty(0, dtype=np.uint64))

    def __len__(self) -> int:
        return int(self.section_nr.size)


def subsection_bits(subsections: U64) -> Bool:
    """``SectionRows.subsections`` as ``(n, 64 * words)`` bits: column i is subsection i."""
    return np.unpackbits(subsections.astype("<u8").view(np.uint8), axis=1, bitorder="little").astype(np.bool_)


@dataclass(frozen=True, eq=False, kw_only=True)
class StructPageRows:
    """One row a 2 MiB subsection whose last struct page was read, ascending by PFN."""

    pfn: I64
    """The last PFN of the subsection."""
    va: U64
    """Where its struct page is."""
    blank: Bool
    """All bytes of it are zero: no struct page in use is, for ``_mapcount`` of an unmapped page is -1."""
    pages_per_subsection: int
    absent: I64 = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """Page frames with such struct pages that are mapped and not in the dump."""

    def __len__(self) -> int:
        return int(self.pfn.size)


@dataclass(frozen=True, eq=False, kw_only=True)
class ListedMemory:
    """Ranges of PFNs that whoever wrote the dump took for memory, ascending; their pages may be left out.

    They are the PT_LOAD headers of an ELF core, and the first bitmap of a kdump (makedumpfile's ``bitmap1``).
    """

    start_pfn: I64
    end_pfn: I64

    def __len__(self) -> int:
        return int(self.start_pfn.size)


@dataclass(frozen=True, eq=False, kw_only=True)
class CrashKernelMemory:
    """What the crash kernel that is loaded takes for memory: the PT_LOAD headers of its elfcorehdr."""

    loaded: bool
    start_pfn: I64
    """First PFNs of the ranges, ascending; they may overlap.  Empty where none is loaded or it cannot be read."""
    end_pfn: I64
    unread: str = ""
    """Why the list of a loaded crash kernel is not known; empty where it is."""

    def __len__(self) -> int:
        return int(self.start_pfn.size)


@dataclass(frozen=True, eq=False, kw_only=True)
class BlockRows:
    """One row a memory block, ascending by first section."""

    start_section_nr: U64
    state: tuple[str, ...]
    """By the kernel's names: online, offline, going-offline, going-online …; ``unknown (value)`` otherwise."""
    nid: I64
    """Node; -1 where unknown."""
    zone: tuple[str, ...]
    """Name of the zone that all of an online block's pages are in; empty for several zones, or none."""
    has_altmap: Bool
    altmap_base_pfn: U64
    nr_vmemmap_pages: U64
    """Pages at the start of the block that hold its own struct pages (memmap_on_memory); 0 for none."""
    group: U64
    """Address of ``struct memory_group``; 0 for none."""
    address: U64
    """Virtual address of each ``struct memory_block``: the evidence."""
    sections_per_block: int
    in_flux: int = 0
    """Blocks that have no row because they changed while a running kernel was read."""

    def __len__(self) -> int:
        return int(self.start_section_nr.size)


class PageKind(IntEnum):
    """What ``page_type`` and ``_mapcount``, which share a place, say of a page."""

    UNKNOWN = -1
    PLAIN = 0
    """No type, and not mapped: -1."""
    BUDDY = 1
    """Free, in the page allocator."""
    OFFLINE = 2
    """PageOffline."""
    MAPPED = 3
    """In the page tables of a process."""
    OTHER = 4
    """Any other type: a page table, slab, hugetlb."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SelfHostedRows:
    """One row a struct page of a page that holds struct pages of its own memory block, ascending by PFN.

    Of large machines the first and last of each block; a page that the dump lacks has no row.
    """

    pfn: I64
    va: U64
    """Where the struct page is."""
    section_nr: I64
    """First section of the block (`BlockRows.start_section_nr`)."""
    node: I64
    """Node in ``flags``; -1 where the types do not say which bits these are."""
    zone: I64
    """Zone in ``flags``: index into ``zone_names``; -1 where unknown."""
    zone_names: tuple[str, ...]
    """By their index, as in `BlockRows.zone`."""
    reserved: I64
    """PG_reserved: 1 or 0; -1 where unknown."""
    marked: I64
    """PG_vmemmap_self_hosted: 1 or 0; -1 where the kernel has no such flag (before 6.0) or it is unknown."""
    refcount: I64
    kind: I64
    """`PageKind` of each."""
    rest_node: I64
    """Node of the first page of the block that holds no struct pages; -1 where unknown."""
    rest_zone: I64
    """Its zone; -1 where unknown."""
    unread: I64
    """PFNs that were asked for and are not in the dump."""

    def __len__(self) -> int:
        return int(self.pfn.size)


@dataclass(frozen=True, eq=False, kw_only=True)
class ZoneRows:
    """One row a zone that spans anything; counts in pages.  Nodes have separate rows in ``node_*``."""

    node: I64
    name: tuple[str, ...]
    start_pfn: I64
    spanned: I64
    present: I64
    managed: I64
    node_id: I64
    node_start_pfn: I64
    node_spanned: I64
    node_present: I64
    max_pfn: int | None
    """The kernel's ``max_pfn``: first PFN after the memory that it looks for; None where there is no symbol."""

    def __len__(self) -> int:
        return len(self.name)


@dataclass(frozen=True, eq=False, kw_only=True)
class HugetlbRows:
    """One row a huge page size."""

    name: tuple[str, ...]
    order: I64
    """A huge page is ``2**order`` pages."""
    nr_huge_pages: I64
    free_huge_pages: I64
    surplus_huge_pages: I64
    vmemmap_optimized: bool | None
    """Whether HVO is switched on; None where the kernel does not have it (arm64 had it from 5.19 to 6.2)."""

    def __len__(self) -> int:
        return len(self.name)


class Record(NamedTuple):
    """A table of this module: a fact that only a crash dump gives."""

    fact: type
    attribute: str
    """Of `parsers.vmcore.extract.VmcoreFacts`."""
    what: str
    """What diagnostics of a dump call it."""
    described: str
    """What a person calls it where it is missing."""


RECORDS = (
    Record(SectionRows, "sections", "section table", "mem_section (a crash dump or /proc/kcore)"),
    Record(StructPageRows, "struct_pages", "struct pages", "struct pages (a crash dump or /proc/kcore)"),
    Record(BlockRows, "blocks", "memory blocks", "struct memory_block (a crash dump or /proc/kcore)"),
    Record(
        SelfHostedRows,
        "self_hosted",
        "self-hosted pages",
        "struct pages of self-hosted pages (a crash dump or /proc/kcore)",
    ),
    Record(ZoneRows, "zones", "zones", "the zones (a crash dump or /proc/kcore)"),
    Record(HugetlbRows, "hugetlb", "huge pages", "the huge page pools (a crash dump or /proc/kcore)"),
    Record(
        CrashKernelMemory,
        "crash_image",
        "crash kernel",
        "the loaded crash kernel's list of memory (a crash dump or /proc/kcore)",
    ),
    Record(ListedMemory, "listed", "listed memory", "the list of memory of a crash dump"),
)
"""All of them: what a dump is asked for, what rules may require, and what is said where it is missing."""

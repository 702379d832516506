"""Which zeros are what the kernel's memory holds, and which only stand for what was not read.

A dump has zeros where its writer left memory out: the holes of a sparse file, ranges that a hypervisor or a disk could
not give.  Hot-remove frees each table that it empties (free_empty_tables() in arch/arm64/mm/mmu.c, since 5.7), so a
table of zeros for memory that has a section is hardly ever what the kernel had.

/proc/kcore gives zeros for pages that are not online, that are PageOffline (a balloon, virtio-mem) or poisoned
(read_kcore_iter() in fs/proc/kcore.c, 5.15 to 7.3).  The section table and the struct page of the frame say which of
these holds, so no other file is needed.  A frame whose struct page cannot be read stays unknown.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from parsers.iomem import Iomem
from parsers.mapping import U64, Bool
from parsers.ranges import Ranges
from parsers.vmcore.addresses import MASK
from parsers.vmcore.dump import Dump
from parsers.vmcore.explain import explain
from parsers.vmcore.memory import UNIT, PhysicalMemory
from parsers.vmcore.page_flags import TYPE_BYTE
from parsers.vmcore.rows import SectionRows, subsection_bits

__all__ = ["boot_memory", "no_memory", "voucher"]

_MAX_ARRAYS = 16
_SUBSECTION_SHIFT = 21
_FLAG_BITS = 6  # below the memmap pointer of a section, see parsers.vmcore.struct_pages


def no_memory(dump: Dump, sections: SectionRows) -> Callable[[U64, U64], Bool]:
    """A function that says of ranges of addresses, inclusive at the end, whether no section has its memory there.

    The ranges are of the linear map or of struct pages.  Sections that the dump does not show count as memory.
    """
    addresses, size = dump.addresses, dump.size("page")
    shift, page = sections.section_size_bits, addresses.granule.page_size
    there = sections.section_nr[sections.present]
    doubt = Ranges.of(sections.unknown_start.astype(np.int64), sections.unknown_end.astype(np.int64))
    doubt |= Ranges.of(sections.blank_start.astype(np.int64), sections.blank_end.astype(np.int64))
    reach = (addresses.phys_offset + addresses.linear_end - addresses.page_offset) & MASK
    number = Ranges.of(there.astype(np.int64), there.astype(np.int64) + 1) | doubt
    number &= Ranges.one(0, -(-reach >> shift))  # no address stands for memory beyond the linear map
    first, end = number.start.astype(np.uint64) << np.uint64(shift), number.end.astype(np.uint64) << np.uint64(shift)
    to_linear = np.uint64((addresses.page_offset - addresses.phys_offset) & MASK)
    pointers = sections.section_mem_map[sections.present] & ~np.uint64((1 << _FLAG_BITS) - 1)
    low, high = [first + to_linear], [end + to_linear]
    if size and pointers.size:  # the pointers are biased: all the same with one array of struct pages
        for base in np.unique(pointers)[:_MAX_ARRAYS].tolist():
            low.append(first // np.uint64(page) * np.uint64(size) + np.uint64(base))
            high.append(end // np.uint64(page) * np.uint64(size) + np.uint64(base))
    used = Ranges.of(*(np.concatenate(column).view(np.int64) for column in (low, high)))

    def silent(start: U64, last: U64) -> Bool:
        if not size or not pointers.size:
            return np.zeros(start.size, dtype=np.bool_)
        return np.asarray(~used.touches(start.view(np.int64), last.view(np.int64) + 1), dtype=np.bool_)

    return silent


def boot_memory(dump: Dump, sections: SectionRows, iomem: Iomem | None) -> Callable[[U64, U64], Bool]:
    """A function that says which ranges of addresses, inclusive at the end, are wholly boot memory's linear map.

    arm64 takes no boot memory offline, so its linear map stays.  The kernel image is left out: since 7.2 its data and
    bss are not mapped there.
    """
    addresses, shift = dump.addresses, sections.section_size_bits
    early = sections.present & sections.has_memmap & sections.early & sections.subsections_known
    row, number = np.nonzero(subsection_bits(sections.subsections[early])[:, : 1 << (shift - _SUBSECTION_SHIFT)])
    first = (sections.section_nr[early][row] << np.uint64(shift)) + (
        number.astype(np.uint64) << np.uint64(_SUBSECTION_SHIFT)
    )
    image = (addresses.image_start - addresses.kimage_voffset) & MASK
    memory = Ranges.of(first.astype(np.int64), first.astype(np.int64) + (1 << _SUBSECTION_SHIFT))
    size = addresses.image_end - addresses.image_start
    if image + size < 1 << 63:  # else kimage_voffset is not this kernel's
        memory -= Ranges.one(image, image + size)
    if iomem is not None and iomem.privileged:  # memory that firmware keeps (no-map) is not in the linear map
        ram = iomem.named("System RAM")
        memory &= Ranges.of(iomem.start[ram].astype(np.int64), iomem.end[ram].astype(np.int64))
    to_physical = np.uint64((addresses.phys_offset - addresses.page_offset) & MASK)

    def stays(start: U64, last: U64) -> Bool:
        linear = (start >= np.uint64(addresses.page_offset)) & (last <= np.uint64((addresses.linear_end - 1) & MASK))
        low, high = ((bound[linear] + to_physical).view(np.int64) for bound in (start, last))
        linear[linear] = memory.covered(low, high + 1) == high + 1 - low
        return linear

    return stays


def voucher(dump: Dump, sections: SectionRows, memory: PhysicalMemory) -> Callable[[U64], Bool]:
    """A function that says of page frames of 4096 bytes whether zeros in them are what the kernel's memory holds.

    ``memory`` is read to find and read struct pages; what it lacks leaves frames unknown.
    """
    info, page_size = dump.vmcoreinfo, dump.addresses.granule.page_size
    size, flags_at = dump.size("page"), dump.offset("page", "flags")
    mapcount_at = dump.offset("page", "_mapcount")
    offline, poison = info.number("PAGE_OFFLINE_MAPCOUNT_VALUE"), info.number("PG_hwpoison")
    per_section = (1 << sections.section_size_bits) // page_size
    usable = sections.present & sections.has_memmap
    if sections.online.any():  # without CONFIG_MEMORY_HOTPLUG no section is marked
        usable &= sections.online

    def frame(va: int) -> int | None:
        return explain(memory, dump.addresses, va)[-1].output

    def vouch(units: U64) -> Bool:
        if size is None or flags_at is None or mapcount_at is None or not len(sections):
            return np.zeros(units.size, dtype=np.bool_)
        pfn = units * np.uint64(UNIT) // np.uint64(page_size)
        row = np.searchsorted(sections.section_nr, pfn // np.uint64(per_section))
        at = np.minimum(row, len(sections) - 1)
        good = (sections.section_nr[at] == pfn // np.uint64(per_section)) & usable[at]
        memmap = sections.section_mem_map[at] & ~np.uint64((1 << _FLAG_BITS) - 1)
        va = memmap + pfn * np.uint64(size)
        page = np.uint64(page_size - 1)
        pages, where = np.unique(va[good] & ~page, return_inverse=True)
        frames = [frame(one & MASK) for one in pages.tolist()]
        known = np.array([one is not None for one in frames], dtype=np.bool_)[where]
        pa = np.array([one or 0 for one in frames], dtype=np.uint64)[where] + (va[good] & page)
        flags, flags_known = memory.read_words(pa + np.uint64(flags_at))
        place = pa + np.uint64(mapcount_at)
        words, words_known = memory.read_words(place & ~np.uint64(7))
        kind = (words >> ((place & np.uint64(7)) * np.uint64(8))) & np.uint64(0xFFFFFFFF)
        sound = known & flags_known & words_known & ((flags | words) != 0)
        if poison is not None:
            sound &= (flags >> np.uint64(poison)) & np.uint64(1) == 0
        if offline is not None:
            shift = np.uint64(TYPE_BYTE if offline & ((1 << TYPE_BYTE) - 1) == 0 else 0)
            sound &= kind >> shift != np.uint64((offline & 0xFFFFFFFF) >> int(shift))
        good[good] = sound
        return np.asarray(good, dtype=np.bool_)

    return vouch

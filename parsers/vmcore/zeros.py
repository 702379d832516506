"""Which pages of zeros the kernel really read from its memory, and which it only returned as zeros.

/proc/kcore gives zeros for pages that are not online, that are PageOffline (a balloon, virtio-mem) or poisoned
(read_kcore_iter() in fs/proc/kcore.c, 5.15 to 7.3).  The section table and the struct page of the frame say which of
these holds, so no other file is needed.  A frame whose struct page cannot be read stays unknown.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from parsers.mapping import U64, Bool
from parsers.vmcore.addresses import MASK
from parsers.vmcore.dump import Dump
from parsers.vmcore.explain import explain
from parsers.vmcore.memory import UNIT, PhysicalMemory
from parsers.vmcore.page_flags import TYPE_BYTE
from parsers.vmcore.rows import SectionRows

__all__ = ["voucher"]

_FLAG_BITS = 6  # below the memmap pointer of a section, see parsers.vmcore.struct_pages


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

"""What supports and contradicts an oops being damage of the memory map.

Most faults in the vmemmap area and in the linear map are bad pointers: of nine public reports of a linear address
without a mapping none was a torn leaf.  So before memory is accused, everything is looked at that a bad pointer, an
early boot, a capture kernel or a range that is unmapped on purpose would show.

Sources: arch/arm64/mm/mmu.c (where leaves are made, map_mem()), arch/arm64/mm/init.c (crashkernel), mm/memremap.c,
include/linux/err.h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.arm64 import PTE
from parsers.dmesg import Kind
from parsers.esr import Fault
from parsers.expressions import expression
from parsers.oops import ReportKind
from parsers.records import dataclass
from rules.model.oops import Region

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rules.model.oops import DecodedOops

__all__ = [
    "Standing",
    "hotplug_signs",
    "is_external_abort",
    "linear_standing",
    "struct_page_standing",
    "unmapped_on_purpose",
]

FAR = 16 << 40
"""Bytes from all memory that is known at which no more memory is expected."""
_HOT_REMOVE = (5, 7)
_CRASHKERNEL_MAPPED = (6, 4)
_INT_BITS = 0xFFFF_FFFF

_HOTPLUG_FUNCTIONS = (
    *("memunmap_pages", "memremap_pages", "devm_memremap", "pagemap_range", "dev_dax_kmem", "dax_kmem"),
    *("arch_add_memory", "arch_remove_memory", "add_memory", "__add_memory", "remove_memory", "__remove_memory"),
    *(
        "try_remove_memory",
        "offline_and_remove_memory",
        "offline_pages",
        "online_pages",
        "__add_pages",
        "__remove_pages",
    ),
    *("memory_subsys_o", "memory_block_o", "memory_block_action", "virtio_mem_", "acpi_memory_device", "acpi_scan_hot"),
    *("sparse_add_section", "sparse_remove_section", "section_deactivate", "unmap_hotplug_", "free_hotplug_"),
    *("memmap_init_zone_device", "__init_zone_device_page", "vmemmap_free", "vmemmap_populate"),
)
_PAGE_WALKERS = (
    *("stable_page_flags", "kpageflags", "kpagecount", "kpagecgroup", "page_idle", "read_kcore", "dump_page"),
    *("isolate_", "__isolate_", "compact", "pageblock", "get_pfnblock", "set_pfnblock", "fast_isolate", "fast_find"),
    *("has_unmovable_pages", "start_isolate", "test_pages", "__test_page", "set_migratetype", "alloc_contig"),
    *("pfn_to_online_page", "is_free_buddy_page", "scan_movable_pages", "do_migrate_range", "walk_zones", "kmemleak"),
    *("move_pfn_range_to_zone", "zone_device", "free_zone_device", "put_dev_pagemap", "page_ext", "damon_"),
    *("memory_failure", "soft_offline", "unpoison", "move_freepages", "__offline_isolated", "__reset_isolation"),
    *("balloon", "page_reporting", "walk_system_ram", "saveable_page", "count_data_pages", "split_page_owner"),
)


# What the initcalls of drivers do.
_ALSO_AT_BOOT = (
    *("memunmap_pages", "memremap_pages", "memmap_init_zone_device", "__init_zone_device_page", "section_deactivate"),
    *("arch_add_memory", "arch_remove_memory", "add_memory", "__add_memory", "__remove_memory", "offline_pages"),
)


@dataclass(frozen=True, slots=True)
class Standing:
    """What an oops has for and against it."""

    excluded: str = ""
    """Why it cannot be what it looks like; empty if it can."""
    supports: tuple[str, ...] = ()
    contradicts: tuple[str, ...] = ()
    signs: tuple[str, ...] = ()
    """What shows that memory was being added or removed."""
    walker: str = ""
    """The function that looks at struct pages of memory whose owner it does not know."""
    added: bool = False
    """The page is not memory of the boot."""

    @property
    def has_reason(self) -> bool:
        """Something shows hotplug: it was going on, or a walker of page frames met memory that came after the boot."""
        return bool(self.signs or (self.walker and self.added))


# What is said of operations only: not what drivers print when they are probed, and not what CMA shares with hotplug.
_OPERATION = expression(
    r"Offlined Pages |memory offlining \[|online_pages \[mem|removing memory fails|[Uu]naligned hotplug range"
    r"|Hotplug memory \[|Boot memory \[|(?:try_reonline|offline_and_remove)_memory|section already deactivated"
    r"|Altmap not fully|failed to free all reserved|memory add fail|splits a leaf entry|acpi PNP0C80:"
    r"|virtio_mem \S+ (?:requested size|plugged size): 0x0*[1-9a-f]|virtio_mem \S+ (?:adding memory|unknown error)"
    r"|dax\d+\.\d+: |mapping\d+: 0x"
)


def hotplug_signs(oops: DecodedOops) -> tuple[str, ...]:
    """What shows that memory was added, removed or taken by a driver, before or while it happened."""
    signs = []
    function = oops.report.passes(*_HOTPLUG_FUNCTIONS)
    if function:
        signs.append(f"{function}() is in the call trace")
    earlier = [one for one in oops.working_on_memory if one.line < oops.report.line and _OPERATION.search(one.text)]
    if earlier:
        signs.append(f'line {earlier[-1].line} before it: "{earlier[-1].text.strip()[:80]}"')
    return tuple(signs)


def struct_page_standing(oops: DecodedOops) -> Standing:
    """For a fault in the vmemmap area: is the address that of a field of a struct page of memory."""
    signs = hotplug_signs(oops)
    walker = oops.report.passes(*_PAGE_WALKERS)
    excluded = next(_bogus_struct_page(oops), "") or next(_wrong_moment(oops, signs), "")
    contradicts = list(_no_removal(oops))
    if not signs and not walker:
        contradicts.append("the function is not known to walk page frames")
    supports = (f"{walker}() walks page frames",) if walker else ()
    return Standing(excluded, supports, tuple(contradicts), signs, walker, added=oops.at_boot is False)


def linear_standing(oops: DecodedOops) -> Standing:
    """For a linear address without a mapping: can a leaf of memory that is in use have been torn out."""
    signs = hotplug_signs(oops)
    excluded = next(_bogus_linear(oops), "") or next(_wrong_moment(oops, signs), "")
    return Standing(excluded, (), tuple(_no_removal(oops)), signs)


def unmapped_on_purpose(oops: DecodedOops) -> str:
    """The range of the log that holds the page and that the kernel keeps out of the linear map; empty if none does."""
    if oops.pfn is None:
        return ""
    at = oops.pfn << oops.layout.page_shift
    for message in oops.boot.of(Kind.RESERVED):
        found = _RANGE.search(message.text)
        if found is None:
            continue
        start, last = int(found["start"], 16), int(found["end"], 16)
        crash = message.text.startswith("crashkernel")
        if not start <= at < last + (0 if crash else 1) or (not crash and "nomap" not in message.text.replace("-", "")):
            continue
        if crash and oops.release is not None and not _unmaps_crashkernel(oops):
            continue
        what = "the crash kernel's memory, which kernels before 6.4 unmap" if crash else "no-map memory"
        return f"{what} (line {message.line}: {message.text.strip()[:100]})"
    return ""


_RANGE = expression(r"0x(?P<start>[0-9a-f]{1,16}) ?(?:-|\.\.) ?0x(?P<end>[0-9a-f]{1,16})")


def _unmaps_crashkernel(oops: DecodedOops) -> bool:
    return oops.release is None or oops.release.series < _CRASHKERNEL_MAPPED


def _bogus_struct_page(oops: DecodedOops) -> Iterator[str]:
    """Why the address is not that of a struct page of memory, strongest first."""
    address, layout = oops.report.address, oops.layout
    if address is None or oops.region is not Region.VMEMMAP or oops.index is None:
        return
    if address.tag is not None:
        yield "the pointer has a tag in its top byte, which no pointer to a struct page has"
    top = (0xFFFF_FFFF_0000_0000 - layout.vmemmap_first) // layout.struct_page_size << layout.page_shift
    if address.value >> 32 == _INT_BITS and top > 1 << 40 and not _near_memory(oops):
        yield "the upper half of the address is all ones: a negative 32-bit number or an error code, not a pointer"
    if address.value & 3:
        yield "the address is not aligned to any field of a struct page"
    if (oops.index == oops.first_index or oops.pfn == 0) and not oops.at_boot:  # KASLR moves the first index from PFN 0
        yield "it is the struct page of the first page frame there can be, as a page-table entry or a PFN of zero gives"
    if _known(oops) and oops.pfn is None:
        yield "no memory can be there: with PHYS_OFFSET its page has no number"
    if _is_far(oops):
        yield f"its page would lie {FAR >> 40} TiB and more from all memory"


def _bogus_linear(oops: DecodedOops) -> Iterator[str]:
    """Why no leaf of memory in use can be missing there."""
    layout, level = oops.layout, oops.level
    if level is not None and level < PTE and level not in layout.granule.block_levels():
        span = _size(layout.granule.span(level)) if level >= 0 else "more"
        yield f"the hole is of {span} (level {level}): no leaf can exist at that level"
    purpose = unmapped_on_purpose(oops)
    if purpose:
        yield f"the page is in {purpose}"
    if oops.report.nested and oops.report.walk is not None and oops.report.walk.is_cut:
        yield "the kernel cannot reach its own page tables: its idea of where memory is, is wrong"
    if _known(oops) and oops.pfn is None:
        yield "no memory can be there: with PHYS_OFFSET its page has no number"
    if _is_far(oops):
        yield f"its page would lie {FAR >> 40} TiB and more from all memory"


def _wrong_moment(oops: DecodedOops, signs: tuple[str, ...]) -> Iterator[str]:
    """Why nothing can have been removed yet."""
    if oops.boot.is_capture_kernel:
        yield "it is a capture kernel: it has a part of the memory, and nothing was removed from it"
    elif oops.report.comm == "swapper" or (oops.report.is_boot and not oops.report.passes(*_ALSO_AT_BOOT)):
        yield "the kernel was booting: nothing was removed yet"
    elif oops.report.pid == 0 and not signs:
        yield "the idle task of a CPU was running"


def _no_removal(oops: DecodedOops) -> Iterator[str]:
    release = oops.release
    if release is not None and release.series < _HOT_REMOVE:
        yield f"arm64 kernels before {_HOT_REMOVE[0]}.{_HOT_REMOVE[1]} cannot remove memory, unless the vendor added it"
    if oops.report.is_idle:
        yield "the idle task was running"


def _known(oops: DecodedOops) -> bool:
    return oops.index is not None and oops.layout.knows("phys_offset")


def _near_memory(oops: DecodedOops) -> bool:
    """Whether the page is memory that the boot knew, or within 1 TiB of it."""
    memory = oops.boot.memory
    if oops.pfn is None or not memory.start.size:
        return False
    at = oops.pfn << oops.layout.page_shift
    return int(memory.start.min()) - (1 << 40) <= at <= int(memory.last.max()) + (1 << 40)


def _is_far(oops: DecodedOops) -> bool:
    """Whether the page is far from all memory that the boot listed, or from where the linear map begins."""
    memory, layout = oops.boot.memory, oops.layout
    if oops.index is None:
        return False
    if oops.pfn is not None and memory.start.size:
        at = oops.pfn << layout.page_shift
        return not int(memory.start.min()) - FAR <= at <= int(memory.last.max()) + FAR
    if oops.pfn is not None:
        return oops.pfn << layout.page_shift >= 1 << 47
    fixed = oops.boot.kaslr is False or (oops.release is not None and oops.release.series >= (6, 16))
    return fixed and oops.index - oops.first_index << layout.page_shift >= 1 << 47


def _size(size_bytes: int) -> str:
    for unit, shift in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size_bytes >> shift:
            return f"{size_bytes >> shift} {unit}"
    return f"{size_bytes} B"


def is_external_abort(oops: DecodedOops) -> bool:
    """The memory system answered with an error."""
    esr = oops.report.esr
    if esr is None:
        return oops.report.kind is ReportKind.SERROR and "SError" in oops.report.headline
    return esr.is_serror or esr.fault in {Fault.EXTERNAL_ABORT, Fault.EXTERNAL_ABORT_ON_WALK, Fault.PARITY}

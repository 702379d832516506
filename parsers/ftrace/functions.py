"""The kernel functions of memory hotplug: event names, arguments in registers, return values.  The one table.

The set-up script of `parsers.ftrace.probes` is printed from it and every reader understands events by
it, so a probe that is added here is both placed and read.  Signatures are those of arm64 kernels 5.10.223, 6.1.176,
6.12.117, 6.18.15 and 7.3.4 (mm/memory_hotplug.c, mm/sparse.c, mm/sparse-vmemmap.c, mm/hugetlb_vmemmap.c,
mm/memremap.c, drivers/base/memory.c, arch/arm64/mm/mmu.c); releases between them are interpolated,
and stable trees carry backports: a signature read back from the kernel (``$arg*``) beats this table.

Column names are the kernel's parameter names made uniform: ``start``, ``end``, ``size`` are addresses
and bytes, ``start_pfn``, ``end_pfn``, ``nr_pages`` are pages, every ``end`` is exclusive.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

__all__ = [
    "FUNCTIONS",
    "FUNCTION_OF_KIND",
    "Function",
    "Kind",
    "Release",
]

Release = tuple[int, ...]


class Kind(IntEnum):
    """What an event is about; functions by the kernel's name in upper case, leading underscores dropped."""

    OTHER = 0
    ADD_MEMORY_RESOURCE = 1
    TRY_REMOVE_MEMORY = 2
    ARCH_ADD_MEMORY = 3
    ARCH_REMOVE_MEMORY = 4
    ADD_PAGES = 5
    REMOVE_PAGES = 6
    SPARSE_ADD_SECTION = 7
    SPARSE_REMOVE_SECTION = 8
    SECTION_DEACTIVATE = 9
    VMEMMAP_POPULATE = 10
    VMEMMAP_POPULATE_BASEPAGES = 11
    VMEMMAP_POPULATE_HUGEPAGES = 12
    VMEMMAP_ALLOC_BLOCK_BUF = 13
    VMEMMAP_SET_PMD = 14
    VMEMMAP_CHECK_PMD = 15
    VMEMMAP_FREE = 16
    ONLINE_PAGES = 17
    OFFLINE_PAGES = 18
    MOVE_PFN_RANGE_TO_ZONE = 19
    REMOVE_PFN_RANGE_FROM_ZONE = 20
    CREATE_MEMORY_BLOCK_DEVICES = 21
    REMOVE_MEMORY_BLOCK_DEVICES = 22
    MHP_INIT_MEMMAP_ON_MEMORY = 23
    MHP_DEINIT_MEMMAP_ON_MEMORY = 24
    ONLINE_MEM_SECTIONS = 25
    OFFLINE_MEM_SECTIONS = 26
    MEMORY_NOTIFY = 27
    MEMREMAP_PAGES = 28
    MEMUNMAP_PAGES = 29
    CREATE_PGD_MAPPING_LOCKED = 30
    UNMAP_HOTPLUG_RANGE = 31
    FREE_EMPTY_TABLES = 32
    SPLIT_KERNEL_LEAF_MAPPING = 33
    SET_MEMORY_VALID = 34
    HUGETLB_VMEMMAP_OPTIMIZE = 35
    HUGETLB_VMEMMAP_RESTORE = 36
    VMEMMAP_REMAP_RANGE = 37
    VMEMMAP_SPLIT_PMD = 38
    VMEMMAP_REMAP_PTE = 39
    VMEMMAP_RESTORE_PTE = 40
    TLBI = 41
    """A probe on a TLB invalidation instruction; ``op`` is its operand."""
    MM_PAGE_ALLOC = 42
    MM_PAGE_FREE = 43
    TEST_PAGES_ISOLATED = 44
    MM_MIGRATE_PAGES = 45
    MARKER = 46
    """Text written to trace_marker; ``text``."""
    LOG = 47
    """A line of the kernel log about memory hotplug; it carries less than a trace."""
    HUGETLB_VMEMMAP_OPTIMIZE_FOLIOS = 48
    HUGETLB_VMEMMAP_RESTORE_FOLIOS = 49


# Registers at the entry, in order.  A word "-" is an argument that nothing here needs.
Signature = str


@dataclass(frozen=True, slots=True)
class Function:
    """One function: how its events are called and what its registers hold."""

    kind: Kind
    names: tuple[str, ...]
    """Symbol names: the first that the kernel has is probed, the others are those of other releases and aliases."""
    event: str
    """Event name without ``mhp_``; the return event has ``_ret`` appended."""
    aliases: tuple[str, ...] = ()
    """Other event names in use, without ``mhp_``."""
    signatures: tuple[tuple[Release, Signature], ...] = ()
    """(first release, arguments in x0, x1 …), ascending; a release before the first has no such function."""
    fetch: dict[str, str] = field(default_factory=dict)
    """Column: what to fetch, ``{name}`` standing for the register of an argument."""
    btf: dict[str, str] = field(default_factory=dict)
    """Column: what to fetch with BTF."""
    returns: str = ""
    """Type of the return value as a probe prints it; empty for void."""
    return_probe: bool = True
    pointer_of: dict[str, str] = field(default_factory=dict)
    """Column: the pointer it was read through, without which it holds stale bytes."""
    inclusive: tuple[str, ...] = ()
    """Columns whose value is the last element, not the one after it."""
    meminit: bool = False
    """``__meminit`` and therefore notrace up to 6.10: no kprobe event may be placed."""
    noisy: bool = False
    """Fires often without hotplug (module loading); asked for by hand."""

    def signature(self, release: Release | None) -> tuple[str, ...] | None:
        """Arguments in register order for ``release`` (None: the newest known), None if it has no such function."""
        fitting = [words for since, words in self.signatures if release is None or since <= release]
        return tuple(fitting[-1].split()) if fitting else None


_ALTMAP = {
    "altmap_base_pfn": "altmap",
    "altmap_end_pfn": "altmap",
    "altmap_reserve": "altmap",
    "altmap_free": "altmap",
    "altmap_alloc": "altmap",
}
_ZONE_BTF = {"zone_name": "zone->name:string", "zone_nid": "zone->zone_pgdat->node_id:s32"}
_ZONE = {"zone_name": "zone", "zone_nid": "zone"}
_PGMAP = dict.fromkeys(("start", "end", "type", "flags", "vmemmap_shift"), "pgmap")
_PGMAP_BTF = {
    "start": "pgmap->range.start:x64",
    "end": "pgmap->range.end:x64",
    "type": "pgmap->type:u32",
    "flags": "pgmap->flags:x32",
    "vmemmap_shift": "pgmap->vmemmap_shift:u64",
}
_HOT_ADD: Release = (5, 0)
_HOT_REMOVE: Release = (5, 7)

FUNCTIONS: tuple[Function, ...] = (
    Function(
        Kind.ADD_MEMORY_RESOURCE,
        ("add_memory_resource",),
        "add_res",
        signatures=((_HOT_ADD, "nid res flags"),),
        fetch={"start": "+0({res}):x64", "end": "+8({res}):x64"},
        returns="s32",
        inclusive=("end",),
    ),
    Function(
        Kind.TRY_REMOVE_MEMORY,
        ("try_remove_memory",),
        "try_rem",
        signatures=((_HOT_REMOVE, "nid start size"), ((5, 15), "start size")),
        returns="s32",
    ),
    Function(
        Kind.ARCH_ADD_MEMORY,
        ("arch_add_memory",),
        "arch_add",
        signatures=((_HOT_ADD, "nid start size params"),),
        fetch={"altmap": "+0({params}):x64", "pgprot": "+8({params}):x64"},
        returns="s32",
    ),
    Function(
        Kind.ARCH_REMOVE_MEMORY,
        ("arch_remove_memory",),
        "arch_rem",
        # x0 was the node until 65a2aa5f482e (5.15).
        signatures=((_HOT_REMOVE, "nid start size altmap"), ((5, 15), "start size altmap")),
    ),
    Function(
        Kind.ADD_PAGES,
        ("__add_pages",),
        "pg_add",
        ("add_pages",),
        signatures=((_HOT_ADD, "nid start_pfn nr_pages params"),),
        fetch={
            "altmap": "+0({params}):x64",
            "altmap_base_pfn": "+0(+0({params})):x64",
            "altmap_end_pfn": "+8(+0({params})):x64",
            "altmap_reserve": "+16(+0({params})):x64",
            "altmap_free": "+24(+0({params})):x64",
        },
        returns="s32",
        pointer_of=_ALTMAP,
        inclusive=("altmap_end_pfn",),
    ),
    Function(
        Kind.REMOVE_PAGES,
        ("__remove_pages",),
        "pg_rem",
        ("rem_pages", "remove_pages"),
        signatures=((_HOT_REMOVE, "start_pfn nr_pages altmap"),),
    ),
    Function(
        Kind.SPARSE_ADD_SECTION,
        ("sparse_add_section",),
        "sec_add",
        signatures=((_HOT_ADD, "nid start_pfn nr_pages altmap"),),
        returns="s32",
        meminit=True,
    ),
    Function(
        Kind.SPARSE_REMOVE_SECTION,
        ("sparse_remove_section",),
        "sec_rem",
        # x0 was the struct mem_section until 6.11.
        signatures=((_HOT_REMOVE, "ms start_pfn nr_pages map_offset altmap"), ((6, 12), "start_pfn nr_pages altmap")),
    ),
    Function(
        Kind.SECTION_DEACTIVATE,
        ("section_deactivate",),
        "sec_deact",
        signatures=((_HOT_REMOVE, "start_pfn nr_pages altmap"),),
    ),
    Function(
        Kind.VMEMMAP_POPULATE,
        ("vmemmap_populate",),
        "vmm_pop",
        signatures=((_HOT_ADD, "start end nid altmap"),),
        returns="s32",
        pointer_of=_ALTMAP,
        meminit=True,
    ),
    Function(
        Kind.VMEMMAP_POPULATE_BASEPAGES,
        ("vmemmap_populate_basepages",),
        "vmm_base",
        signatures=((_HOT_ADD, "start end nid altmap"),),
        returns="s32",
        meminit=True,
    ),
    Function(
        Kind.VMEMMAP_POPULATE_HUGEPAGES,
        ("vmemmap_populate_hugepages",),
        "vmm_huge",
        signatures=(((6, 2), "start end nid altmap"),),
        returns="s32",
        meminit=True,
    ),
    Function(
        Kind.VMEMMAP_ALLOC_BLOCK_BUF,
        ("vmemmap_alloc_block_buf",),
        "vmm_blk",
        ("vmm_buf",),
        signatures=((_HOT_ADD, "size nid altmap"),),
        returns="x64",
        meminit=True,
    ),
    Function(
        Kind.VMEMMAP_SET_PMD,
        ("vmemmap_set_pmd",),
        "vmm_pmd",
        ("vmm_setpmd",),
        signatures=(((6, 2), "pmdp page nid start end"),),
        return_probe=False,
        meminit=True,
    ),
    Function(
        Kind.VMEMMAP_CHECK_PMD,
        ("vmemmap_check_pmd",),
        "vmm_reuse",
        signatures=(((6, 2), "pmdp nid start end"),),
        fetch={"pmd": "+0({pmdp}):x64"},
        returns="s32",
        meminit=True,
    ),
    Function(
        Kind.VMEMMAP_FREE,
        ("vmemmap_free",),
        "vmm_free",
        signatures=((_HOT_REMOVE, "start end altmap"),),
    ),
    Function(
        Kind.ONLINE_PAGES,
        ("online_pages",),
        "online",
        signatures=((_HOT_ADD, "start_pfn nr_pages online_type nid"), ((5, 15), "start_pfn nr_pages zone group")),
        btf=_ZONE_BTF,
        returns="s32",
        pointer_of=_ZONE,
    ),
    Function(
        Kind.OFFLINE_PAGES,
        ("offline_pages",),
        "offline",
        signatures=((_HOT_ADD, "start_pfn nr_pages"), ((5, 18), "start_pfn nr_pages zone group")),
        btf=_ZONE_BTF,
        returns="s32",
        pointer_of=_ZONE,
    ),
    Function(
        Kind.MOVE_PFN_RANGE_TO_ZONE,
        ("move_pfn_range_to_zone",),
        "zone_add",
        signatures=((_HOT_ADD, "zone start_pfn nr_pages altmap migratetype"),),
        btf=_ZONE_BTF,
        return_probe=False,
        pointer_of=_ZONE,
    ),
    Function(
        Kind.REMOVE_PFN_RANGE_FROM_ZONE,
        ("remove_pfn_range_from_zone",),
        "zone_rem",
        signatures=((_HOT_REMOVE, "zone start_pfn nr_pages"),),
        btf=_ZONE_BTF,
        return_probe=False,
        pointer_of=_ZONE,
    ),
    Function(
        Kind.CREATE_MEMORY_BLOCK_DEVICES,
        ("create_memory_block_devices",),
        "blk_add",
        ("blk_create",),
        signatures=((_HOT_ADD, "start size"),),
        returns="s32",
    ),
    Function(
        Kind.REMOVE_MEMORY_BLOCK_DEVICES,
        ("remove_memory_block_devices",),
        "blk_rem",
        ("blk_remove",),
        signatures=((_HOT_REMOVE, "start size"),),
        return_probe=False,
    ),
    Function(
        Kind.MHP_INIT_MEMMAP_ON_MEMORY,
        ("mhp_init_memmap_on_memory",),
        "mom_on",
        ("mhp_init",),
        signatures=(((5, 15), "start_pfn nr_pages zone"),),
        returns="s32",
        pointer_of=_ZONE,
    ),
    Function(
        Kind.MHP_DEINIT_MEMMAP_ON_MEMORY,
        ("mhp_deinit_memmap_on_memory",),
        "mom_off",
        ("mhp_deinit",),
        signatures=(((5, 15), "start_pfn nr_pages"),),
        return_probe=False,
    ),
    Function(
        Kind.ONLINE_MEM_SECTIONS,
        ("online_mem_sections",),
        "sec_on",
        signatures=((_HOT_ADD, "start_pfn end_pfn"),),
        return_probe=False,
    ),
    Function(
        Kind.OFFLINE_MEM_SECTIONS,
        ("offline_mem_sections",),
        "sec_off",
        signatures=((_HOT_ADD, "start_pfn end_pfn"),),
        return_probe=False,
    ),
    Function(
        Kind.MEMORY_NOTIFY,
        ("memory_notify",),
        "notify",
        signatures=((_HOT_ADD, "action arg"),),
        fetch={f"w{i}": f"+{8 * i}({{arg}}):x64" for i in range(4)},
        returns="s32",
    ),
    Function(
        Kind.MEMREMAP_PAGES,
        ("memremap_pages",),
        "pgmap",
        signatures=((_HOT_ADD, "pgmap nid"),),
        btf=_PGMAP_BTF,
        returns="x64",
        pointer_of=_PGMAP,
        inclusive=("end",),
    ),
    Function(
        Kind.MEMUNMAP_PAGES,
        ("memunmap_pages",),
        "punmap",
        signatures=((_HOT_ADD, "pgmap"),),
        btf={column: _PGMAP_BTF[column] for column in ("start", "end")},
        return_probe=False,
        pointer_of=_PGMAP,
        inclusive=("end",),
    ),
    Function(
        Kind.CREATE_PGD_MAPPING_LOCKED,
        # The second name is an alias at the same address, which the kernel prints on 6.1 and 6.12.
        ("__create_pgd_mapping_locked", "create_kpti_ng_temp_pgd", "__create_pgd_mapping"),
        "map",
        signatures=(((6, 1), "pgdir phys virt size prot - flags"),),
        return_probe=False,
    ),
    Function(
        Kind.UNMAP_HOTPLUG_RANGE,
        ("unmap_hotplug_range",),
        "unmap",
        signatures=((_HOT_REMOVE, "start end free_mapped altmap"),),
    ),
    Function(
        Kind.FREE_EMPTY_TABLES,
        ("free_empty_tables",),
        "freetab",
        ("free_tables",),
        signatures=((_HOT_REMOVE, "start end floor ceiling"),),
    ),
    Function(
        Kind.SPLIT_KERNEL_LEAF_MAPPING,
        ("split_kernel_leaf_mapping",),
        "split",
        signatures=(((6, 18), "start end"),),
        returns="s32",
        noisy=True,
    ),
    Function(
        Kind.SET_MEMORY_VALID,
        ("set_memory_valid",),
        "setvalid",
        signatures=((_HOT_ADD, "start nr_pages enable"),),
        return_probe=False,
        noisy=True,
    ),
    Function(
        Kind.HUGETLB_VMEMMAP_OPTIMIZE,
        ("hugetlb_vmemmap_optimize_folio", "hugetlb_vmemmap_optimize"),
        "hvo",
        signatures=(((6, 1), "h folio"),),
        return_probe=False,
    ),
    Function(
        Kind.HUGETLB_VMEMMAP_OPTIMIZE_FOLIOS,
        ("hugetlb_vmemmap_optimize_folios",),
        "hvo_bulk",
        signatures=(((6, 7), "h"),),
        return_probe=False,
    ),
    Function(
        Kind.HUGETLB_VMEMMAP_RESTORE,
        ("hugetlb_vmemmap_restore_folio", "hugetlb_vmemmap_restore"),
        "hvo_undo",
        signatures=(((6, 1), "h folio"),),
        return_probe=False,
    ),
    Function(
        Kind.HUGETLB_VMEMMAP_RESTORE_FOLIOS,
        ("hugetlb_vmemmap_restore_folios",),
        "hvo_undo_bulk",
        signatures=(((6, 7), "h"),),
        return_probe=False,
    ),
    Function(
        Kind.VMEMMAP_REMAP_RANGE,
        ("vmemmap_remap_range",),
        "hvo_walk",
        signatures=(((6, 1), "start end walk"),),
        fetch={f"w{i}": f"+{8 * i}({{walk}}):x64" for i in (2, 3, 5)},
        returns="s32",
    ),
    Function(
        Kind.VMEMMAP_SPLIT_PMD,
        ("vmemmap_split_pmd",),
        "hvo_split",
        signatures=(((6, 1), "pmdp head start"),),
        returns="s32",
    ),
    Function(
        Kind.VMEMMAP_REMAP_PTE,
        ("vmemmap_remap_pte",),
        "hvo_pte",
        signatures=(((6, 1), "ptep start"),),
        fetch={"old": "+0({ptep}):x64"},
        return_probe=False,
    ),
    Function(
        Kind.VMEMMAP_RESTORE_PTE,
        ("vmemmap_restore_pte",),
        "hvo_rpte",
        signatures=(((6, 1), "ptep start"),),
        fetch={"old": "+0({ptep}):x64"},
        return_probe=False,
    ),
)

FUNCTION_OF_KIND: dict[Kind, Function] = {function.kind: function for function in FUNCTIONS}

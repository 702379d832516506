"""Which known bugs a kernel has, by its machine code: one signature a bug.

Releases do not say what distributors backport; the code does.  A signature is in this table only if it separates
kernels that are known to have the fix from kernels that are known to lack it (docs/reference/bugs-by-code.md has them
all), and says nothing where the code has another shape than those.  ``rules.model.bugs`` says which releases a bug
concerns at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable

    from parsers.image.code import Function, KernelCode

__all__ = ["SIGNATURES", "Shown", "shown_by_code"]

_SITES = 3
"""Levels at which unmap_hotplug_range() unmaps a leaf: PTE, PMD, PUD."""
_BATCHED_TLBI = 9
_ZERO_X2 = frozenset({0xD2800002, 0xAA1F03E2})
"""``mov x2, #0`` and ``mov x2, xzr``."""
_MOV_W0_1 = 0x52800020


@dataclass(frozen=True, slots=True)
class Shown:
    """What the code shows of one bug."""

    fixed: bool
    evidence: str

    @property
    def state(self) -> str:
        """``fixed`` or ``present``."""
        return "fixed" if self.fixed else "present"


def shown_by_code(key: str, code: KernelCode) -> Shown | None:
    """What the code shows of the bug of that key in `rules.model.bugs`; None where it does not show anything."""
    signature = SIGNATURES.get(key)
    return None if signature is None else signature(code)


def _one(code: KernelCode, name: str) -> Function | None:
    """The only copy of a function, without what the compiler moved away as cold; None if there are clones or none."""
    found = [one for one in code.get(name) or () if ".cold" not in one.name]
    return found[0] if len(found) == 1 else None


def _partial_section(code: KernelCode) -> Shown | None:
    """d4234d131b0a: vmemmap_populate() maps what is not a whole section by base pages before it looks at the tables.

    Since 6.2 a kernel without it calls vmemmap_populate_hugepages() only.  Up to 6.1 the loop over PMDs is in
    vmemmap_populate() itself, which falls back to base pages once where no block can be had: the fix is a second call.
    """
    if code.page_size not in {None, 4096} or _one(code, "vmemmap_populate") is None:
        return None
    huge = code.nr_calls("vmemmap_populate", "vmemmap_populate_hugepages")
    base = code.nr_calls("vmemmap_populate", "vmemmap_populate_basepages")
    if huge:
        word = "and vmemmap_populate_basepages()" if base else "only"
        return Shown(base > 0, f"vmemmap_populate() calls vmemmap_populate_hugepages() {word}")
    if (base and "vmemmap_populate_hugepages" in code.addresses) or not _has_own_loop(code):
        return None
    times = {0: "does not call", 1: "calls"}.get(base, "calls twice") if base <= 2 else "calls"
    return Shown(base >= 2, f"vmemmap_populate() {times} vmemmap_populate_basepages()")


def _has_own_loop(code: KernelCode) -> bool:
    return code.nr_calls("vmemmap_populate", "vmemmap_verify") > 0


def _check_pmd(code: KernelCode) -> Shown | None:
    """9ab2601dc4c1: vmemmap_check_pmd() looks at the entry instead of returning 1."""
    function = _one(code, "vmemmap_check_pmd")
    if function is None or not code.nr_calls("vmemmap_check_pmd", "vmemmap_verify"):
        return None
    if function.loads:
        return Shown(fixed=True, evidence="vmemmap_check_pmd() reads the entry")
    if bool((function.words == _MOV_W0_1).any()):
        return Shown(fixed=False, evidence="vmemmap_check_pmd() returns 1 without reading the entry")
    return None


def _straddle(code: KernelCode) -> Shown | None:
    """95a58852b0e5: the notifier that keeps boot memory also refuses what would split a leaf, and has a new name."""
    now, before = code.get("prevent_memory_remove_notifier"), code.get("prevent_bootmem_remove_notifier")
    if now:
        return Shown(fixed=True, evidence="prevent_memory_remove_notifier() is there")
    if before and now is not None and "addr_splits_kernel_leaf" not in code.addresses:
        return Shown(fixed=False, evidence="prevent_bootmem_remove_notifier() looks for boot memory only")
    return None


def _tlb_flush(code: KernelCode) -> Shown | None:
    """48478b9f7913: struct pages' memory is flushed leaf by leaf, the linear map once at the end.

    Without it there is one flush a level; with it each level has the one for what is freed, and the range is flushed
    besides.  The flush of a range is a function from 6.16 on, before that it is in line with three TLBI.
    """
    function = _one(code, "unmap_hotplug_range")
    if function is None:
        return None
    calls, inline = int(function.calls_to(code.addresses.get("flush_tlb_kernel_range")).size), function.nr_tlbi
    evidence = f"unmap_hotplug_range() has {calls or inline} {'calls of flush_tlb_kernel_range()' if calls else 'TLBI'}"
    if inline == 0 and calls in {_SITES, _SITES + 1}:
        return Shown(calls > _SITES, evidence)
    if calls == 0 and inline in {_SITES, _BATCHED_TLBI}:
        return Shown(inline > _SITES, evidence)
    return None


def _destructor(code: KernelCode) -> Shown | None:
    """c594b83457cc: table pages are accounted for when they are freed, as they are when they are allocated (6.16)."""
    homes = ("free_hotplug_pgtable_page", "free_empty_tables")
    if code.unread.intersection((*homes, "__pgd_pgtable_alloc")) or not code.get("free_empty_tables"):
        return None
    accounting = [name for name in ("lruvec_stat_mod_folio", "__lruvec_stat_mod_folio") if name in code.addresses]
    if not accounting:
        return None
    if not any(code.nr_calls("__pgd_pgtable_alloc", name) for name in (*accounting, "mod_node_page_state")):
        return None
    if any(code.nr_calls(home, name) for home in homes for name in accounting):
        return Shown(fixed=True, evidence=f"free_empty_tables() calls {accounting[0]}(), of pagetable_dtor()")
    return Shown(fixed=False, evidence="free_empty_tables() frees pages without pagetable_dtor()")


def _dax(code: KernelCode) -> Shown | None:
    """87a7ae75d738: without ARCH_WANT_OPTIMIZE_DAX_VMEMMAP the shared struct pages of device-dax are compiled out."""
    if _one(code, "__populate_section_memmap") is None:
        return None
    for name in ("vmemmap_populate_compound_pages", "vmemmap_populate_address"):
        if code.nr_calls("__populate_section_memmap", name):
            return Shown(fixed=False, evidence=f"__populate_section_memmap() calls {name}()")
    if "vmemmap_populate_compound_pages" in code.addresses:
        return None
    return Shown(fixed=True, evidence="__populate_section_memmap() calls vmemmap_populate() only")


def _max_pfn(code: KernelCode) -> Shown | None:
    """89f43e1ce6f6: arch_add_memory() compares with max_pfn before it stores to it."""
    function = _one(code, "arch_add_memory")
    if function is None:
        return None
    loaded, stored = function.globals_accessed()
    if len(stored) != 2:  # max_pfn and max_low_pfn; none before 8fac67ca236b
        return None
    if len(stored & loaded) == 1:
        return Shown(fixed=True, evidence="arch_add_memory() loads max_pfn before it stores to it")
    if not stored & loaded:
        return Shown(fixed=False, evidence="arch_add_memory() stores to max_pfn without looking at it")
    return None


def _altmap(code: KernelCode) -> Shown | None:
    """The failed add of a self-hosted block hands the altmap to arch_remove_memory(), its third argument."""
    address = code.addresses.get("arch_remove_memory")
    own, caller = code.get("create_altmaps_and_memory_blocks"), code.get("add_memory_resource")
    if address is None or own is None or caller is None:
        return None
    # Inlined into its caller, which has its own call, for blocks that are not self-hosted.
    homes, wanted = (own, 1) if own else (caller, 2)
    calls = [(one, int(row)) for one in homes for row in one.calls_to(address)]
    values = [one.written(row, 2, 8) for one, row in calls]
    if len(values) != wanted or None in values:
        return None
    if any(value in _ZERO_X2 for value in values):
        return Shown(fixed=False, evidence="the error path of a self-hosted add calls arch_remove_memory() with NULL")
    return Shown(fixed=True, evidence="the error path of a self-hosted add hands its altmap to arch_remove_memory()")


def _nomap(code: KernelCode) -> Shown | None:
    """7ace06a01efa: the boundaries of memory are rounded to whole pages before they are mapped."""
    homes = [one for name in ("map_mem", "paging_init") for one in code.functions.get(name, ())]
    if not code.page_size or {"map_mem", "paging_init"} & code.unread:
        return None
    maps = [one for one in homes if one.calls_to(code.addresses.get("__map_memblock")).size]
    maps += [one for one in homes if one.calls_to(code.addresses.get("memblock_mark_nomap")).size and one not in maps]
    if len(maps) != 1:
        return None
    rounded = maps[0].nr_and_mask(code.page_size.bit_length() - 1)
    if rounded == 2:
        return Shown(fixed=True, evidence=f"{maps[0].name}() rounds both ends of a range to pages")
    if rounded == 0 and maps[0].calls_to(code.addresses.get("memblock_mark_nomap")).size:
        return Shown(fixed=False, evidence=f"{maps[0].name}() does not round the ends of a range to pages")
    return None


def _ptdump(code: KernelCode) -> Shown | None:
    """59305202c67f: ptdump_walk_pgd() holds the memory hotplug lock."""
    if _one(code, "ptdump_walk_pgd") is None or "get_online_mems" not in code.addresses:
        return None
    locks = code.nr_calls("ptdump_walk_pgd", "get_online_mems") > 0
    return Shown(locks, f"ptdump_walk_pgd() {'calls' if locks else 'does not call'} get_online_mems()")


SIGNATURES: dict[str, Callable[[KernelCode], Shown | None]] = {
    "partial-section-pmd": _partial_section,
    "vmemmap-check-pmd": _check_pmd,
    "leaf-straddle": _straddle,
    "cont-tlb-shatter": _tlb_flush,
    "pgtable-dtor": _destructor,
    "dax-dedup": _dax,
    "max-pfn": _max_pfn,
    "mom-altmap": _altmap,
    "nomap-mapped": _nomap,
    "ptdump-hotremove": _ptdump,
}
"""Signatures by key of `rules.model.bugs`."""

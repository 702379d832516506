"""What is known of one kernel function that traces show: the columns of the table in `parsers.ftrace.functions`."""

from __future__ import annotations

from dataclasses import field
from enum import IntEnum

from parsers.records import dataclass

__all__ = ["Function", "Kind", "Release", "Unit"]

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


class Unit(IntEnum):
    """What the range of a call counts in."""

    NONE = 0
    """The call has no range of memory."""
    BYTES = 1
    """Physical addresses."""
    PFN = 2
    """Page frame numbers."""
    STRUCT_PAGE = 3
    """Virtual addresses of struct pages."""
    VIRTUAL = 4
    """Other virtual addresses of the kernel."""


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
    unit: Unit = Unit.NONE
    """What ``start`` and ``end`` (or ``start_pfn`` and ``nr_pages``) count in."""
    callers: tuple[Kind, ...] = ()
    """What may call it, innermost first."""
    always_in: tuple[Kind, ...] = ()
    """Callers that always call it, unless they fail: a trace that has these and never the function lacks a probe."""

    def signature(self, release: Release | None) -> tuple[str, ...] | None:
        """Arguments in register order for ``release`` (None: the newest known), None if it has no such function."""
        fitting = [words for since, words in self.signatures if release is None or since <= release]
        return tuple(fitting[-1].split()) if fitting else None

"""The machine code of the functions that show which fixes a kernel has, from an image or from a dump's memory.

Instructions are those of the Arm ARM (DDI 0487), C6.2: BL and B have a signed 26-bit offset in words, TLBI is SYS with
CRn 8, ADRP has a signed 21-bit offset in 4 KiB pages.  All of a function is decoded by array operations.
"""

from __future__ import annotations

from dataclasses import field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from parsers.errors import Diagnostic
from parsers.records import dataclass
from parsers.vmcore.memory import MissingMemoryError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from parsers.mapping import I64, U32
    from parsers.vmcore.kallsyms import Kallsyms

__all__ = ["CALLED", "FUNCTIONS", "Function", "KernelCode", "read_code"]

FUNCTIONS: tuple[str, ...] = (
    "__pgd_pgtable_alloc",
    "__populate_section_memmap",
    "add_memory_resource",
    "arch_add_memory",
    "create_altmaps_and_memory_blocks",
    "free_empty_tables",
    "free_hotplug_pgtable_page",
    "map_mem",
    "paging_init",
    "prevent_bootmem_remove_notifier",
    "prevent_memory_remove_notifier",
    "ptdump_walk_pgd",
    "unmap_hotplug_range",
    "vmemmap_check_pmd",
    "vmemmap_populate",
)
"""Functions whose code is read, with the clones that compilers make of them; small dumps keep their pages."""

CALLED: tuple[str, ...] = (
    "__lruvec_stat_mod_folio",
    "__map_memblock",
    "addr_splits_kernel_leaf",
    "arch_remove_memory",
    "flush_tlb_kernel_range",
    "get_online_mems",
    "lruvec_stat_mod_folio",
    "memblock_mark_nomap",
    "mod_node_page_state",
    "vmemmap_populate_address",
    "vmemmap_populate_basepages",
    "vmemmap_populate_compound_pages",
    "vmemmap_populate_hugepages",
    "vmemmap_verify",
)
"""Functions whose calls are looked for."""

_MAX_FUNCTION = 1 << 16
_BL, _B = 0b100101, 0b000101
_SP = 31


@dataclass(frozen=True, eq=False)
class Function:
    """One function, or one clone of it."""

    name: str
    start: int
    """Run-time or image address."""
    words: U32
    """Its instructions, little-endian."""

    @property
    def end(self) -> int:
        return self.start + 4 * int(self.words.size)

    def _branches(self, opcode: int) -> tuple[I64, I64]:
        """Rows of BL or B instructions, and their targets."""
        rows = np.flatnonzero(self.words >> np.uint32(26) == opcode).astype(np.int64)
        offset = (self.words[rows] & np.uint32(0x3FFFFFF)).astype(np.int64)
        offset -= (offset & 0x2000000) << 1
        return rows, offset + rows  # in words from the start

    @cached_property
    def calls(self) -> tuple[I64, I64]:
        """Rows of calls, tail calls included, ascending, and their targets in words from the start."""
        rows, targets = self._branches(_BL)
        tails, leads = self._branches(_B)
        out = (leads < 0) | (leads >= self.words.size)
        rows, targets = np.append(rows, tails[out]), np.append(targets, leads[out])
        order = np.argsort(rows)
        return rows[order], targets[order]

    def calls_to(self, address: int | None) -> I64:
        """Rows of the calls to an address; none if it is None."""
        rows, targets = self.calls
        if address is None or (address - self.start) % 4:
            return rows[:0]
        return np.asarray(rows[targets == (address - self.start) // 4], dtype=np.int64)

    @property
    def nr_tlbi(self) -> int:
        """Number of TLBI instructions."""
        return int((self.words & np.uint32(0xFFF8F000) == 0xD5088000).sum())

    def nr_and_mask(self, shift: int) -> int:
        """Number of ``AND Xd, Xn, #~((1 << shift) - 1)``: rounding down to a multiple of a power of two."""
        ones = 64 - shift
        word = 0x92400000 | ones << 16 | (ones - 1) << 10
        return int((self.words & np.uint32(0xFFFFFC00) == word).sum())

    def written(self, row: int, register: int, within: int) -> int | None:
        """The nearest of ``within`` instructions before ``row`` that loads or moves a value into X``register``.

        Returns its word; None if there is none.  Moves, MOVZ, ADD of an immediate, LDR and LDP are recognised.
        """
        for word in self.words[max(row - within, 0) : row][::-1].tolist():
            target = word & 31
            second = word >> 10 & 31
            pair = word & 0xFFC00000 in {0xA9400000, 0xA8C00000}
            is_load = word & 0xFFC00000 == 0xF9400000
            is_move = word & 0xFFE0FFE0 == 0xAA0003E0 or word & 0xFF800000 in {0xD2800000, 0x91000000}
            if (target == register and (is_load or is_move or pair)) or (pair and second == register):
                return int(word)
        return None

    @property
    def loads(self) -> bool:
        """Whether it has an ``LDR Xt, [Xn, #imm]`` with a base other than SP."""
        found = self.words & np.uint32(0xFFC00000) == 0xF9400000
        return bool((found & ((self.words >> np.uint32(5) & np.uint32(31)) != _SP)).any())

    def globals_accessed(self) -> tuple[frozenset[int], frozenset[int]]:
        """Addresses, relative to the page of the start, of 64-bit variables that are loaded, and that are stored to.

        A variable is reached with ADRP, and LDR or STR with the rest of the address; the nearest ADRP to the same
        register counts.
        """
        words = self.words.astype(np.int64)
        pages = np.flatnonzero(words & 0x9F000000 == 0x90000000)
        offset = (words[pages] >> 5 & 0x7FFFF) << 2 | words[pages] >> 29 & 3
        offset -= (offset & 1 << 20) << 1
        base = (pages * 4 + self.start % 4096) // 4096 * 4096 + (offset << 12)
        found: list[frozenset[int]] = []
        for opcode in (0xF9400000, 0xF9000000):
            rows = np.flatnonzero(words & 0xFFC00000 == opcode)
            places = set()
            for register in np.unique(words[pages] & 31).tolist():
                mine = pages[words[pages] & 31 == register]
                uses = rows[words[rows] >> 5 & 31 == register]
                at = np.searchsorted(mine, uses) - 1
                known = at >= 0
                mine_base = base[words[pages] & 31 == register]
                places.update((mine_base[at[known]] + (words[uses[known]] >> 10 & 0xFFF) * 8).tolist())
            found.append(frozenset(places))
        return found[0], found[1]


@dataclass(frozen=True, eq=False, kw_only=True)
class KernelCode:
    """What was read of a kernel's code."""

    path: str
    functions: Mapping[str, tuple[Function, ...]]
    """By name of `FUNCTIONS`; empty for a function that the kernel does not have."""
    unread: frozenset[str]
    """Functions that the kernel has and whose code is not in the source."""
    addresses: Mapping[str, int]
    """Of those of `CALLED` that the kernel has."""
    release: str | None = None
    banner: str | None = None
    page_size: int | None = None
    diagnostics: tuple[Diagnostic, ...] = field(default=())

    def get(self, name: str) -> tuple[Function, ...] | None:
        """The code of a function and its clones; None if it could not be read, empty if there is no such function."""
        return None if name in self.unread else self.functions.get(name)

    def nr_calls(self, name: str, called: str) -> int:
        """How often a function (with its clones) calls another."""
        address = self.addresses.get(called)
        return sum(int(one.calls_to(address).size) for one in self.functions.get(name, ()))


def read_code(symbols: Kallsyms, read: Callable[[int, int], bytes], path: str, **known: str | int | None) -> KernelCode:
    """The code of `FUNCTIONS`, from symbols that say where a function ends, and a reader of its addresses."""
    functions: dict[str, tuple[Function, ...]] = {}
    unread = set()
    for name in FUNCTIONS:
        parts = []
        for clone, start, end in symbols.functions(name):
            try:
                data = read(start, min(end - start, _MAX_FUNCTION) // 4 * 4)
            except MissingMemoryError:
                unread.add(name)
                break
            parts.append(Function(clone, start, np.frombuffer(data, dtype="<u4").astype(np.uint32)))
        functions[name] = tuple(parts)
    addresses = {name: address for name in CALLED if (address := symbols(name)) is not None}
    return KernelCode(
        path=path,
        functions=functions,
        unread=frozenset(unread),
        addresses=addresses,
        **known,  # type: ignore[arg-type]
    )

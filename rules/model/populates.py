"""What mapped the struct pages of each add, as far as the trace shows it.

mm/sparse-vmemmap.c: vmemmap_populate_hugepages() asks for a block and falls back to pages, both inlined; what it
asked for is seen in vmemmap_alloc_block_buf(), or else in the page allocator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.ftrace.functions import Kind
from rules.model.behaviour import Leaf
from rules.model.operations import innermost

if TYPE_CHECKING:
    from parsers.mapping import I8, I64, Bool
    from rules.model.operations import Calls

__all__ = ["leaves_of"]

_PMD_BYTES = 2 << 20
_PMD_ORDER = 9


def leaves_of(calls: Calls) -> tuple[I8, Bool]:
    """(`Leaf` that each populate or add was seen to use, whether vmemmap_populate_hugepages() was called in it)."""
    leaf = np.full(len(calls), Leaf.UNKNOWN, dtype=np.int8)
    huge = np.zeros(len(calls), dtype=np.bool_)
    huge[_populates_of(calls, Kind.VMEMMAP_POPULATE_HUGEPAGES)] = True
    leaf[huge] = Leaf.PMD
    leaf[_from_allocator(calls, _PMD_ORDER)] = Leaf.PMD
    leaf[_populates_of(calls, Kind.VMEMMAP_SET_PMD)] = Leaf.PMD
    leaf[_populates_of(calls, Kind.VMEMMAP_CHECK_PMD)] = Leaf.PMD
    leaf[_populates_of(calls, Kind.VMEMMAP_POPULATE_BASEPAGES)] = Leaf.PTE
    asked = calls.of(Kind.VMEMMAP_ALLOC_BLOCK_BUF)
    size, known = calls.argument("size")
    by_pages = asked[known[asked] & (size[asked] < _PMD_BYTES)]
    leaf[calls.parent[by_pages][calls.parent[by_pages] >= 0]] = Leaf.PTE
    return leaf, huge


def _populates_of(calls: Calls, kind: Kind) -> I64:
    """The populates that a call of ``kind`` was part of."""
    outer = calls.parent[calls.of(kind)]
    outer = outer[outer >= 0]
    nested = calls.kind[outer] == Kind.VMEMMAP_POPULATE_HUGEPAGES
    outer = np.where(nested, calls.parent[outer], outer)
    return np.asarray(outer[outer >= 0])


def _from_allocator(calls: Calls, order: int) -> I64:
    """Adds without populate probes during which the page allocator gave out pages of ``order``."""
    events = calls.trace.events
    size, known = events.column("order")
    rows = np.flatnonzero((events.kind == Kind.MM_PAGE_ALLOC) & known & (size == order))
    adds = innermost(calls, Kind.ARCH_ADD_MEMORY, rows.astype(np.int64))
    return np.unique(adds[adds >= 0])

"""The state of memory hotplug by subsection, and what can go wrong with it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from parsers.ftrace.functions import Kind
from parsers.ranges import Ranges
from parsers.records import dataclass
from rules.model.replay.behaviour import Leaf

if TYPE_CHECKING:
    from parsers.ftrace.events import I32
    from parsers.mapping import I8, I64, Bool
    from rules.model.memory.snapshots import Earlier, Present
    from rules.model.replay.forward import Machine

__all__ = ["NO", "SUBSECTION", "UNKNOWN", "YES", "Anomaly", "Glimpse", "State", "Trouble"]

UNKNOWN, NO, YES = -1, 0, 1
SUBSECTION = 1 << 21
"""Bytes of a subsection: SUBSECTION_SHIFT is 21 for every page size (include/linux/mmzone.h, 5.3)."""

_LEAVES = {Leaf.UNKNOWN: "unknown", Leaf.PTE: "pte", Leaf.PMD: "pmd"}


class Trouble(StrEnum):
    """What the replay noticed; each is one rule's matter."""

    REMOVE_WHILE_ONLINE = "TRC-01"
    FREE_BEFORE_OFFLINE = "TRC-02"
    DOUBLE_ADD = "TRC-03"
    REMOVE_UNKNOWN = "TRC-04"
    ASYMMETRIC_UNIT = "TRC-05"
    FAILED_WITHOUT_CLEANUP = "TRC-06"
    FREE_WIDER_THAN_REMOVE = "TRC-07"
    HUGE_FOR_PARTIAL = "TRC-08"
    POPULATED_TOO_LITTLE = "VMM-06"
    CONCURRENT = "TRC-11"
    ONLINE_WITHOUT_MEMORY = "TRC-12"
    ALTMAP_MISMATCH = "TRC-13"
    MIXED_HOSTING = "MOM-04"


_ADDS = (Kind.ARCH_ADD_MEMORY, Kind.SPARSE_ADD_SECTION)
_REMOVALS = (Kind.ARCH_REMOVE_MEMORY, Kind.SPARSE_REMOVE_SECTION)
ESTABLISHED_BY: dict[Trouble, tuple[Kind, ...]] = {
    Trouble.REMOVE_WHILE_ONLINE: (Kind.ONLINE_PAGES,),
    Trouble.FREE_BEFORE_OFFLINE: (Kind.ONLINE_PAGES,),
    Trouble.DOUBLE_ADD: _ADDS,
    Trouble.REMOVE_UNKNOWN: _REMOVALS,
    Trouble.ASYMMETRIC_UNIT: _ADDS,
    Trouble.FAILED_WITHOUT_CLEANUP: (),
    Trouble.FREE_WIDER_THAN_REMOVE: _ADDS,
    Trouble.HUGE_FOR_PARTIAL: (),
    Trouble.POPULATED_TOO_LITTLE: (),
    Trouble.CONCURRENT: (),
    Trouble.ONLINE_WITHOUT_MEMORY: _REMOVALS,
    Trouble.ALTMAP_MISMATCH: _ADDS,
    Trouble.MIXED_HOSTING: _ADDS,
}
"""What brought memory into the state in which a call then meets it, with nothing in between that changed it.

A trace that lost events in between proves nothing.  Empty where the call itself is the trouble.
"""
PREVENTED = frozenset(
    {
        Trouble.REMOVE_WHILE_ONLINE,
        Trouble.FREE_BEFORE_OFFLINE,
        Trouble.DOUBLE_ADD,
        Trouble.REMOVE_UNKNOWN,
        Trouble.CONCURRENT,
        Trouble.ONLINE_WITHOUT_MEMORY,
    }
)
"""What the kernel refuses or locks against: a lost line is likelier where the trace does not count its entries.

mm/memory_hotplug.c check_memblock_offlined_cb() and mem_hotplug_begin(), mm/sparse.c fill_subsection_map() and
clear_subsection_map(), drivers/base/memory.c memory_block_change_state().
"""


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Something that should not have happened: which call, to which page frames."""

    trouble: Trouble
    call: int
    pfns: Ranges
    text: str
    certain: bool = True
    """False where it depends on which of two ways the kernel works."""


@dataclass(frozen=True, slots=True)
class Glimpse:
    """Some subsections at one moment, counted."""

    subsections: int
    valid: int
    unknown: int
    """Subsections whose validity is unknown."""
    leaf: str
    """What maps their struct pages: ``none``, ``pte``, ``pmd``, ``pte+pmd``, with ``part`` in front, or ``unknown``."""
    linear: int
    online: int
    lost: int

    def as_dict(self) -> dict[str, int | str]:
        """Plain data."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(eq=False)
class State:
    """Columns over subsections, one row a subsection of a touched section, ascending by PFN."""

    start_pfn: I64
    valid: I8
    mapped: I8
    leaf: I8
    """`Leaf`."""
    linear: I8
    online: I8
    lost: Bool
    """Valid, and its struct pages were taken away: also if a later populate mapped fresh ones there."""
    damaged_by: I32
    """Call that took the struct pages away, -1."""
    suspect: I32
    """Call that may have taken them away, depending on how the kernel maps them, -1."""
    added_by: I32
    """Call that added it, -1."""
    self_hosted: I8

    @classmethod
    def unknown(cls, start_pfn: I64) -> State:
        """Nothing is known."""
        size = start_pfn.size

        def column(value: int = UNKNOWN) -> I8:
            return np.full(size, value, dtype=np.int8)

        none = np.full(size, UNKNOWN, dtype=np.int32)
        no_rows = np.zeros(size, dtype=np.bool_)
        columns = (column(), column(), column(), column(), column())
        return cls(start_pfn, *columns, no_rows, none, none.copy(), none.copy(), column())

    def begin_with(self, earlier: Earlier, rows: Bool) -> None:
        """Take ``rows`` from the page tables of an earlier capture: mapped, by what, in the linear map, hence valid."""
        start, pages = self.start_pfn, SUBSECTION // earlier.vmemmap.layout.page_size
        for column, region in ((self.mapped, earlier.vmemmap), (self.linear, earlier.linear)):
            low = start - region.layout.start_pfn
            seen = region.pages_observed.covered(low, low + pages) == pages
            mapped = region.pages_mapped.covered(low, low + pages)
            column[rows & seen & (mapped == 0)] = NO
            column[rows & seen & (mapped == pages)] = YES
        vmemmap = earlier.vmemmap
        for level, leaf in ((2, Leaf.PMD), (3, Leaf.PTE)):
            offsets = vmemmap.pages_touched(vmemmap.where(vmemmap.valid & (vmemmap.level == level)))
            low = start - vmemmap.layout.start_pfn
            self.leaf[rows & (self.mapped == YES) & offsets.touches(low, low + pages)] = leaf
        self.leaf[rows & (self.mapped == NO)] = Leaf.NONE
        agreed = rows & (self.mapped == self.linear) & (self.mapped != UNKNOWN)
        self.valid[agreed] = self.mapped[agreed]

    def begin_like(self, present: Present, pages: int, rows: Bool) -> None:
        """Take ``rows``, subsections of ``pages``: no call of the trace adds them, so what is valid then was so before.

        So is the leaf that maps their struct pages: nothing joins pages to a block while they are in use.
        """
        there = rows & (self.valid == UNKNOWN)
        there &= present.valid.covered(self.start_pfn, self.start_pfn + pages) == pages
        self.valid[there] = YES
        vmemmap = present.vmemmap
        if vmemmap is None or not vmemmap.layout.knows("phys_offset"):
            return
        for level, leaf in ((2, Leaf.PMD), (3, Leaf.PTE)):
            offsets = vmemmap.pages_touched(vmemmap.where(vmemmap.valid & (vmemmap.level == level)))
            low = self.start_pfn - vmemmap.layout.start_pfn
            self.leaf[there & (self.leaf == Leaf.UNKNOWN) & offsets.touches(low, low + pages)] = leaf

    def begin_as(self, machine: Machine, pages: int) -> None:
        """Take everything, subsections of ``pages``, from a machine whose state is known."""
        start, end = self.start_pfn, self.start_pfn + pages
        for column, pfns in (
            (self.valid, machine.valid),
            (self.online, machine.online),
            (self.self_hosted, machine.hosted),
            (self.mapped, machine.vmemmap.pfns(machine.vmemmap.mapped)),
            (self.linear, machine.linear.pfns(machine.linear.mapped)),
        ):
            column[:] = np.where(pfns.covered(start, end) == pages, YES, NO)
        self.leaf[:] = Leaf.NONE
        for level, leaf in ((3, Leaf.PTE), (2, Leaf.PMD)):
            at = machine.vmemmap.present & (machine.vmemmap.level == level)
            offsets = Ranges.of(machine.vmemmap.start[at], machine.vmemmap.end[at])
            self.leaf[(self.mapped == YES) & machine.vmemmap.pfns(offsets).touches(start, end)] = leaf

    def spared(self, lost: Bool) -> Bool:
        """Valid subsections that keep their struct pages where ``lost`` lose them."""
        return np.asarray(~lost & (self.valid == YES) & (self.mapped != NO))

    def glimpse(self, rows: slice) -> Glimpse:
        """The state of ``rows``, counted."""
        valid, mapped = self.valid[rows], self.mapped[rows]
        return Glimpse(
            subsections=int(valid.size),
            valid=int((valid == YES).sum()),
            unknown=int((valid == UNKNOWN).sum()),
            leaf=_leaves(mapped, self.leaf[rows]),
            linear=int((self.linear[rows] == YES).sum()),
            online=int((self.online[rows] == YES).sum()),
            lost=int((self.lost[rows] & (valid == YES)).sum()),
        )


def _leaves(mapped: I8, leaf: I8) -> str:
    there = mapped == YES
    if not there.any():
        return "unknown" if (mapped == UNKNOWN).any() else "none"
    names = "+".join(name for kind, name in _LEAVES.items() if (leaf[there] == kind).any())
    return names if there.all() else f"part {names}"

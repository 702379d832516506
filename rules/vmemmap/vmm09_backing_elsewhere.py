"""VMM-09: struct pages that lie in memory which does not stay as long as they are needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.ranges import EMPTY, Ranges, distinct
from parsers.records import dataclass
from parsers.vmcore.rows import BlockRows
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.memory.quotes import block_pfns
from rules.model.memory.regions import Vmemmap
from rules.model.memory.sections import SectionTable
from rules.model.memory.walk import Outputs, PageWalk
from rules.rule import UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.mapping import I64, Bool
    from rules.model.memory.lists import Units


@rule(
    code="VMM-09",
    name="vmemmap-backing-elsewhere",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=(
        "Linux commit a08a2ae34613 (v5.13): mm,memory_hotplug: allocate memmap from the added memory range",
        "mm/sparse-vmemmap.c vmemmap_alloc_block(): struct pages of hot-added memory come from any online memory",
    ),
)
def backing_elsewhere(
    vmemmap: Vmemmap, sections: SectionTable, walk: PageWalk, *, block_rows: BlockRows | None
) -> Iterator[Hit]:
    """Struct pages are stored in memory that is gone, offline, removable by itself, or on another node.

    What it means:
    The memory that holds struct pages must outlive them. In memory that was removed they are a use after
    free: critical. In another block that is offline they are not kept from being removed: critical. In other
    hot-added memory they keep it from going offline, and tie one unit to another. On another node each
    access is slow.

    How it is detected:
    The output address of every entry in the vmemmap area, from the walk of a crash dump, is looked up
    in the section table and compared with the unit (memory block, device range) that it describes.

    When it is not a problem:
    A block that holds its own struct pages (memmap_on_memory) is judged by MOM-02 and MOM-03. A device range
    that does so (a pmem namespace with map=dev), and struct pages in boot memory, which never leaves, are
    legitimate. Other hot-added RAM is where the page allocator found room: no damage, and of low severity.

    What to do:
    Removed or offline backing: touch nothing, take a crash dump, reboot. Otherwise remove the memory that is
    described before the memory that holds its struct pages; memmap_on_memory avoids the dependency.
    """
    units, page = sections.units, vmemmap.layout.page_size
    edges = np.concatenate((units.start_pfn, units.end_pfn))
    present = sections.possible.scale(page)
    pieces = Outputs.of(vmemmap, walk).cut(
        (edges - vmemmap.layout.start_pfn) * vmemmap.page_bytes,
        np.concatenate((edges * page, present.start, present.end)),
    )
    pieces = pieces[~_self_hosted(vmemmap, block_rows).contains(pieces.start)]
    backing = _Backing(vmemmap, pieces, units)
    offline = (sections.blocks - sections.online).scale(page)
    gone = ~present.contains(pieces.pa)
    # Hot-added memory of no unit may be part of the unit that holds its struct pages, as after a failed add (VMM-14).
    unowned = backing.unowned & backing.describes(sections.hotadded)
    # The last page of struct pages of a range can describe page frames after its end, which are nothing.
    nothing = backing.unowned & ~backing.describes(sections.possible)
    foreign = backing.foreign & ~gone & ~unowned & ~nothing
    in_offline = offline.contains(pieces.pa)
    in_device = sections.device.scale(page).contains(pieces.pa)
    distant = backing.other_node(block_rows) & ~gone & backing.describes(sections.hotadded)
    parts = (
        (gone, "gone", None, "absent memory (removed, or never added)", sections.claim),
        (foreign & in_offline, "offline", None, "another block, which is offline", sections.claim),
        (foreign & in_device, "device", Severity.HIGH, "another device range", sections.claim),
        (foreign & ~in_offline & ~in_device, "pinned", Severity.LOW, "other hot-added memory", Claim.PROVEN),
        (distant, "node", Severity.LOW, "another node", Claim.PROVEN),
    )
    for chosen, key, severity, where, claim in parts:
        if chosen.any():
            yield backing.hit(chosen, key, severity, where, claim)
    nameless = (backing.homeless | (unowned & backing.foreign)) & sections.hotadded.contains(backing.stored)
    if nameless.any():
        raise UndecidedError(
            "which unit the hot-added memory with struct pages in it, or that they describe, belongs to is not known",
            "vmcore",
        )


def _self_hosted(vmemmap: Vmemmap, blocks: BlockRows | None) -> Ranges:
    """Byte offsets of the struct pages of blocks that are said to hold them."""
    if blocks is None:
        return EMPTY
    first, end = block_pfns(blocks, vmemmap.layout.pages_per_section)
    own = blocks.nr_vmemmap_pages != 0
    return vmemmap.of_pfns(Ranges.of(first[own], end[own]))


@dataclass(frozen=True, eq=False)
class _Backing:
    """Pieces of the vmemmap area with the unit that each describes and the unit that it is stored in."""

    vmemmap: Vmemmap
    pieces: Outputs
    units: Units

    @property
    def pfn(self) -> I64:
        """First PFN that each piece describes, if only a part of its struct page."""
        return self.pieces.start // self.vmemmap.page_bytes + self.vmemmap.layout.start_pfn

    @property
    def stored(self) -> I64:
        """PFN that each piece is stored in."""
        return self.pieces.pa >> self.vmemmap.layout.page_shift

    @property
    def foreign(self) -> Bool:
        """Pieces that are stored in a unit and describe something else."""
        own, home = _unit(self.units, self.pfn), _unit(self.units, self.stored)
        return np.asarray((home >= 0) & (home != own))

    @property
    def homeless(self) -> Bool:
        """Pieces that are stored in no known unit."""
        return np.asarray(_unit(self.units, self.stored) < 0)

    @property
    def unowned(self) -> Bool:
        """Pieces that describe memory of no known unit."""
        return np.asarray(_unit(self.units, self.pfn) < 0)

    def describes(self, pfns: Ranges) -> Bool:
        """Pieces that describe any of ``pfns``."""
        last = -(-self.pieces.end // self.vmemmap.page_bytes) + self.vmemmap.layout.start_pfn
        return pfns.touches(self.pfn, last)

    def other_node(self, blocks: BlockRows | None) -> Bool:
        """Pieces whose memory block has another node than that of the memory they describe, where both are known."""
        if blocks is None:
            return np.zeros(len(self.pieces), dtype=np.bool_)
        first, end = block_pfns(blocks, self.vmemmap.layout.pages_per_section)
        nid = np.append(blocks.nid, -1)
        described, stored = (nid[_index(first, end, pfn)] for pfn in (self.pfn, self.stored))
        return np.asarray((described >= 0) & (stored >= 0) & (described != stored))

    def hit(self, chosen: Bool, key: str, severity: Severity | None, where: str, claim: Claim) -> Hit:
        """One finding for all chosen pieces."""
        pieces, shift = self.pieces[chosen], self.vmemmap.layout.page_shift
        pfns = self.vmemmap.pfns(self.vmemmap.pages_touched(pieces.offsets))
        memory = pieces.memory
        homes = sorted({self.units.label[at] for at in _unit(self.units, memory.start >> shift).tolist() if at >= 0})
        at = ", ".join(f"{lo:#x}-{hi:#x}" for lo, hi in memory.tuples()[:4])
        return Hit(
            title=f"Struct pages are stored in {where}",
            message=(
                f"Struct pages of PFNs {', '.join(f'{lo:#x}-{hi:#x}' for lo, hi in pfns.tuples()[:4])} "
                f"({pieces.offsets.total >> 10} KiB) are stored at physical {at}: {where}"
                + (f" ({', '.join(homes[:8])})." if homes else ".")
            ),
            claim=claim,
            severity=severity,
            pfns=pfns,
            vas=self.vmemmap.va_ranges(pieces.offsets)[:64],
            evidence=self.vmemmap.quote(distinct(pieces.row)),
            key=key,
        )


def _unit(units: Units, pfn: I64) -> I64:
    """Index of the unit that each page is in, -1 for none."""
    return _index(units.start_pfn, units.end_pfn, pfn)


def _index(start: I64, end: I64, pfn: I64) -> I64:
    """Index of the range that each page is in, -1 for none."""
    if not start.size:
        return np.full(pfn.shape, -1, dtype=np.int64)
    index = np.searchsorted(start, pfn, side="right") - 1
    return np.where(pfn < end[index], index, -1)

"""Struct pages of self-hosted memory blocks: each piece with its block and what backs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.ranges import distinct
from parsers.records import dataclass
from parsers.vmcore.rows import BlockRows
from rules.finding import Hit, Severity
from rules.model.memory.quotes import block_pfns, quote_blocks
from rules.model.memory.walk import Outputs
from rules.rule import NotApplicableError, UndecidedError

if TYPE_CHECKING:
    from parsers.mapping import I64, Bool
    from parsers.ranges import Ranges
    from rules.model.memory.regions import Vmemmap
    from rules.model.memory.sections import SectionTable
    from rules.model.memory.walk import PageWalk

__all__ = ["Backing", "hosts"]


def hosts(blocks: BlockRows) -> I64:
    """Rows of blocks whose first pages hold their own struct pages.

    NotApplicableError where there are none, UndecidedError where one may be among those that changed while they were
    read.
    """
    rows = np.flatnonzero(blocks.nr_vmemmap_pages)
    if not rows.size and blocks.in_flux:
        raise UndecidedError(
            "the memory blocks that changed while they were read may hold their struct pages", BlockRows
        )
    if not rows.size:
        raise NotApplicableError("no memory block holds its own struct pages")
    return rows


@dataclass(frozen=True, eq=False)
class Backing:
    """The pieces of the vmemmap area that describe self-hosted blocks, cut so that each lies in one place."""

    blocks: BlockRows
    sections: SectionTable
    vmemmap: Vmemmap
    pieces: Outputs
    block: I64
    """Row of the block that each piece describes."""
    pfn: I64
    """PFN that each piece is stored in."""
    at_home: Bool
    """Whether that is one of the pages that the block set aside for it."""
    in_own_block: Bool
    """Whether it is one of the block's other pages."""

    @classmethod
    def of(
        cls, blocks: BlockRows, vmemmap: Vmemmap, walk: PageWalk, sections: SectionTable, *places: Ranges
    ) -> Backing:
        """``places``: PFNs at whose edges pieces are cut, too."""
        rows = hosts(blocks)
        first, end = (column[rows] for column in block_pfns(blocks, sections.pages_per_section))
        home = first + blocks.nr_vmemmap_pages[rows].astype(np.int64)
        low, high = ((pfn - vmemmap.layout.start_pfn) * vmemmap.page_bytes for pfn in (first, end))
        cuts = [edge for place in places for edge in (place.start, place.end)]
        edges = np.concatenate((first, home, end, *cuts)) * vmemmap.layout.page_size
        pieces = Outputs.of(vmemmap, walk).cut(np.concatenate((low, high)), edges)
        index = np.searchsorted(low, pieces.start, side="right") - 1
        mine = (index >= 0) & (pieces.start < high[index])
        pieces, index = pieces[mine], index[mine]
        pfn = pieces.pa >> vmemmap.layout.page_shift
        at_home = (pfn >= first[index]) & (pfn < home[index])
        in_own_block = (pfn >= home[index]) & (pfn < end[index])
        return cls(blocks, sections, vmemmap, pieces, rows[index], pfn, at_home, in_own_block)

    def hit(self, chosen: Bool, where: str, severity: Severity | None) -> Hit:
        """One finding for all chosen pieces."""
        pieces = self.pieces[chosen]
        pfns = self.vmemmap.pfns(self.vmemmap.pages_touched(pieces.offsets))
        memory = ", ".join(f"{lo:#x}-{hi:#x}" for lo, hi in pieces.memory.tuples()[:4])
        rows = distinct(self.block[chosen])
        return Hit(
            title=f"Struct pages of a self-hosted block are stored in {where}",
            message=(
                f"{pieces.offsets.total >> 10} KiB of struct pages of {rows.size} block(s) that should "
                f"hold them are stored at physical {memory}: {where}."
            ),
            claim=self.sections.claim,
            severity=severity,
            pfns=pfns,
            vas=self.vmemmap.va_ranges(pieces.offsets)[:64],
            evidence=(
                *quote_blocks(self.blocks, rows, self.sections.source),
                *self.vmemmap.quote(distinct(pieces.row)),
            ),
            key=where,
        )

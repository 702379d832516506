"""MOM-02: struct pages of a self-hosted block that lie in another block, or in its own pages that are in use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.vmcore.rows import BlockRows
from rules.finding import Hit, Impact, Severity
from rules.memmap_on_memory.self_hosted import Backing
from rules.model.memory.regions import Vmemmap
from rules.model.memory.sections import SectionTable
from rules.model.memory.walk import PageWalk
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="MOM-02",
    name="altmap-foreign",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=(
        "Linux commit a08a2ae34613 (v5.13): mm,memory_hotplug: allocate memmap from the added memory range",
        "mm/sparse-vmemmap.c altmap_alloc_block_buf(): a block that is partly used belongs to one altmap only",
    ),
)
def foreign_altmap(blocks: BlockRows, vmemmap: Vmemmap, sections: SectionTable, walk: PageWalk) -> Iterator[Hit]:
    """A block that should hold its own struct pages has them in other removable memory.

    What it means:
    Removing the other memory takes the struct pages along (MOM-03 is the state after that). In an offline block nothing
    keeps them from it: critical. In the block's own memory after the area that is set aside, the page
    allocator owns the pages that the struct pages are in: critical.

    How it is detected:
    The output addresses of the vmemmap area, from the walk of a crash dump, for the struct pages of every block whose
    memory_block says that it holds them.

    When it is not a problem:
    The first pages of the block itself are the right place, also while it is offline. Boot memory never leaves.

    What to do:
    Bring the other block online and keep it. Never remove it before the block that it serves.
    """
    offline = sections.blocks - sections.online
    backing = Backing.of(blocks, vmemmap, walk, sections, offline, sections.hotadded)
    foreign = ~backing.at_home & sections.hotadded.contains(backing.pfn)
    own = backing.in_own_block & foreign
    down = offline.contains(backing.pfn) & foreign & ~own
    for chosen, where, severity in (
        (own, "pages of the block that the allocator owns", None),
        (down, "another block, which is offline", None),
        (foreign & ~own & ~down, "other hot-added memory", Severity.HIGH),
    ):
        if chosen.any():
            yield backing.hit(chosen, where, severity)

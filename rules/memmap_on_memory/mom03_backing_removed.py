"""MOM-03: struct pages of a self-hosted block in memory that was removed."""

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
    code="MOM-03",
    name="self-hosted-backing-removed",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=("Linux commit a08a2ae34613 (v5.13); VMM-09 is the same of blocks that do not hold their struct pages",),
)
def backing_removed(blocks: BlockRows, vmemmap: Vmemmap, sections: SectionTable, walk: PageWalk) -> Iterator[Hit]:
    """A block that should hold its own struct pages has them in absent memory.

    What it means:
    The struct pages are read and written through a mapping of memory that left the machine, or that another guest or
    device may own by now: a use after free, or an abort.

    How it is detected:
    The output addresses of the vmemmap area, from the walk of a crash dump, lie in sections that are not valid.

    When it is not a problem:
    The block's own first pages are valid as long as the block is there, online or not.

    What to do:
    Touch nothing: no offlining, no /proc/kpage*. Keep the crash dump and reboot.
    """
    backing = Backing.of(blocks, vmemmap, walk, sections, sections.possible)
    gone = ~sections.possible.contains(backing.pfn)
    if gone.any():
        yield backing.hit(gone, "absent memory", None)

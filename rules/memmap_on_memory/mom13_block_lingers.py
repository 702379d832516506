"""MOM-13: memory was removed and its memory block is still there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.ftrace.functions import Kind
from parsers.layout import KernelLayout
from parsers.memory_blocks import MemoryBlocks
from parsers.ranges import Ranges
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.memory.lists import memory_block_units
from rules.model.replay.state import NO
from rules.model.replay.timeline import Timeline
from rules.rule import rule
from rules.trace.anomalies import places

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="MOM-13",
    name="block-lingers",
    severity=Severity.INFO,
    impact=Impact.INFORMATIONAL,
    references=("mm/memory_hotplug.c: fix memory block reference leak on remove (stable 6.12.92)",),
)
def block_lingers(timeline: Timeline, blocks: MemoryBlocks, layout: KernelLayout) -> Iterator[Hit]:
    """Memory was removed and its memory block is still there.

    What it means:
    A reference to the block was leaked on removal: its directory stays in sysfs, the range cannot be added again under
    that name, and tools count memory that has gone.

    How it is detected:
    Ranges that the trace saw removed, and not added again, are looked up in the captured memory blocks.

    When it is not a problem:
    A trace that ends before the memory was added again. WIT-01 shows whether the two belong together. A device
    that was removed from a part of a block says nothing about the block.

    What to do:
    Update; the block disappears with the next boot.
    """
    units = memory_block_units(blocks, layout)
    state = timeline.state
    removed = timeline.where((state.valid == NO) & (state.added_by >= 0))
    lingering = removed.covered(units.start_pfn, units.end_pfn) == units.end_pfn - units.start_pfn
    if lingering.any():
        pfns = Ranges.of(units.start_pfn[lingering], units.end_pfn[lingering])
        yield Hit(
            title="Memory blocks of removed memory are still there",
            message=f"{places(pfns)} were removed, and their memory blocks are still listed.",
            claim=Claim.PROBABLE,
            pfns=pfns,
            evidence=units.evidence(np.flatnonzero(lingering)),
        )
    timeline.must_show(Kind.ARCH_REMOVE_MEMORY)

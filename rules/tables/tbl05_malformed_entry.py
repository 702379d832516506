"""TBL-05: entries that no kernel writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import LEVEL_WORDS, Attr, LevelWord
from parsers.layout import KernelLayout
from parsers.mapping import Mapping
from parsers.vmcore.faults import FAULTS, Fault
from rules.finding import Claim, Evidence, Hit, Impact, Severity, VaRange
from rules.model.memory.walk import PageWalk
from rules.rule import rule
from rules.tables.places import beyond_linear_map

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.mapping import Bool

MALFORMED = (Fault.RESERVED, Fault.MISALIGNED, Fault.ELSEWHERE)
MAX_QUOTED, MAX_RANGES = 8, 16


@rule(
    code="TBL-05",
    name="malformed-entry",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=("Arm ARM D8.3: VMSAv8-64 translation table format descriptors",),
)
def malformed_entry(mapping: Mapping, layout: KernelLayout, *, page_walk: PageWalk | None) -> Iterator[Hit]:
    """The page tables hold entries that are not a valid encoding, lead nowhere, or lead back.

    What it means:
    Something wrote over a table, or a table page was freed and is in use for something else. Every
    translation through it is arbitrary.

    How it is detected:
    In a crash dump, each entry that the walk meets: a reserved encoding, a block that is not
    aligned to its size, a table at an address where no memory can be, a page that is a table at two levels
    (a loop). In a text dump, blocks at a level that can have none.

    When it is not a problem:
    Never, if page size and address bits are right; a text dump whose layout is inferred proves less, and is
    only probable.

    What to do:
    Check the layout in the report. Take a crash dump; look for what else is in the page that holds the entry.
    """
    for row, level in list(_blocks_above(mapping, layout))[:MAX_RANGES]:
        start, size = int(mapping.start[row]), int(mapping.size[row])
        line = None if mapping.line is None else int(mapping.line[row])
        yield Hit(
            title=f"A block at level {level}, where {layout.granule.name} pages have none",
            message=f"{size >> 10} KiB at {start:#x} are mapped by a block at a level that cannot have blocks.",
            claim=Claim.PROBABLE if mapping.pa is None else Claim.PROVEN,
            vas=(VaRange(start, start + size, layout.region_of(start)),),
            evidence=(Evidence(mapping.source, mapping.describe(row), line),),
        )
    if page_walk is not None:
        yield from _faults(layout, page_walk)


def _blocks_above(mapping: Mapping, layout: KernelLayout) -> Iterator[tuple[int, int]]:
    """Rows of blocks, and their level, at a level that has none.

    In a text dump the level of a block is as printed only in the text: rows large enough for it are read again.
    """
    granule, levels = layout.granule, layout.granule.block_levels()
    blocks = mapping.valid & mapping.has(Attr.BLOCK)
    for row in np.flatnonzero(blocks & ~np.isin(mapping.level, levels)).tolist():
        yield row, int(mapping.level[row])
    if mapping.quote is None:
        return
    large = (mapping.start | mapping.size) & np.uint64(granule.span(min(levels) - 1) - 1) == 0
    for row in np.flatnonzero(blocks & large).tolist():
        printed = (LevelWord[word] for word in mapping.quote(row).split() if word in LEVEL_WORDS)
        above = (granule.level_of(word, layout.va_bits_actual) for word in printed)
        yield from ((row, level) for level in above if level < min(levels))


def _faults(layout: KernelLayout, walk: PageWalk) -> Iterator[Hit]:
    faults = walk.faults
    for fault in MALFORMED:
        yield from _hit(layout, walk, fault.value, faults.kind == FAULTS.index(fault))
    shift = np.uint64(layout.page_shift)
    missing = faults.kind == FAULTS.index(Fault.MISSING)
    nowhere = missing & beyond_linear_map(layout, (faults.table_pa >> shift).astype(np.int64))
    yield from _hit(layout, walk, "a table at an address where no memory can be", nowhere)


def _hit(layout: KernelLayout, walk: PageWalk, what: str, chosen: Bool) -> Iterator[Hit]:
    faults, rows = walk.faults, np.flatnonzero(chosen)
    if not rows.size:
        return
    quoted = [
        Evidence(
            walk.source,
            f"level {int(faults.level[row])} entry at {int(faults.entry_pa[row]):#x}: "
            f"{int(faults.descriptor[row]):#018x}, {what}",
            address=int(faults.entry_pa[row]),
        )
        for row in rows[:MAX_QUOTED].tolist()
    ]
    places = [(int(faults.va[row]), layout.granule.span(int(faults.level[row]))) for row in rows[:MAX_RANGES].tolist()]
    yield Hit(
        title=f"The page tables hold {what}" if rows.size == 1 else f"The page tables hold {rows.size} times {what}",
        message=(
            f"{rows.size} entries, first at physical {int(faults.entry_pa[rows[0]]):#x} for {places[0][0]:#x}: {what}; "
            f"its value is {int(faults.descriptor[rows[0]]):#x}."
        ),
        claim=Claim.PROVEN,
        vas=tuple(VaRange(va, va + span, layout.region_of(va)) for va, span in places),
        evidence=tuple(quoted),
        key=what,
    )

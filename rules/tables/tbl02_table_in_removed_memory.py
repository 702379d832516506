"""TBL-02: translation tables in memory that is gone, or that may go."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from parsers.ranges import Ranges, distinct
from parsers.vmcore.faults import FAULTS, Fault
from rules.finding import Claim, Evidence, Hit, Impact, Severity, VaRange
from rules.model.memory.sections import SectionTable
from rules.model.memory.walk import PageWalk
from rules.rule import UndecidedError, rule
from rules.tables.places import beyond_linear_map

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.mapping import U64

MAX_QUOTED = 6


@rule(
    code="TBL-02",
    name="table-in-removed-memory",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=("arch/arm64/mm/mmu.c __pgd_pgtable_alloc(), mm/sparse-vmemmap.c vmemmap_alloc_block_zero()",),
)
def table_in_removed_memory(walk: PageWalk, sections: SectionTable) -> Iterator[Hit]:
    """A table of the kernel's page tables lies in memory that is gone, is offline, or was hot-added.

    What it means:
    The CPU reads the table at any time. In memory that was removed its content is whatever is there now:
    critical. In an offline block nothing keeps it from being removed. In hot-added memory that is
    online it keeps the block from going offline.

    How it is detected:
    The physical address of every table, from the walk of a crash dump, is looked up in the section table.

    When it is not a problem:
    Tables in boot memory, which never leaves. Hot-added memory in an ordinary zone is where the page
    allocator may put them; that is of low severity. Addresses where no memory can be are TBL-05.

    What to do:
    Removed: take a crash dump at once, reboot. Offline: bring the block online again and leave it. To be
    able to unplug memory, online it in ZONE_MOVABLE.
    """
    layout = sections.layout
    missing = walk.faults.kind == FAULTS.index(Fault.MISSING)
    pa = np.concatenate((walk.tables.pa, walk.faults.table_pa[missing]))
    entry = np.concatenate((walk.tables.parent_pa, walk.faults.entry_pa[missing]))
    va = np.concatenate((walk.tables.va, walk.faults.va[missing]))
    pfn = (pa >> np.uint64(layout.page_shift)).astype(np.int64)
    gone = ~sections.possible.contains(pfn) & ~beyond_linear_map(layout, pfn)
    offline = ((sections.blocks & sections.hotadded) - sections.online).contains(pfn)
    added = sections.hotadded.contains(pfn) & ~offline
    for chosen, key, severity, where, claim in (
        (gone, "gone", None, "absent memory (removed, or never added)", sections.claim),
        (offline, "offline", Severity.HIGH, "an offline memory block", sections.claim),
        (added, "pinned", Severity.LOW, "hot-added memory, which cannot go offline", Claim.PROVEN),
    ):
        if chosen.any():
            hit = _hit(walk, (pa[chosen], entry[chosen], va[chosen]), key, severity, where, claim)
            yield replace(hit, pfns=Ranges.of(distinct(pfn[chosen]), distinct(pfn[chosen]) + 1))
    unread = missing & sections.possible.contains(
        (walk.faults.table_pa >> np.uint64(layout.page_shift)).astype(np.int64)
    )
    if unread.any():
        raise UndecidedError(
            f"{np.count_nonzero(unread)} tables are not in the dump: what is below them is unknown", "vmcore"
        )


def _hit(
    walk: PageWalk, tables: tuple[U64, U64, U64], key: str, severity: Severity | None, where: str, claim: Claim
) -> Hit:
    pa, entry, va = tables
    first = np.unique(pa, return_index=True)[1]
    quoted = [
        Evidence(
            walk.source, f"the entry at {int(entry[i]):#x} points to the table at {int(pa[i]):#x}", None, int(entry[i])
        )
        for i in first[:MAX_QUOTED].tolist()
    ]
    return Hit(
        title=f"{first.size} page tables lie in {where}" if first.size > 1 else f"A page table lies in {where}",
        message=(
            f"{first.size} tables, at {', '.join(f'{int(pa[i]):#x}' for i in first[:4].tolist())}"
            f"{' …' if first.size > 4 else ''}, lie in {where}. The first translates {int(va[first[0]]):#x} and up."
        ),
        claim=claim,
        severity=severity,
        vas=tuple(VaRange(int(va[i]), int(va[i]) + 1, "table") for i in first[:16].tolist()),
        evidence=tuple(quoted),
        key=key,
    )

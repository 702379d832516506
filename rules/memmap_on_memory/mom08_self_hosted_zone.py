"""MOM-08: pages that hold struct pages of their own block, and are not what the kernel makes of such pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from parsers.ranges import Ranges
from parsers.vmcore.rows import BlockRows, PageKind, SelfHostedRows
from rules.finding import Evidence, Hit, Impact, Severity
from rules.memmap_on_memory.self_hosted import hosts
from rules.model.memory.quotes import quote_blocks
from rules.model.memory.sections import SectionTable
from rules.rule import NotApplicableError, UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.mapping import I64, Bool

MAX_QUOTED = 4


class _Wrong(NamedTuple):
    """One way in which the struct pages of self-hosted pages are wrong."""

    rows: Bool
    title: str
    message: str
    severity: Severity = Severity.HIGH


@rule(
    code="MOM-08",
    name="self-hosted-zone",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=(
        "mm/memory_hotplug.c mhp_init_memmap_on_memory(), mhp_deinit_memmap_on_memory() (v5.13 to 7.3)",
        "Linux commit 66361095129b (v6.0): mm: memory_hotplug: make hugetlb_optimize_vmemmap compatible",
        "Linux commit 503b158fc304 (v6.11): initialize memmap of !ZONE_DEVICE with PageOffline()",
    ),
)
def self_hosted_zone(blocks: BlockRows, pages: SelfHostedRows, sections: SectionTable) -> Iterator[Hit]:
    """Pages that hold the struct pages of their own block are not marked and placed as such.

    What it means:
    A page that the allocator believes to be free is handed out, and whoever writes to it overwrites struct pages. A
    page in another zone or node than the rest of its block is counted where it is not, and taking the block offline
    removes it from the wrong zone. Without its mark, HugeTLB vmemmap optimisation takes it for any other page.

    How it is detected:
    The struct pages of the first pages of every online block that holds its own: node, zone, type, references and
    flags. Node and zone have to be those of the first page after them, or those of the memory block.

    When it is not a problem:
    A self-hosted page in ZONE_MOVABLE is as it should be: it leaves with its block. Since 6.11 such pages are not
    reserved, and before it all of them are. Of a block that is not online nothing is asked: its pages were not set up.

    What to do:
    Do not take the block offline and do not remove it. Keep the crash dump, and disable memmap_on_memory after the
    reboot.
    """
    online = _online(hosts(blocks), blocks)
    mine = np.isin(pages.section_nr, blocks.start_section_nr[online].astype(np.int64))
    found = [wrong for wrong in _all(blocks, pages, mine) if wrong.rows.any()]
    for wrong in found:
        number = np.unique(pages.section_nr[wrong.rows]).size
        yield Hit(
            title=f"{wrong.title} in {_count(number, 'self-hosted memory block')}",
            message=f"{_count(int(wrong.rows.sum()), 'page')} that hold{'s' if wrong.rows.sum() == 1 else ''} struct "
            f"pages of the own block {wrong.message}.",
            claim=sections.claim,
            severity=wrong.severity,
            pfns=Ranges.of(pages.pfn[wrong.rows], pages.pfn[wrong.rows] + 1),
            evidence=(*_quote(pages, wrong.rows, sections.source), *_blocks_of(blocks, pages, wrong.rows, sections)),
            key=wrong.title,
        )
    if not found:
        _decide(blocks, pages, online, mine, sections)


def _online(rows: I64, blocks: BlockRows) -> I64:
    """The online ones among the blocks that host; NotApplicableError, or UndecidedError for unknown states."""
    states = [blocks.state[row] for row in rows.tolist()]
    online = rows[[state == "online" for state in states]]
    if not online.size:
        if blocks.in_flux or any(state != "offline" for state in states):
            raise UndecidedError("blocks that hold their own struct pages are going on- or offline", BlockRows)
        raise NotApplicableError("no online memory block holds its own struct pages")
    return online


def _all(blocks: BlockRows, pages: SelfHostedRows, mine: Bool) -> Iterator[_Wrong]:
    """Everything that may be wrong."""
    free = mine & (pages.kind == PageKind.BUDDY)
    yield _Wrong(free, "The page allocator owns struct pages", "are free in the page allocator", Severity.CRITICAL)
    yield _Wrong(
        mine & ~free & (pages.kind != PageKind.PLAIN) & (pages.kind != PageKind.UNKNOWN),
        "Struct pages are stored in pages of another use",
        "are of a type (page_type) or mapped, which they never are",
    )
    unused = mine & ~free & (pages.refcount <= 0)
    yield _Wrong(unused, "Nothing holds the pages of struct pages", "have no reference: whoever frees next owns them")
    block = np.searchsorted(blocks.start_section_nr.astype(np.int64), pages.section_nr)
    node = np.where(pages.rest_node >= 0, pages.rest_node, blocks.nid[block])
    yield _Wrong(
        mine & (pages.node >= 0) & (node >= 0) & (pages.node != node),
        "Self-hosted pages are in another node",
        "are in another node than the rest of it",
    )
    zone = np.where(pages.rest_zone >= 0, pages.rest_zone, _zones(blocks, pages)[block])
    yield _Wrong(
        mine & (pages.zone >= 0) & (zone >= 0) & (pages.zone != zone),
        "Self-hosted pages are in another zone",
        "are in another zone than the rest of it",
    )
    yield _Wrong(
        mine & (pages.marked == 0),
        "Self-hosted pages are not marked",
        "are not flagged PG_vmemmap_self_hosted",
        Severity.MEDIUM,
    )
    yield _Wrong(
        mine & (pages.reserved == 0) & _some_reserved(pages, mine),
        "Self-hosted pages are reserved in part",
        "are not reserved, while others of the same block are",
        Severity.MEDIUM,
    )


def _zones(blocks: BlockRows, pages: SelfHostedRows) -> I64:
    """Index of the zone of each memory block; -1 where it has none, or several."""
    index = {name: number for number, name in enumerate(pages.zone_names) if name}
    return np.array([index.get(name, -1) for name in blocks.zone], dtype=np.int64)


def _some_reserved(pages: SelfHostedRows, mine: Bool) -> Bool:
    """Which pages are of a block in which one is reserved."""
    return np.isin(pages.section_nr, np.unique(pages.section_nr[mine & (pages.reserved == 1)]))


def _decide(blocks: BlockRows, pages: SelfHostedRows, online: I64, mine: Bool, sections: SectionTable) -> None:
    """UndecidedError unless everything that the rule asks for was read."""
    first = blocks.start_section_nr[online].astype(np.int64) * sections.pages_per_section
    area = Ranges.of(first, first + blocks.nr_vmemmap_pages[online].astype(np.int64))
    lost = int(area.contains(pages.unread).sum())
    if lost or not np.isin(blocks.start_section_nr[online].astype(np.int64), pages.section_nr[mine]).all():
        message = f"the struct pages of {lost} self-hosted pages are not in the dump, or read as zeros"
        raise UndecidedError(message, SelfHostedRows)
    if (pages.node[mine] < 0).any():
        raise UndecidedError("nothing says which bits of page flags are node and zone", SelfHostedRows)


def _quote(pages: SelfHostedRows, chosen: Bool, source: str) -> tuple[Evidence, ...]:
    """The first struct pages that are wrong, at their virtual addresses."""
    rows = np.flatnonzero(chosen)
    return tuple(Evidence(source, _text(pages, row), address=int(pages.va[row])) for row in rows[:MAX_QUOTED].tolist())


def _text(pages: SelfHostedRows, row: int) -> str:
    zone = int(pages.zone[row])
    name = pages.zone_names[zone] if 0 <= zone < len(pages.zone_names) else ""
    flags = [word for word, column in (("reserved", pages.reserved), ("self-hosted", pages.marked)) if column[row] == 1]
    return (
        f"struct page of PFN {int(pages.pfn[row]):#x}: node {int(pages.node[row])}, zone {name or zone}, "
        f"{PageKind(int(pages.kind[row])).name.lower()}, refcount {int(pages.refcount[row])}, "
        f"flags {' '.join(flags) or 'neither reserved nor self-hosted'}"
    )


def _blocks_of(blocks: BlockRows, pages: SelfHostedRows, chosen: Bool, sections: SectionTable) -> tuple[Evidence, ...]:
    rows = np.flatnonzero(np.isin(blocks.start_section_nr.astype(np.int64), pages.section_nr[chosen]))
    return quote_blocks(blocks, rows, sections.source)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"

"""SEC-03: memory and the spans of zones and nodes disagree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.memory_blocks import MemoryBlocks
from parsers.ranges import Ranges, distinct
from parsers.records import dataclass
from parsers.vmcore.rows import ZoneRows
from parsers.zoneinfo import Zoneinfo
from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.model.memory.sections import SectionTable
from rules.rule import UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.mapping import I64, Bool


@dataclass(frozen=True, eq=False)
class _Zones:
    """Zones whose bounds are known, from either source; counts in pages."""

    node: I64
    name: tuple[str, ...]
    start: I64
    end: I64
    present: I64
    source: str
    line: tuple[int | None, ...]
    complete: bool
    """Whether no zone can be missing."""

    @classmethod
    def of_zoneinfo(cls, zoneinfo: Zoneinfo) -> _Zones:
        """The file does not print the start of a zone that has no present page, as ZONE_DEVICE."""
        rows = np.flatnonzero(zoneinfo.start_pfn >= 0)
        return cls(
            zoneinfo.node[rows],
            tuple(zoneinfo.zone[row] for row in rows.tolist()),
            zoneinfo.start_pfn[rows],
            zoneinfo.start_pfn[rows] + zoneinfo.spanned[rows],
            zoneinfo.present[rows],
            zoneinfo.path,
            tuple(zoneinfo.line[rows].tolist()),
            zoneinfo.complete,
        )

    @classmethod
    def of_dump(cls, rows: ZoneRows, source: str) -> _Zones:
        end = rows.start_pfn + rows.spanned
        return cls(rows.node, rows.name, rows.start_pfn, end, rows.present, source, (None,) * len(rows), complete=True)

    def spans(self, chosen: Bool) -> Ranges:
        """PFNs of the chosen zones."""
        return Ranges.of(self.start[chosen], self.end[chosen])

    def quote(self, chosen: Bool) -> tuple[Evidence, ...]:
        """The chosen zones as /proc/zoneinfo has them."""
        return tuple(
            Evidence(
                self.source,
                f"Node {int(self.node[row])}, zone {self.name[row]}: start_pfn {int(self.start[row])}, "
                f"spanned {int(self.end[row] - self.start[row])}, present {int(self.present[row])}",
                self.line[row],
            )
            for row in np.flatnonzero(chosen).tolist()
        )


@rule(
    code="SEC-03",
    name="zone-span",
    severity=Severity.HIGH,
    impact=Impact.LATENT,
    references=("mm/memory_hotplug.c resize_zone_range(), shrink_zone_span(), adjust_present_page_count() (v6.12)",),
)
def zone_span(
    sections: SectionTable,
    blocks: MemoryBlocks,
    *,
    zoneinfo: Zoneinfo | None,
    zone_rows: ZoneRows | None,
) -> Iterator[Hit]:
    """Online memory lies outside of its zone, or a zone's bounds and counts cannot be.

    What it means:
    A page that is online belongs to a zone, and the zone spans it. Walkers that go by zone (compaction,
    isolation) miss such pages or compute with a wrong start; a span that ends in nothing makes them look for
    struct pages there.

    How it is detected:
    The PFNs of online memory are compared with start and length of all zones, from /proc/zoneinfo or a crash dump, and
    each online block with the zone that it says it is in. The ends of a span must be present memory, and no zone has
    more pages than it spans; a node spans its zones and has as many pages as they have.

    When it is not a problem:
    Spans may have holes and reach over device memory. Memory that changes state while it is captured
    can be seen in one file and not in the other: capture again.

    What to do:
    Capture again; if it stays, take a crash dump and report it.
    """
    zones = _known_zones(zoneinfo, zone_rows, sections)
    every = np.ones(len(zones.name), dtype=np.bool_)
    online = sections.online & sections.ram
    lost = online - zones.spans(every)
    if lost and not zones.complete:
        raise UndecidedError("zones are missing in /proc/zoneinfo: it is cut short", Zoneinfo)
    if unlisted := _unlisted(blocks, zones, sections, lost):
        raise UndecidedError(
            f"/proc/zoneinfo has no start of zone {unlisted}, in which memory is online: not all of it was read, "
            "or at another moment",
            Zoneinfo,
        )
    if lost:
        yield Hit(
            title="Online memory lies outside of every zone",
            message=f"{lost.total} online pages are in no zone's span.",
            claim=sections.claim,
            pfns=lost,
            evidence=zones.quote(every),
        )
    yield from _elsewhere(blocks, zones, sections, online - lost)
    if not lost:
        yield from _impossible(zones, sections)
    if zone_rows is not None:
        yield from _nodes(zone_rows, sections)
    sections.need_whole_lists()
    _need_lists(blocks, zones, sections)


def _need_lists(blocks: MemoryBlocks, zones: _Zones, sections: SectionTable) -> None:
    """UndecidedError where online blocks have no known memory, RAM has no block, or a block has no known node."""
    start, end = _block_pfns(blocks, sections)
    if not zones.complete and (unlisted := _unlisted(blocks, zones, sections, Ranges.of(start, end) & sections.online)):
        raise UndecidedError(f"zone {unlisted} is missing in /proc/zoneinfo: it is cut short", Zoneinfo)
    memory = sections.ram | sections.nomap
    if (bare := blocks.online & ~memory.touches(start, end)).any():
        raise UndecidedError(f"which memory of {int(bare.sum())} online blocks is RAM is not known", "iomem")
    if without := sections.ram - Ranges.of(start, end):
        raise UndecidedError(f"{without.total} pages of RAM are in no memory block: it may be cut", "memory blocks")
    if (nowhere := blocks.online & (blocks.node < 0)).any() and distinct(zones.node).size > 1:
        raise UndecidedError(f"the node of {int(nowhere.sum())} online blocks is not known", "memory blocks")


def _known_zones(zoneinfo: Zoneinfo | None, rows: ZoneRows | None, sections: SectionTable) -> _Zones:
    if rows is not None:
        return _Zones.of_dump(rows, sections.source)
    if zoneinfo is None:
        raise UndecidedError("/proc/zoneinfo was not collected", Zoneinfo)
    zones = _Zones.of_zoneinfo(zoneinfo)
    if not zones.name:
        raise UndecidedError("/proc/zoneinfo names no zone's start", Zoneinfo)
    return zones


def _block_pfns(blocks: MemoryBlocks, sections: SectionTable) -> tuple[I64, I64]:
    """First and end PFN of each block."""
    pages = sections.layout.need("block_size") // sections.layout.page_size
    return blocks.block * pages, (blocks.block + 1) * pages


def _unlisted(blocks: MemoryBlocks, zones: _Zones, sections: SectionTable, lost: Ranges) -> str:
    """A zone that memory outside of every zone says it is in, and that is not among those whose start is known."""
    mine = lost.touches(*_block_pfns(blocks, sections))
    named = {blocks.valid_zones[row] for row in np.flatnonzero(mine).tolist()}
    return min((name for name in named if name.isalnum() and name != "none" and name not in zones.name), default="")


def _elsewhere(blocks: MemoryBlocks, zones: _Zones, sections: SectionTable, online: Ranges) -> Iterator[Hit]:
    """Online blocks that name one zone and lie outside of all zones of that name (on their node, if it is known)."""
    start, end = _block_pfns(blocks, sections)
    named = np.array(blocks.valid_zones, dtype=object)
    for name, node in sorted(set(zip(blocks.valid_zones, blocks.node.tolist(), strict=True))):
        mine = np.array([zone == name for zone in zones.name], dtype=np.bool_)
        if node >= 0:
            mine &= zones.node == node
        if not mine.any():  # several zones, none, or one whose start is not known
            continue
        chosen = (named == name) & (blocks.node == node)
        outside = (Ranges.of(start[chosen], end[chosen]) & online) - zones.spans(mine)
        if outside:
            yield Hit(
                title=f"Online memory lies outside of its zone {name}",
                message=f"{outside.total} online pages of blocks in zone {name} are in the span of other zones only.",
                claim=sections.claim,
                pfns=outside,
                evidence=zones.quote(mine),
                key=f"{node} {name}",
            )


def _impossible(zones: _Zones, sections: SectionTable) -> Iterator[Hit]:
    """Zones with more pages than they span, or an end in no memory; nothing says where device memory may be."""
    many = zones.present > zones.end - zones.start
    if many.any():
        yield Hit(
            title="A zone has more pages than it spans",
            message="The present pages of a zone are counted wrong: its watermarks and its emptiness are wrong too.",
            claim=Claim.PROVEN,
            severity=Severity.MEDIUM,
            pfns=zones.spans(many),
            evidence=zones.quote(many),
            key="present",
        )
    known = sections.possible.widen(sections.pages_per_section)
    bare = ~(known.contains(zones.start) & known.contains(zones.end - 1)) & (zones.present > 0)
    if bare.any():
        yield Hit(
            title="A zone's span begins or ends in no memory",
            message="The first or last page of the span lies in no present section: removal did not shrink the zone.",
            claim=sections.claim,
            severity=Severity.MEDIUM,
            pfns=zones.spans(bare),
            evidence=zones.quote(bare),
            key="ends",
        )


def _nodes(rows: ZoneRows, sections: SectionTable) -> Iterator[Hit]:
    """Nodes that do not span their zones, or do not have the sum of their pages."""
    for row, node in enumerate(rows.node_id.tolist()):
        mine = rows.node == node
        start, end = int(rows.node_start_pfn[row]), int(rows.node_start_pfn[row] + rows.node_spanned[row])
        span, zones = Ranges.one(start, end), Ranges.of(rows.start_pfn[mine], (rows.start_pfn + rows.spanned)[mine])
        present = int(rows.present[mine].sum())
        if zones - span or present != int(rows.node_present[row]):
            yield Hit(
                title=f"Node {node} and its zones disagree",
                message=(
                    f"The node spans PFNs {start:#x}-{end:#x} and has {int(rows.node_present[row])} pages; its zones "
                    f"have {present}, and {(zones - span).total} pages of their spans lie outside of it."
                ),
                claim=sections.claim,
                severity=Severity.MEDIUM,
                pfns=zones - span,
                evidence=_Zones.of_dump(rows, sections.source).quote(mine),
                key=f"node {node}",
            )

"""WIT-02: the printed page tables and those in the crash dump differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import PMD, Attr
from parsers.ranges import EMPTY, Ranges, distinct
from rules.finding import Claim, Hit, Impact, Severity, VaRange
from rules.model.memory.regions import LinearMap, Vmemmap
from rules.model.memory.snapshots import PrintedTables
from rules.rule import NotApplicableError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.mapping import Mapping
    from rules.model.memory.regions import RegionMap

MAX_RANGES = 64


@rule(
    code="WIT-02",
    name="dump-against-walk",
    severity=Severity.MEDIUM,
    impact=Impact.INFORMATIONAL,
    references=("mm/ptdump.c and arch/arm64/mm/ptdump.c (5.10 to 7.3): what the kernel prints of its own tables",),
)
def dump_against_walk(linear: LinearMap, vmemmap: Vmemmap, *, printed_tables: PrintedTables | None) -> Iterator[Hit]:
    """The page tables that the kernel printed are not those in the crash dump.

    What it means:
    Both show one set of tables. Where they differ, they are of different moments or machines, memory hotplug went on
    in between, or the tables were changed by something other than hotplug.

    How it is detected:
    The linear map, the vmemmap area and the kernel's text are compared: mapped or not, and by which level.
    vmalloc moves on by itself and is not compared.

    When it is not a problem:
    A dump that was printed long before the crash, with hotplug in between: the trace or the log shows it.

    What to do:
    Take the crash dump as the truth; find out what happened between the two.
    """
    printed = printed_tables
    if printed is None:
        raise NotApplicableError("there is no page-table dump beside a crash dump")
    for region, other in ((printed.linear, linear), (printed.vmemmap, vmemmap)):
        seen = region.observed & other.observed
        for what, mine, theirs in _aspects(region, other):
            yield from _differing(region, what, (mine - theirs) & seen, (theirs - mine) & seen)
    text, walked = _text(printed.mapping), _executable(other.mapping)
    lacking = text - walked
    if lacking:
        yield Hit(
            title="The kernel's text is mapped otherwise in the page-table dump and in the crash dump",
            message=f"{lacking.total >> 10} KiB are executable in {printed.mapping.source} only.",
            claim=Claim.PROBABLE,
            vas=tuple(VaRange(lo % 2**64, (hi - 1) % 2**64 + 1, "kernel") for lo, hi in lacking.tuples()[:MAX_RANGES]),
            key="text",
        )


def _aspects(region: RegionMap, other: RegionMap) -> Iterator[tuple[str, Ranges, Ranges]]:
    """(What, where the printed tables have it, where the walked ones do)."""
    yield "mapped", region.mapped, other.mapped
    for level in distinct(np.concatenate((region.level[region.valid], other.level[other.valid]))).tolist():
        same = [one.where(one.valid & (one.level == level)) for one in (region, other)]
        name = "pages" if level > PMD else "blocks" if level == PMD else "large blocks"
        # Where one of them is not mapped at all, that is said once.
        yield f"mapped by {name}", same[0] & other.mapped, same[1] & region.mapped


def _differing(region: RegionMap, what: str, printed: Ranges, walked: Ranges) -> Iterator[Hit]:
    for offsets, who in ((printed, "the page-table dump"), (walked, "the crash dump")):
        if offsets:
            yield Hit(
                title=f"The {region.name} area is {what} in {who} only",
                message=f"{offsets.total >> 10} KiB in {len(offsets)} ranges are {what} in {who} and not in the other.",
                claim=Claim.PROBABLE,
                pfns=region.pages(offsets).shift(region.layout.start_pfn)
                if region.layout.knows("phys_offset")
                else EMPTY,
                vas=region.va_ranges(offsets)[:MAX_RANGES],
                evidence=region.quote_at(offsets),
                key=f"{region.name} {what} {who}",
            )


def _executable(mapping: Mapping) -> Ranges:
    """Addresses that the kernel may execute, as signed numbers."""
    attrs = mapping.attrs
    mine = attrs & np.uint16(Attr.VALID | Attr.PXN) == np.uint16(Attr.VALID)
    return Ranges.of(mapping.start[mine].view(np.int64), mapping.last[mine].view(np.int64) + 1)


def _text(mapping: Mapping) -> Ranges:
    """The largest of them: the kernel's own text; modules and programs come and go."""
    found = _executable(mapping)
    largest = np.argsort(found.end - found.start)[-1:]
    return Ranges.of(found.start[largest], found.end[largest])

"""Which changes of the page tables between two captures are dangerous, and why.

The first two say what is lost at the later moment, whatever happened between; the others judge changes of live
translations and hold within one boot only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import PMD, Attr, MemType
from parsers.dmesg import Dmesg
from parsers.ranges import EMPTY, Ranges
from parsers.records import dataclass
from parsers.uname import KernelRelease
from rules.finding import Claim, Severity
from rules.model.memory.regions import Vmemmap
from rules.model.memory.sections import SectionTable
from rules.tables.tbl01_empty_tables import empty_tables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from analyzer.diff.pieces import Pieces
    from parsers.mapping import Bool
    from rules.facts import Facts
    from rules.finding import Evidence
    from rules.model.memory.regions import RegionMap

__all__ = ["Hazard", "hazards"]


@dataclass(frozen=True, eq=False)
class Hazard:
    """A change that is dangerous; ``offsets`` are the region's in the later capture."""

    severity: Severity
    claim: Claim
    title: str
    message: str
    region: RegionMap
    offsets: Ranges
    before: tuple[Evidence, ...] = ()
    after: tuple[Evidence, ...] = ()


def hazards(pieces: dict[type[RegionMap], Pieces], after: Facts, *, same_boot: bool) -> list[Hazard]:
    """Everything dangerous about the change, worst first."""
    found: list[Hazard] = []
    for kind, one in pieces.items():
        found += _lost(kind, one, after)
        if same_boot:
            found += [*_live(one, after), *_left_behind(one), *_opened(one)]
    return sorted(found, key=lambda one: (-one.severity, one.region.name, one.title))


def _lost(kind: type[RegionMap], pieces: Pieces, after: Facts) -> Iterator[Hazard]:
    """Memory that is still valid and lost its struct pages, or RAM that lost its linear mapping."""
    sections = after.get(SectionTable)
    region = pieces.after.region
    if sections is None or not region.layout.knows("phys_offset"):
        return
    gone = region.pages_touched(_own(pieces, pieces.unmapped)) & region.pages_missing
    if kind is Vmemmap:
        needed, title = sections.valid - sections.early, "valid memory lost its struct pages"
        why = "The next walk of page frames there faults: compaction, /proc/kpageflags, the driver that returns it."
    else:
        # Single pages leave the linear map in normal operation (secretmem, KFENCE); whole blocks do not.
        gone = region.pages(region.shrink(region.offsets(gone), region.layout.granule.span(PMD)))
        needed, title = sections.ram | (sections.online & sections.hotadded), "RAM in use lost its linear mapping"
        why = "The kernel's next access to any of these pages faults."
    start_pfn = region.layout.start_pfn
    lost = gone.shift(start_pfn) & needed
    if lost:
        offsets = region.offsets(lost.shift(-start_pfn))
        yield _hazard(pieces, offsets, Severity.CRITICAL, sections.claim, title, f"{lost.total} pages. {why}")


def _live(pieces: Pieces, after: Facts) -> Iterator[Hazard]:
    """Translations that changed their leaf size or output address while they were valid."""
    name = pieces.after.region.name
    if pieces.resized.any() and not _splits_are_safe(after):
        offsets = _own(pieces, pieces.resized)
        message = (
            f"{offsets.total >> 10} KiB translate in both captures, by leaves of another size. Without "
            "break-before-make the TLB may hold both; unmapping and mapping again in between looks "
            "the same; only a trace distinguishes them."
        )
        yield _hazard(pieces, offsets, Severity.HIGH, Claim.SUSPECTED, f"live {name} leaves changed size", message)
    moved = pieces.moved | _shared_or_unshared(pieces)
    if moved.any():
        offsets = _own(pieces, moved)
        message = (
            f"{offsets.total >> 10} KiB translate in both captures, to another physical address. HugeTLB vmemmap "
            "optimisation does that; so does unmapping and mapping again in between. Only a trace distinguishes them."
        )
        yield _hazard(pieces, offsets, Severity.HIGH, Claim.SUSPECTED, f"live {name} entries point elsewhere", message)


def _shared_or_unshared(pieces: Pieces) -> Bool:
    """Struct pages that became read-only or writable: only HugeTLB's optimisation does that, by remapping them."""
    flipped = (pieces.attrs_before ^ pieces.attrs_after) & np.uint16(Attr.RDONLY)
    return np.asarray(pieces.retyped & (flipped != 0) & isinstance(pieces.after.region, Vmemmap))


def _splits_are_safe(after: Facts) -> bool:
    """CPUs with BBML2, and a kernel that relies on it (a166563e7ec3, 6.18)."""
    dmesg, release = after.get(Dmesg), after.get(KernelRelease)
    return (
        dmesg is not None
        and dmesg.boot.feature("BBM") is not None
        and release is not None
        and release.series >= (6, 18)
    )


def _left_behind(pieces: Pieces) -> Iterator[Hazard]:
    """Translation tables that hold nothing any more and are still linked."""
    before, after = empty_tables(pieces.before.region), empty_tables(pieces.after.region)
    more = {level: count - before.get(level, 0) for level, count in after.items() if count > before.get(level, 0)}
    if not more:
        return
    deeper = _deeper_holes(pieces)
    counts = ", ".join(f"{count} at level {level}" for level, count in sorted(more.items()))
    yield _hazard(
        pieces,
        _own(pieces, deeper),
        Severity.LOW,
        Claim.PROVEN,
        f"empty tables were left behind in the {pieces.after.region.name} area",
        f"{sum(more.values())} more than before ({counts}). Each is a page that is leaked until "
        "something is mapped there.",
    )


def _deeper_holes(pieces: Pieces) -> Bool:
    """Pieces that are empty at a deeper level than before, or were emptied."""
    before, after = pieces.levels()
    return ~pieces.valid_after & (pieces.unmapped | (after > before))


def _opened(pieces: Pieces) -> Iterator[Hazard]:
    """Protection that was given up, and memory that changed between Normal and Device."""
    name = pieces.after.region.name
    normal = [np.isin(types, (MemType.NORMAL, MemType.NORMAL_TAGGED)) for types in pieces.memtypes()]
    writable = _dropped(pieces, Attr.RDONLY) & ~_shared_or_unshared(pieces)
    for mask, severity, title in (
        (_dropped(pieces, Attr.PXN), Severity.HIGH, "memory became executable"),
        (pieces.retyped & (normal[0] != normal[1]), Severity.HIGH, "memory changed between Normal and another type"),
        (writable, Severity.MEDIUM, "memory became writable"),
    ):
        if mask.any():
            offsets = _own(pieces, mask)
            message = f"{offsets.total >> 10} KiB that translate in both captures."
            yield _hazard(pieces, offsets, severity, Claim.PROVEN, f"{name} {title}", message)


def _dropped(pieces: Pieces, attr: Attr) -> Bool:
    """Pieces that translate in both and lost ``attr``."""
    return np.asarray(pieces.retyped & ((pieces.attrs_before & ~pieces.attrs_after & np.uint16(attr)) != 0))


def _own(pieces: Pieces, mask: Bool) -> Ranges:
    """Offsets of the later region."""
    return pieces.ranges(mask).shift(-pieces.after.shift)


def _hazard(pieces: Pieces, offsets: Ranges, severity: Severity, claim: Claim, title: str, message: str) -> Hazard:
    older = offsets.shift(pieces.after.shift - pieces.before.shift) if offsets else EMPTY
    return Hazard(
        severity,
        claim,
        title,
        message,
        pieces.after.region,
        offsets,
        pieces.before.region.quote_at(older),
        pieces.after.region.quote_at(offsets),
    )

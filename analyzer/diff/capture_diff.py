"""What changed between two captures of one machine, as plain data; the hazards among the changes come first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.diff.comparison import Comparison, comparison
from analyzer.diff.hazards import Hazard, hazards
from analyzer.diff.pieces import Pieces, Side
from analyzer.reports.json import evidence_as_dict, finding_as_dict
from parsers.errors import InputError, UsageError
from parsers.expressions import expression
from parsers.iomem import Iomem
from parsers.memory_blocks import MemoryBlocks
from parsers.uname import KernelRelease
from rules.finding import Severity
from rules.model.memory.regions import LinearMap, RegionMap, Vmemmap
from rules.model.memory.sections import SectionTable

if TYPE_CHECKING:
    from analyzer.audit import Report
    from parsers.mapping import Bool
    from parsers.ranges import Ranges
    from rules.facts import Facts

__all__ = ["SCHEMA", "diff", "worst_hazard"]

SCHEMA = "ptaudit.diff/1"
_PLACED_AT_BOOT = expression(r"reserved$|Kernel |Crash kernel")
_REGIONS: tuple[type[RegionMap], ...] = (LinearMap, Vmemmap)


def diff(before: Report, after: Report) -> dict[str, Any]:
    """The document `SCHEMA`; UsageError where the captures cannot be compared, InputError where nothing can be."""
    how = comparison(before.facts, after.facts)
    pieces, missing = _pieces(before.facts, after.facts, how)
    known = (SectionTable, MemoryBlocks, Iomem)
    if not pieces and not any(before.facts.get(kind) and after.facts.get(kind) for kind in known):
        raise InputError(f"nothing to compare: {'; '.join(missing)}")
    if not how.by_pfn:
        _refuse_random_bases(pieces)
    dangerous = hazards(pieces, after.facts, same_boot=how.same_boot)
    new, gone = _findings(before, after)
    return {
        "schema": SCHEMA,
        "before": _identity(before),
        "after": _identity(after),
        "same_boot": how.same_boot,
        "compared_by": "pfn" if how.by_pfn else "page index",
        "notes": [*how.notes, *missing],
        "hazards": [_hazard(one) for one in dangerous],
        "mappings": [change for one in pieces.values() for change in _mappings(one, how)],
        "sections": _sections(before.facts, after.facts),
        "memory_blocks": _blocks(before.facts, after.facts),
        "resources": _resources(before.facts, after.facts, how),
        "findings": {"new": new, "gone": gone},
    }


def worst_hazard(document: dict[str, Any]) -> Severity | None:
    """The highest severity of a hazard or of a finding that is new."""
    found = [*document["hazards"], *document["findings"]["new"]]
    return max((Severity[one["severity"].upper()] for one in found), default=None)


def _identity(report: Report) -> dict[str, Any]:
    release = report.facts.get(KernelRelease)
    return {
        "release": release.raw if release else None,
        "sources": [{"kind": one.kind, "path": one.path, "sha256": one.sha256} for one in report.sources.sources],
    }


def _pieces(before: Facts, after: Facts, how: Comparison) -> tuple[dict[type[RegionMap], Pieces], list[str]]:
    """The regions that both captures have, cut into common pieces, and a note on those that they have not."""
    found: dict[type[RegionMap], Pieces] = {}
    missing: list[str] = []
    for kind in _REGIONS:
        regions = before.get(kind), after.get(kind)
        name = "linear map" if kind is LinearMap else "vmemmap area"
        if regions[0] is None or regions[1] is None:
            lacking = [
                word
                for word, facts, one in zip(("BEFORE", "AFTER"), (before, after), regions, strict=True)
                if one is None
            ]
            missing.append(f"the {name} is not compared: not known in {' and '.join(lacking)}")
        elif regions[0].page_bytes != regions[1].page_bytes:
            missing.append(f"the {name} is not compared: sizeof(struct page) differs")
        else:
            found[kind] = Pieces(*(_side(one, how) for one in regions if one is not None))
    return found, missing


def _refuse_random_bases(pieces: dict[type[RegionMap], Pieces]) -> None:
    """Page indices of two boots under KASLR have nothing in common; memory that is unplugged is not most of it."""
    linear = pieces.get(LinearMap)
    if linear is None:
        return
    totals = [linear.ranges(mask).total for mask in (linear.valid_before, linear.valid_after)]
    if 2 * linear.ranges(linear.valid_before & linear.valid_after).total < min(totals):
        raise UsageError(
            "the linear maps have little in common, as those of two boots under KASLR, and PHYS_OFFSET is not known: "
            "collect /proc/iomem with each page-table dump, or give --layout phys_offset=0x…"
        )


def _side(region: RegionMap, how: Comparison) -> Side:
    return Side(region, region.layout.start_pfn * region.page_bytes if how.by_pfn else 0)


def _mappings(pieces: Pieces, how: Comparison) -> list[dict[str, Any]]:
    """Changes of one region by what happened, the rows of each quoted from both sides."""
    classes = {
        "unmapped": pieces.unmapped,
        "mapped": pieces.mapped,
        "other leaf size": pieces.resized,
        "other output address": pieces.moved & how.same_boot,
        "other attributes": pieces.retyped,
    }
    return [_mapping(pieces, name, mask, how) for name, mask in classes.items() if mask.any()]


def _mapping(pieces: Pieces, name: str, mask: Bool, how: Comparison) -> dict[str, Any]:
    region, common = pieces.after.region, pieces.ranges(mask)
    pages = region.pages_touched(common.shift(-pieces.after.shift))
    return {
        "region": region.name,
        "change": name,
        "bytes": common.total,
        "pages": _pairs(pages.shift(region.layout.start_pfn) if how.by_pfn else pages),
        "before": [evidence_as_dict(one) for one in pieces.before.region.quote_at(common.shift(-pieces.before.shift))],
        "after": [evidence_as_dict(one) for one in region.quote_at(common.shift(-pieces.after.shift))],
    }


def _hazard(hazard: Hazard) -> dict[str, Any]:
    region = hazard.region
    pages = region.pages_touched(hazard.offsets)
    known = region.layout.knows("phys_offset")
    pfns = pages.shift(region.layout.start_pfn) if known else None
    sections: list[int] = []
    if pfns is not None and region.layout.knows("section_size_bits"):
        touched = pfns.divide(region.layout.pages_per_section, outward=True)
        sections = [number for lo, hi in touched.tuples() for number in range(lo, hi)]
    return {
        "severity": str(hazard.severity),
        "claim": str(hazard.claim),
        "title": hazard.title,
        "message": hazard.message,
        "sections": sections,
        "pfn_ranges": [] if pfns is None else _pairs(pfns),
        "va_ranges": [
            {"start": f"{one.start:#x}", "end": f"{one.end:#x}", "region": one.region}
            for one in region.va_ranges(hazard.offsets)
        ],
        "before": [evidence_as_dict(one) for one in hazard.before],
        "after": [evidence_as_dict(one) for one in hazard.after],
    }


def _sections(before: Facts, after: Facts) -> dict[str, Any]:
    """Valid page frames that came and went."""
    tables = before.get(SectionTable), after.get(SectionTable)
    if tables[0] is None or tables[1] is None:
        return {"added": None, "removed": None}
    return {
        "added": _pairs(tables[1].valid - tables[0].valid),
        "removed": _pairs(tables[0].valid - tables[1].valid),
    }


def _blocks(before: Facts, after: Facts) -> list[dict[str, Any]]:
    """Memory blocks by what changed about them: state, zones, node, or that they came or went."""
    old, new = before.get(MemoryBlocks), after.get(MemoryBlocks)
    if old is None or new is None or old.block_size_bytes != new.block_size_bytes:
        return []
    changes: dict[tuple[str, str, str], list[int]] = {}
    for block in np.setdiff1d(new.block, old.block).tolist():
        changes.setdefault(("added", "-", new.state_word[int(np.searchsorted(new.block, block))]), []).append(block)
    for block in np.setdiff1d(old.block, new.block).tolist():
        changes.setdefault(("removed", old.state_word[int(np.searchsorted(old.block, block))], "-"), []).append(block)
    both, rows_old, rows_new = np.intersect1d(old.block, new.block, return_indices=True)
    columns = {
        "state": (np.array(old.state_word, dtype=object), np.array(new.state_word, dtype=object)),
        "zones": (np.array(old.valid_zones, dtype=object), np.array(new.valid_zones, dtype=object)),
        "node": (old.node, new.node),
    }
    for name, (olds, news) in columns.items():
        differs = np.flatnonzero(olds[rows_old] != news[rows_new])
        for row in differs.tolist():
            key = (name, str(olds[rows_old[row]]), str(news[rows_new[row]]))
            changes.setdefault(key, []).append(int(both[row]))
    return [
        {"change": change, "before": was, "after": now, "blocks": blocks}
        for (change, was, now), blocks in changes.items()
    ]


def _resources(before: Facts, after: Facts, how: Comparison) -> dict[str, list[str]]:
    """Lines of /proc/iomem that came and went; what every boot places again is compared within one boot only."""
    old, new = before.get(Iomem), after.get(Iomem)
    if old is None or new is None or not (old.privileged and new.privileged):
        return {"added": [], "removed": []}
    lines = [
        [
            f"{int(one.start[row]):x}-{int(one.last[row]):x} : {name}"
            for row, name in enumerate(one.name)
            if how.same_boot or not _PLACED_AT_BOOT.match(name)
        ]
        for one in (old, new)
    ]
    return {
        "added": [line for line in lines[1] if line not in set(lines[0])],
        "removed": [line for line in lines[0] if line not in set(lines[1])],
    }


def _findings(before: Report, after: Report) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Findings of the audit of each that the other does not have, by fingerprint."""
    sides = [{one.fingerprint: one for one in report.findings} for report in (before, after)]
    new = [finding_as_dict(one) for key, one in sides[1].items() if key not in sides[0]]
    gone = [finding_as_dict(one) for key, one in sides[0].items() if key not in sides[1]]
    return new, gone


def _pairs(ranges: Ranges) -> list[dict[str, str]]:
    return [{"start": f"{lo:#x}", "end": f"{hi:#x}"} for lo, hi in ranges.tuples()]

"""``lsmem`` for auditors: sections, their subsections, and what maps their struct pages."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from parsers.arm64 import PMD, PTE, PUD
from parsers.errors import InputError
from parsers.layout import KernelLayout
from parsers.ranges import Ranges
from rules.facts import how_to_collect
from rules.model.coverage import LinearMap, Vmemmap
from rules.model.sections import SectionTable
from rules.model.subsections import MIXED, Coverage, Extent
from rules.tables.tbl01_empty_tables import empty_tables

if TYPE_CHECKING:
    from parsers.mapping import I64
    from rules.facts import Facts

__all__ = ["SectionRow", "empty_table_counts", "section_rows"]

_LEVELS = {PTE: "pte", PMD: "pmd", PUD: "pud", MIXED: "mixed"}


@dataclass(frozen=True, slots=True)
class SectionRow:
    """A run of adjacent sections that are alike (one section, if its subsections differ)."""

    first: int
    last: int
    start_pfn: int
    end_pfn: int
    state: str
    origin: str
    kind: str
    subsections: str
    """``64/64``, or for a partly valid section the bitmap, lowest subsection in the lowest bit."""
    struct_pages: str
    linear: str

    def as_dict(self) -> dict[str, Any]:
        """Plain data, addresses as text."""
        return {**asdict(self), "start_pfn": f"{self.start_pfn:#x}", "end_pfn": f"{self.end_pfn:#x}"}


def section_rows(facts: Facts) -> list[SectionRow]:
    """All sections that exist, folded; InputError, with what to collect, where they are not known."""
    sections = facts.get(SectionTable)
    if sections is None:
        steps = "; ".join(how_to_collect(SectionTable))
        raise InputError(f"{facts.why_missing(SectionTable)}; collect: {steps}")
    pages = sections.pages_per_section
    numbers = np.concatenate(
        [np.arange(lo, hi) for lo, hi in sections.present_sections.tuples()] or [np.empty(0, np.int64)]
    )
    layout = facts.get(KernelLayout)
    placed = layout is not None and layout.knows("phys_offset")
    vmemmap = facts.get(Vmemmap) if placed else None
    linear = facts.get(LinearMap) if placed else None
    coverage = Coverage.of(sections, vmemmap, linear, numbers * pages, pages)
    words = {
        "state": _where(coverage, {"online": sections.online, "offline": sections.blocks}, "-"),
        "origin": _where(coverage, {"boot": sections.early, "hot-added": sections.hotadded}, "unknown"),
        "kind": _where(coverage, {"device": sections.device, "ram": sections.ram, "no-map": sections.nomap}, "block"),
        "struct_pages": _mapped(coverage.struct_pages, coverage.struct_level),
        "linear": _mapped(coverage.linear, coverage.linear_level),
        "subsections": _subsections(sections, coverage),
    }
    return _folded(numbers, pages, words)


def _where(coverage: Coverage, kinds: dict[str, Ranges], other: str) -> list[str]:
    """The first kind that each window touches."""
    chosen = np.full(coverage.start_pfn.size, other, dtype=object)
    for name, ranges in reversed(kinds.items()):
        chosen[ranges.touches(coverage.start_pfn, coverage.end_pfn)] = name
    return [str(one) for one in chosen.tolist()]


def _mapped(extent: np.ndarray[Any, Any], level: np.ndarray[Any, Any]) -> list[str]:
    """``pmd``, ``pte (part)``, ``none``, ``unknown``."""
    names = {Extent.UNKNOWN: "unknown", Extent.NONE: "none"}
    return [
        names.get(Extent(how)) or _LEVELS.get(at, f"level {at}") + (" (part)" if how == Extent.PART else "")
        for how, at in zip(extent.tolist(), level.tolist(), strict=True)
    ]


def _subsections(sections: SectionTable, coverage: Coverage) -> list[str]:
    """Valid subsections of each section: a count where all are valid, else the bitmap."""
    unit = sections.layout.pages_per_subsection
    per_section = sections.pages_per_section // unit
    words = [f"{per_section}/{per_section}"] * coverage.start_pfn.size
    partial = np.flatnonzero(coverage.valid_pages != sections.pages_per_section)
    for row in partial.tolist():
        start = int(coverage.start_pfn[row]) + np.arange(per_section) * unit
        valid = sections.valid.covered(start, start + unit) > 0
        bits = sum(1 << bit for bit in np.flatnonzero(valid).tolist())
        words[row] = f"{int(valid.sum())}/{per_section} {bits:#0{per_section // 4 + 2}x}"
    return words


def _folded(numbers: I64, pages: int, words: dict[str, list[str]]) -> list[SectionRow]:
    """Adjacent sections with the same words as one row."""
    keys = list(zip(*words.values(), strict=True))
    rows: list[SectionRow] = []
    begin = 0
    for index in range(1, len(keys) + 1):
        if index < len(keys) and keys[index] == keys[begin] and numbers[index] == numbers[index - 1] + 1:
            continue
        first, last = int(numbers[begin]), int(numbers[index - 1])
        named = dict(zip(words, keys[begin], strict=True))
        rows.append(SectionRow(first, last, first * pages, (last + 1) * pages, **named))
        begin = index
    return rows


def empty_table_counts(facts: Facts) -> dict[str, dict[int, int]]:
    """Empty translation tables by region and Arm level."""
    regions = [region for region in (facts.get(LinearMap), facts.get(Vmemmap)) if region is not None]
    return {region.name: empty_tables(region) for region in regions}

"""Where a finding lies: its physical memory, and in words the sections, subsections, PFNs and addresses."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from parsers.ranges import EMPTY, Ranges

if TYPE_CHECKING:
    from parsers.layout import KernelLayout
    from rules.finding import Finding, VaRange

__all__ = ["place_of", "where"]

MAX_RANGES = 8
MAX_SECTIONS_OF_ADDRESSES = 4096
"""A finding about more address space than that is about no piece of memory."""


def place_of(finding: Finding, layout: KernelLayout | None) -> Ranges:
    """The PFNs of a finding: its own, or those whose struct pages or linear addresses it is about."""
    if finding.hit.pfns or layout is None or not layout.knows("phys_offset", "page_size", "section_size_bits"):
        return finding.hit.pfns
    pages = [pair for va in finding.hit.vas if (pair := _pages_of(va, layout)) is not None]
    pfns = (Ranges.pairs(pages).shift(layout.start_pfn) & Ranges.one(0, 1 << 40)) if pages else EMPTY
    touched = pfns.divide(layout.pages_per_section, outward=True).total
    return pfns if touched <= MAX_SECTIONS_OF_ADDRESSES else EMPTY


def _pages_of(va: VaRange, layout: KernelLayout) -> tuple[int, int] | None:
    """Page indices of an address range in one of the two regions."""
    bases = {"linear": ("page_offset", layout.page_size), "vmemmap": ("vmemmap_start", layout.get("struct_page_size"))}
    key, unit = bases.get(va.region, ("", None))
    base = layout.get(key)
    if base is None or not unit or va.start < base:
        return None
    return (va.start - base) // unit, -(-(va.end - base) // unit)


def where(finding: Finding, layout: KernelLayout | None) -> tuple[str, ...]:
    """Sections, PFNs and addresses, a phrase each; empty where a finding is about the whole machine."""
    hit, phrases = finding.hit, []
    if finding.sections:
        phrases.append(_sections(finding.sections) + _subsections(finding, layout))
    if hit.pfns:
        phrases.append("PFN " + _ranges(hit.pfns.tuples()))
    for region, group in groupby(hit.vas, key=lambda va: va.region):
        phrases.append(f"{region} " + _ranges([(va.start, va.end) for va in group]))
    return tuple(phrases)


def _sections(numbers: tuple[int, ...]) -> str:
    column = np.array(numbers, dtype=np.int64)
    runs = Ranges.of(column, column + 1).tuples()
    words = [f"{lo}" if hi == lo + 1 else f"{lo}–{hi - 1}" for lo, hi in runs[:MAX_RANGES]]
    more = f" and {len(runs) - MAX_RANGES:,} more runs, {len(numbers):,} in all" if len(runs) > MAX_RANGES else ""
    return ("section " if len(numbers) == 1 else "sections ") + ", ".join(words) + more


def _subsections(finding: Finding, layout: KernelLayout | None) -> str:
    """The subsections of a single section."""
    if len(finding.sections) != 1 or layout is None:
        return ""
    unit = layout.pages_per_subsection
    count, first = layout.pages_per_section // unit, finding.sections[0] * layout.pages_per_section // unit
    touched = finding.hit.pfns.divide(unit, outward=True).shift(-first).tuples()
    if touched == [(0, count)]:
        return ""
    words = [f"{lo}" if hi == lo + 1 else f"{lo}–{hi - 1}" for lo, hi in touched[:MAX_RANGES]]
    more = f" and {len(touched) - MAX_RANGES:,} more" if len(touched) > MAX_RANGES else ""
    return f", subsections {', '.join(words)}{more} of {count}"


def _ranges(ranges: list[tuple[int, int]]) -> str:
    shown = ", ".join(f"{lo:#x}-{hi:#x}" for lo, hi in ranges[:MAX_RANGES])
    return shown + (f" and {len(ranges) - MAX_RANGES:,} more" if len(ranges) > MAX_RANGES else "")

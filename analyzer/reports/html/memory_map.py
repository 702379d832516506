"""The memory map as the page draws it: every section, what its subsections look like, and where findings lie.

Sections that are alike are stored once, and adjacent ones as a run, so that a host of 131,072
sections is some thousand numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from analyzer.output import printable
from analyzer.reports.html.windows import Window, codes, merged, window
from parsers.layout import KernelLayout
from parsers.memory_blocks import MemoryBlocks
from parsers.ranges import EMPTY, Ranges
from parsers.records import dataclass
from rules.model.memory.coverage import Coverage
from rules.model.memory.regions import LinearMap, Vmemmap
from rules.model.memory.sections import SectionTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from parsers.mapping import I64, Bool
    from rules.facts import Facts
    from rules.finding import Severity

__all__ = ["Alike", "Mark", "MemoryMap", "Pattern", "Place", "Run"]

MAX_SECTIONS = 1 << 21
MAX_DETAILED = 20_000
"""Sections that are looked into by subsection because they are not all alike inside."""
MAX_PATTERN_RUNS = 150_000
"""Runs of alike subsections, over all patterns: a megabyte of the page."""
MAX_RANGES = 4096
"""Ranges of one place; more are drawn coarser."""
MAX_ALL_RANGES = 100_000
MAX_OWNERS = 2000
_NO_LEVELS = 32 + 1  # struct pages and linear map of unknown extent


@dataclass(frozen=True, slots=True)
class Pattern:
    """The subsections of a section, as runs of (how many, index of the window), and the section's own look."""

    runs: tuple[tuple[int, int], ...]
    """Empty where the page had no room for them."""
    whole: Window
    valid: int
    """Subsections with valid pages."""


@dataclass(frozen=True, slots=True)
class Alike:
    """What sections of one kind have in common."""

    group: str
    state: str
    origin: str
    memory: str
    zones: str
    pattern: int


@dataclass(frozen=True, slots=True)
class Run:
    """Adjacent sections ``first`` to ``last`` that are alike."""

    first: int
    last: int
    alike: int


@dataclass(frozen=True, slots=True)
class Place:
    """The PFNs of something that is wrong."""

    severity: Severity
    pfns: Ranges


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in subsections; ``exact`` is False where it had to be drawn coarser."""

    severity: Severity
    ranges: Ranges
    exact: bool


@dataclass(frozen=True, eq=False)
class MemoryMap:
    """All sections that exist, are mapped, or have a finding."""

    layout: KernelLayout
    sections: SectionTable | None
    runs: tuple[Run, ...]
    alike: tuple[Alike, ...]
    patterns: tuple[Pattern, ...]
    windows: tuple[Window, ...]
    marks: tuple[Mark, ...]
    """One a place, in their order."""
    owners: tuple[tuple[int, int, str], ...]
    """Device memory as (start PFN, end PFN, who claims it)."""
    notes: tuple[str, ...]

    @classmethod
    def of(cls, facts: Facts, places: Sequence[Place]) -> MemoryMap | None:
        """The map; None where not even the size of a section is known, or no section is."""
        layout = facts.get(KernelLayout)
        if layout is None or not layout.knows("page_size", "section_size_bits"):
            return None
        return _Drawing(facts, layout, places).map()

    @property
    def total(self) -> int:
        """Sections drawn."""
        return sum(run.last - run.first + 1 for run in self.runs)

    @property
    def per_section(self) -> int:
        """Subsections in a section."""
        return self.layout.pages_per_section // self.layout.pages_per_subsection

    def look(self, run: Run) -> Window:
        """What the sections of a run look like."""
        return self.patterns[self.alike[run.alike].pattern].whole


class _Drawing:
    """The steps from facts to a map."""

    def __init__(self, facts: Facts, layout: KernelLayout, places: Sequence[Place]) -> None:
        self.layout, self.places = layout, places
        self.sections = facts.get(SectionTable)
        self.blocks = facts.get(MemoryBlocks)
        placed = layout.knows("phys_offset")
        self.vmemmap = facts.get(Vmemmap) if placed else None
        self.linear = facts.get(LinearMap) if placed else None
        self.pages = layout.pages_per_section
        self.notes: list[str] = []

    def map(self) -> MemoryMap | None:
        numbers = self._numbers()
        if not numbers.size:
            return None
        pattern, patterns, windows = self._patterns(numbers)
        words = self._words(numbers)
        runs, alike = _runs(numbers, words, pattern)
        return MemoryMap(
            self.layout, self.sections, runs, alike, patterns, windows, self._marks(), self._owners(), tuple(self.notes)
        )

    def _numbers(self) -> I64:
        """Sections that are present, mapped, or named by a place."""
        wanted = self.sections.present_sections if self.sections else EMPTY
        wanted |= self._found().divide(self.pages, outward=True)
        for region in (self.linear, self.vmemmap):
            if region is not None and self.sections is not None:
                mapped = region.pages_mapped.shift(self.layout.start_pfn)
                wanted |= mapped.divide(self.pages, outward=True)
        wanted &= Ranges.one(0, 1 << 40)
        if wanted.total > MAX_SECTIONS:
            self.notes.append(f"{wanted.total:,} sections: only the first {MAX_SECTIONS:,} are drawn")
            wanted = _first(wanted, MAX_SECTIONS)
        return _numbers_in(wanted)

    def _found(self) -> Ranges:
        """The PFNs of all places."""
        start = [place.pfns.start for place in self.places]
        end = [place.pfns.end for place in self.places]
        return Ranges.of(np.concatenate(start), np.concatenate(end)) if start else EMPTY

    def _patterns(self, numbers: I64) -> tuple[I64, tuple[Pattern, ...], tuple[Window, ...]]:
        """For each section the index of its pattern; all patterns; all windows that they are made of."""
        unit = self.layout.pages_per_subsection
        count = self.pages // unit
        if self.sections is None:
            whole, uneven = np.full(numbers.size, _NO_LEVELS, dtype=np.int64), np.empty(0, dtype=np.int64)
        else:
            coverage = Coverage.of(self.sections, self.vmemmap, self.linear, numbers * self.pages, self.pages)
            whole = codes(coverage, self.pages)
            uneven = self._detailed(numbers, np.flatnonzero(~coverage.uniform(self.pages)))
        inner = np.empty((0, count), dtype=np.int64)
        if self.sections is not None and uneven.size:
            fine = Coverage.of_subsections(self.sections, self.vmemmap, self.linear, numbers[uneven])
            inner = codes(fine, unit).reshape(-1, count)
        known = np.unique(np.concatenate((whole, inner.ravel())))
        windows = tuple(window(code) for code in known.tolist())
        plain, pattern = np.unique(np.searchsorted(known, whole), return_inverse=True)
        patterns = [Pattern(((count, at),), windows[at], count if windows[at].valid else 0) for at in plain.tolist()]
        if uneven.size:
            rows, first, where = np.unique(
                np.searchsorted(known, inner), axis=0, return_index=True, return_inverse=True
            )
            pattern[uneven] = len(patterns) + where.ravel()
            kept = self._kept(rows, first)
            patterns += [_pattern(row, windows, keep) for row, keep in zip(rows, kept.tolist(), strict=True)]
        return pattern.astype(np.int64), tuple(patterns), windows

    def _detailed(self, numbers: I64, uneven: I64) -> I64:
        """The sections that are not all alike inside, at most `MAX_DETAILED`: those with findings first."""
        if uneven.size > MAX_DETAILED:
            self.notes.append(
                f"{uneven.size:,} sections are not all alike inside: {MAX_DETAILED:,} are drawn by subsection"
            )
        found = self._found()
        start = numbers[uneven] * self.pages
        order = np.argsort(~found.touches(start, start + self.pages), kind="stable")
        return np.asarray(uneven[order[:MAX_DETAILED]])

    def _kept(self, rows: I64, first: I64) -> Bool:
        """The patterns that fit into the page, in the order in which their sections were chosen."""
        runs = 1 + np.count_nonzero(np.diff(rows, axis=1), axis=1)
        order = np.argsort(first, kind="stable")
        kept = np.empty(runs.size, dtype=np.bool_)
        kept[order] = np.cumsum(runs[order]) <= MAX_PATTERN_RUNS
        if not kept.all():
            self.notes.append(
                f"{np.count_nonzero(~kept):,} patterns of subsections are left out: `ptaudit sections` lists them"
            )
        return kept

    def _words(self, numbers: I64) -> list[NDArray[np.object_]]:
        """Group, state, origin, memory and zones of each section."""
        start = numbers * self.pages
        end = start + self.pages
        sections, group, state, zones = self.sections, *self._block_words(numbers)
        if sections is None:
            unknown = np.full(numbers.size, "not known", dtype=object)
            return [group, state, unknown, unknown, zones]
        valid = sections.valid.touches(start, end)
        origin = np.full(numbers.size, "not known", dtype=object)
        origin[sections.hotadded.touches(start, end)] = "hot-added"
        origin[sections.early.touches(start, end)] = "boot"
        memory = np.full(numbers.size, "not named in iomem", dtype=object)
        for name, ranges in (("no-map", sections.nomap), ("RAM", sections.ram), ("device", sections.device)):
            memory[ranges.touches(start, end)] = name
        for column in (origin, memory):
            column[~valid] = "no valid memory"
        return [group, state, origin, memory, zones]

    def _block_words(self, numbers: I64) -> tuple[NDArray[np.object_], ...]:
        """Group (node), state and zones of the memory block that each section belongs to."""
        blocks = self.blocks
        size = numbers.size
        if blocks is None or not blocks.block_size_bytes or not len(blocks):
            return tuple(np.full(size, word, dtype=object) for word in ("sections", "not known", ""))
        number = numbers * self.layout.section_size // blocks.block_size_bytes
        order = np.argsort(blocks.block, kind="stable")
        row = order[np.minimum(np.searchsorted(blocks.block[order], number), order.size - 1)]
        known = blocks.block[row] == number
        node = blocks.node[row]
        group = np.full(size, "no memory block", dtype=object)
        for one in np.unique(node[known]).tolist():
            group[known & (node == one)] = f"node {one}" if one >= 0 else "node not known"
        state = np.full(size, "no memory block", dtype=object)
        zones = np.full(size, "", dtype=object)
        state[known] = np.array(blocks.state_word, dtype=object)[row[known]]
        zones[known] = np.array(blocks.valid_zones, dtype=object)[row[known]]
        return group, state, zones

    def _marks(self) -> tuple[Mark, ...]:
        """Places in subsections; those with very many ranges in larger units."""
        left, marks = MAX_ALL_RANGES, []
        per_section = self.pages // self.layout.pages_per_subsection
        for place in self.places:
            ranges = place.pfns.divide(self.layout.pages_per_subsection, outward=True)
            unit, limit = per_section, max(16, min(MAX_RANGES, left))
            exact = len(ranges) <= limit
            while len(ranges) > limit:
                ranges, unit = ranges.widen(unit), unit * 2
            left -= len(ranges)
            marks.append(Mark(place.severity, ranges, exact))
        return tuple(marks)

    def _owners(self) -> tuple[tuple[int, int, str], ...]:
        if self.sections is None:
            return ()
        units = self.sections.device_units
        if len(units) > MAX_OWNERS:
            self.notes.append(f"{len(units):,} device ranges: only the first {MAX_OWNERS:,} are named in the map")
        rows = zip(units.start_pfn.tolist(), units.end_pfn.tolist(), units.label, strict=True)
        return tuple(list(rows)[:MAX_OWNERS])


def _first(ranges: Ranges, limit: int) -> Ranges:
    """The lowest ``limit`` elements."""
    sizes = ranges.end - ranges.start
    before = np.cumsum(sizes) - sizes
    return Ranges.of(ranges.start, np.minimum(ranges.end, ranges.start + np.maximum(limit - before, 0)))


def _numbers_in(ranges: Ranges) -> I64:
    """All elements, ascending."""
    sizes = ranges.end - ranges.start
    shift = np.repeat(ranges.start - (np.cumsum(sizes) - sizes), sizes)
    return np.asarray(np.arange(int(sizes.sum()), dtype=np.int64) + shift)


def _pattern(row: I64, windows: tuple[Window, ...], keep: bool) -> Pattern:
    starts = np.concatenate(([0], np.flatnonzero(np.diff(row)) + 1))
    counts = np.diff(np.append(starts, row.size))
    runs = tuple(zip(counts.tolist(), row[starts].tolist(), strict=True))
    whole = merged([windows[at] for _, at in runs])
    valid = sum(count for count, at in runs if windows[at].valid)
    return Pattern(runs if keep else (), whole, valid)


def _runs(numbers: I64, words: list[NDArray[np.object_]], pattern: I64) -> tuple[tuple[Run, ...], tuple[Alike, ...]]:
    """Adjacent sections with the same words and pattern."""
    key = np.zeros(numbers.size, dtype=np.int64)
    for column in (*words, pattern):
        values, code = np.unique(column, return_inverse=True)
        _, key = np.unique(key * values.size + code, return_inverse=True)
    _, first = np.unique(key, return_index=True)
    group, state, origin, memory, zones = ([printable(str(word)) for word in column[first]] for column in words)
    alike = tuple(map(Alike, group, state, origin, memory, zones, pattern[first].tolist()))
    cut = np.flatnonzero((np.diff(key) != 0) | (np.diff(numbers) != 1)) + 1
    start = np.concatenate(([0], cut))
    last = np.concatenate((cut, [numbers.size])) - 1
    columns = (numbers[start], numbers[last], key[start])
    return tuple(Run(*row) for row in zip(*(column.tolist() for column in columns), strict=True)), alike

"""``lsmem`` for auditors: sections, their subsections, and what maps their struct pages."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from parsers.arm64 import PMD, PTE, PUD
from parsers.errors import InputError
from parsers.layout import KernelLayout
from parsers.memory_blocks import MemoryBlocks
from parsers.ranges import Ranges
from parsers.records import dataclass
from parsers.vmcore.rows import BlockRows, SectionRows, subsection_bits
from rules.facts import how_to_collect
from rules.model.memory.coverage import MIXED, Coverage, Extent
from rules.model.memory.regions import LinearMap, Vmemmap
from rules.model.memory.sections import SectionTable
from rules.tables.tbl01_empty_tables import empty_tables

if TYPE_CHECKING:
    from parsers.mapping import I64, Bool
    from rules.facts import Facts

__all__ = [
    "KINDS",
    "ORIGINS",
    "STATES",
    "SectionColumns",
    "SectionRow",
    "empty_table_counts",
    "section_columns",
    "section_rows",
]

STATES = ("online", "offline", "-")
ORIGINS = ("boot", "hot-added", "unknown")
KINDS = ("device", "ram", "no-map", "block", "-")

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
    """Level that maps them; ``self-hosted`` where the first pages of the block itself hold them."""
    linear: str
    node: str
    """Node of the memory block; empty where it is not known, or there is no block."""
    flags: str
    """``early``, ``taint`` (device memory shares the section) as mem_section has them; empty without a crash dump."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data, addresses as text."""
        return {**asdict(self), "start_pfn": f"{self.start_pfn:#x}", "end_pfn": f"{self.end_pfn:#x}"}


@dataclass(frozen=True, eq=False, kw_only=True)
class SectionColumns:
    """All sections that exist, ascending: one row a section in every column.

    Device memory that /proc/iomem lists is among them where the page tables that show its struct pages are missing.
    """

    sections: SectionTable
    vmemmap: Vmemmap | None
    linear: LinearMap | None
    number: I64
    coverage: Coverage
    state: I64
    """Index into `STATES`; origin and kind are indices too."""
    origin: I64
    kind: I64
    valid_subsections: I64
    subsection_map: list[str]
    """The valid subsections as hexadecimal text, lowest subsection in the lowest bit."""
    node: I64
    """Node of the memory block, -1 where unknown or where there is no block."""
    lines: tuple[I64, Bool]
    """Line of the memory block in ``line_source``, and which are known."""
    line_source: str
    early: Bool | None
    """Flags of mem_section; None without a section table."""
    taint: Bool | None
    self_hosted: Bool | None
    """Struct pages are in the section's own block; None where the evidence does not say."""

    @property
    def subsections_per_section(self) -> int:
        return self.sections.pages_per_section // self.sections.layout.pages_per_subsection


def section_columns(facts: Facts) -> SectionColumns:
    """All sections that exist; InputError, with what to collect, where they are not known."""
    sections = facts.get(SectionTable)
    if sections is None:
        steps = "; ".join(how_to_collect(SectionTable))
        raise InputError(f"{facts.why_missing(SectionTable)}; collect: {steps}")
    pages = sections.pages_per_section
    listed = Ranges.of(sections.listed_units.start_pfn, sections.listed_units.end_pfn)
    shown = sections.present_sections | listed.divide(pages, outward=True)
    numbers = np.concatenate([np.arange(lo, hi) for lo, hi in shown.tuples()] or [np.empty(0, np.int64)])
    layout = facts.get(KernelLayout)
    placed = layout is not None and layout.knows("phys_offset")
    vmemmap = facts.get(Vmemmap) if placed else None
    linear = facts.get(LinearMap) if placed else None
    coverage = Coverage.of(sections, vmemmap, linear, numbers * pages, pages)
    blocks = _Blocks.of(sections, facts.get(MemoryBlocks))
    rows = facts.get(SectionRows)
    count, bitmap = (
        _subsections(sections, sections.valid | listed, coverage)
        if rows is None
        else _subsection_maps(numbers, rows, sections)
    )
    early, taint = _flags(numbers, rows)
    kinds = (sections.device | listed, sections.ram, sections.nomap, sections.blocks)
    return SectionColumns(
        sections=sections,
        vmemmap=vmemmap,
        linear=linear,
        number=numbers,
        coverage=coverage,
        state=_first_of(coverage, (sections.online, sections.blocks)),
        origin=_first_of(coverage, (sections.early, sections.hotadded | (listed - sections.ram_sections))),
        kind=_first_of(coverage, kinds),
        valid_subsections=count,
        subsection_map=bitmap,
        node=blocks.nodes(numbers),
        lines=blocks.lines(numbers),
        line_source=blocks.source,
        early=early,
        taint=taint,
        self_hosted=_self_hosted(numbers, blocks, facts.get(BlockRows), vmemmap, sections),
    )


def section_rows(facts: Facts) -> list[SectionRow]:
    """All sections that exist, folded; InputError, with what to collect, where they are not known."""
    columns = section_columns(facts)
    coverage, size = columns.coverage, columns.number.size
    own = np.zeros(size, dtype=np.bool_) if columns.self_hosted is None else columns.self_hosted
    words = {
        "state": [STATES[code] for code in columns.state.tolist()],
        "origin": [ORIGINS[code] for code in columns.origin.tolist()],
        "kind": [KINDS[code] for code in columns.kind.tolist()],
        "struct_pages": [
            f"{word}, self-hosted" if hosted else word
            for word, hosted in zip(_mapped(coverage.struct_pages, coverage.struct_level), own.tolist(), strict=True)
        ],
        "linear": _mapped(coverage.linear, coverage.linear_level),
        "subsections": _counted(columns),
        "node": [str(one) if one >= 0 else "" for one in columns.node.tolist()],
        "flags": _flag_words(columns),
    }
    return _folded(columns.number, columns.sections.pages_per_section, words)


@dataclass(frozen=True, eq=False)
class _Blocks:
    """Memory blocks by number, ascending."""

    number: I64
    node: I64
    line: I64
    """0 where unknown."""
    per_block: int
    """Sections of a block."""
    source: str

    @classmethod
    def of(cls, sections: SectionTable, blocks: MemoryBlocks | None) -> _Blocks:
        if blocks is None or not blocks.block_size_bytes:
            return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64), 1, "")
        order = np.argsort(blocks.block, kind="stable")
        per_block = max(blocks.block_size_bytes // sections.layout.section_size, 1)
        line = np.zeros(order.size, dtype=np.int64) if blocks.line is None else blocks.line[order].astype(np.int64)
        return cls(blocks.block[order], blocks.node[order], line, per_block, blocks.path)

    def _rows(self, numbers: I64) -> tuple[I64, Bool]:
        """Row of each section's block, and whether there is one; the table must not be empty."""
        at = np.minimum(np.searchsorted(self.number, numbers // self.per_block), self.number.size - 1)
        return at.astype(np.int64), np.asarray(self.number[at] == numbers // self.per_block)

    def nodes(self, numbers: I64) -> I64:
        """Node of each section's block, -1 where unknown."""
        if not self.number.size:
            return np.full(numbers.size, -1, dtype=np.int64)
        at, found = self._rows(numbers)
        return np.where(found, self.node[at], -1).astype(np.int64)

    def lines(self, numbers: I64) -> tuple[I64, Bool]:
        """Line of each section's block, and which are known."""
        if not self.number.size:
            return np.zeros(numbers.size, dtype=np.int64), np.zeros(numbers.size, dtype=np.bool_)
        at, found = self._rows(numbers)
        return self.line[at], found & (self.line[at] > 0)


def _self_hosted(
    numbers: I64, blocks: _Blocks, rows: BlockRows | None, vmemmap: Vmemmap | None, sections: SectionTable
) -> Bool | None:
    """Sections whose struct pages are in their own block: by its altmap, or else by their output addresses."""
    if rows is not None:
        first = rows.start_section_nr[rows.nr_vmemmap_pages != 0].astype(np.int64)
        return Ranges.of(first, first + rows.sections_per_block).contains(numbers)
    if vmemmap is None or vmemmap.pa is None or not blocks.number.size:
        return None
    offset = (numbers * sections.pages_per_section - vmemmap.layout.start_pfn) * vmemmap.page_bytes
    row = np.maximum(np.searchsorted(vmemmap.start, offset, side="right") - 1, 0)
    mapped = vmemmap.valid[row] & (vmemmap.start[row] <= offset) & (offset < vmemmap.end[row])
    stored = (vmemmap.pa[row].astype(np.int64) + offset - vmemmap.start[row]) // sections.layout.section_size
    same = stored // blocks.per_block == numbers // blocks.per_block
    return np.asarray(mapped & same & sections.hotadded.contains(numbers * sections.pages_per_section))


def _flags(numbers: I64, rows: SectionRows | None) -> tuple[Bool | None, Bool | None]:
    """``early`` and ``taint`` of each section, None where there is no section table."""
    if rows is None:
        return None, None
    at = np.minimum(np.searchsorted(rows.section_nr, numbers.astype(np.uint64)), max(len(rows) - 1, 0))
    return rows.early[at], rows.device[at]


def _flag_words(columns: SectionColumns) -> list[str]:
    """Flags of each section as words, empty where there is no section table."""
    if columns.early is None or columns.taint is None:
        return [""] * columns.number.size
    return [
        " ".join(word for word, has in (("early", early), ("taint", taint)) if has) or "-"
        for early, taint in zip(columns.early.tolist(), columns.taint.tolist(), strict=True)
    ]


def _first_of(coverage: Coverage, kinds: tuple[Ranges, ...]) -> I64:
    """Index of the first of ``kinds`` that each window touches; their number where it touches none."""
    chosen = np.full(coverage.start_pfn.size, len(kinds), dtype=np.int64)
    for code, ranges in reversed(tuple(enumerate(kinds))):
        chosen[ranges.touches(coverage.start_pfn, coverage.end_pfn)] = code
    return chosen


def _mapped(extent: np.ndarray[Any, Any], level: np.ndarray[Any, Any]) -> list[str]:
    """``pmd``, ``pte (part)``, ``none``, ``unknown``."""
    names = {Extent.UNKNOWN: "unknown", Extent.NONE: "none"}
    return [
        names.get(Extent(how)) or _LEVELS.get(at, f"level {at}") + (" (part)" if how == Extent.PART else "")
        for how, at in zip(extent.tolist(), level.tolist(), strict=True)
    ]


def _subsections(sections: SectionTable, shown: Ranges, coverage: Coverage) -> tuple[I64, list[str]]:
    """Number of valid and listed subsections of each section, and their bitmap as hexadecimal text."""
    unit = sections.layout.pages_per_subsection
    per_section = sections.pages_per_section // unit
    size = coverage.start_pfn.size
    count, bitmap = np.full(size, per_section, dtype=np.int64), [f"{(1 << per_section) - 1:#x}"] * size
    partial = np.flatnonzero(coverage.valid_pages != sections.pages_per_section)
    start = (coverage.start_pfn[partial, None] + np.arange(per_section) * unit).ravel()
    valid = (shown.covered(start, start + unit) > 0).reshape(-1, per_section)
    count[partial] = valid.sum(axis=1)
    packed = np.packbits(valid, axis=1, bitorder="little")
    for row, bits in zip(partial.tolist(), packed, strict=True):
        bitmap[row] = f"{int.from_bytes(bits.tobytes(), 'little'):#0{per_section // 4 + 2}x}"
    return count, bitmap


def _subsection_maps(numbers: I64, rows: SectionRows, sections: SectionTable) -> tuple[I64, list[str]]:
    """The same as mem_section has it: the map of a boot section holds its memory only, though all of it is valid."""
    per_section = sections.pages_per_section // sections.layout.pages_per_subsection
    at = np.minimum(np.searchsorted(rows.section_nr, numbers.astype(np.uint64)), max(len(rows) - 1, 0))
    found = rows.section_nr[at].astype(np.int64) == numbers
    bits = subsection_bits(rows.subsections[at])[:, :per_section] | ~(rows.subsections_known[at] & found)[:, None]
    packed = np.packbits(bits, axis=1, bitorder="little")
    width = per_section // 4 + 2
    return bits.sum(axis=1), [f"{int.from_bytes(row.tobytes(), 'little'):#0{width}x}" for row in packed]


def _counted(columns: SectionColumns) -> list[str]:
    """Subsections of each section: a count where all are in the map, else the bitmap."""
    per_section = columns.subsections_per_section
    whole = columns.valid_subsections == per_section
    return [
        f"{per_section}/{per_section}" if full else f"{count}/{per_section} {bits}"
        for full, count, bits in zip(
            whole.tolist(), columns.valid_subsections.tolist(), columns.subsection_map, strict=True
        )
    ]


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

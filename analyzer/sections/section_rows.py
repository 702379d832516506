"""``lsmem`` for auditors: sections, their subsections, and what maps their struct pages."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from parsers.arm64 import PMD, PTE, PUD
from parsers.errors import InputError
from parsers.layout import KernelLayout
from parsers.memory_blocks import MemoryBlocks
from parsers.ranges import Ranges
from parsers.vmcore.rows import BlockRows, SectionRows
from rules.facts import how_to_collect
from rules.model.memory.coverage import MIXED, Coverage, Extent
from rules.model.memory.regions import LinearMap, Vmemmap
from rules.model.memory.sections import SectionTable
from rules.tables.tbl01_empty_tables import empty_tables

if TYPE_CHECKING:
    from parsers.mapping import I64, Bool
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
    """Level that maps them; ``self-hosted`` where the first pages of the block itself hold them."""
    linear: str
    node: str
    """Node of the memory block; empty where it is not known, or there is no block."""
    flags: str
    """``early``, ``taint`` (device memory shares the section) as mem_section has them; empty without a crash dump."""

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
    blocks = _Blocks.of(sections, facts.get(MemoryBlocks))
    own = _self_hosted(numbers, blocks, facts.get(BlockRows), vmemmap, sections)
    kinds = {
        "device": sections.device,
        "ram": sections.ram,
        "no-map": sections.nomap,
        "block": sections.blocks,
    }
    words = {
        "state": _where(coverage, {"online": sections.online, "offline": sections.blocks}, "-"),
        "origin": _where(coverage, {"boot": sections.early, "hot-added": sections.hotadded}, "unknown"),
        "kind": _where(coverage, kinds, "-"),
        "struct_pages": [
            f"{word}, self-hosted" if hosted else word
            for word, hosted in zip(_mapped(coverage.struct_pages, coverage.struct_level), own.tolist(), strict=True)
        ],
        "linear": _mapped(coverage.linear, coverage.linear_level),
        "subsections": _subsections(sections, coverage),
        "node": blocks.nodes(numbers),
        "flags": _flags(numbers, facts.get(SectionRows)),
    }
    return _folded(numbers, pages, words)


@dataclass(frozen=True, eq=False)
class _Blocks:
    """Memory blocks by number, ascending."""

    number: I64
    node: I64
    per_block: int
    """Sections of a block."""

    @classmethod
    def of(cls, sections: SectionTable, blocks: MemoryBlocks | None) -> _Blocks:
        if blocks is None or not blocks.block_size_bytes:
            return cls(np.empty(0, np.int64), np.empty(0, np.int64), 1)
        order = np.argsort(blocks.block, kind="stable")
        per_block = max(blocks.block_size_bytes // sections.layout.section_size, 1)
        return cls(blocks.block[order], blocks.node[order], per_block)

    def nodes(self, numbers: I64) -> list[str]:
        """Node of each section's block, empty where unknown."""
        if not self.number.size:
            return [""] * numbers.size
        at = np.minimum(np.searchsorted(self.number, numbers // self.per_block), self.number.size - 1)
        node = np.where(self.number[at] == numbers // self.per_block, self.node[at], -1)
        return [str(one) if one >= 0 else "" for one in node.tolist()]


def _self_hosted(
    numbers: I64, blocks: _Blocks, rows: BlockRows | None, vmemmap: Vmemmap | None, sections: SectionTable
) -> Bool:
    """Sections whose struct pages are in their own block: by its altmap, or else by their output addresses."""
    if rows is not None:
        first = rows.start_section_nr[rows.nr_vmemmap_pages != 0].astype(np.int64)
        return Ranges.of(first, first + rows.sections_per_block).contains(numbers)
    if vmemmap is None or vmemmap.pa is None or not blocks.number.size:
        return np.zeros(numbers.size, dtype=np.bool_)
    offset = (numbers * sections.pages_per_section - vmemmap.layout.start_pfn) * vmemmap.page_bytes
    row = np.maximum(np.searchsorted(vmemmap.start, offset, side="right") - 1, 0)
    mapped = vmemmap.valid[row] & (vmemmap.start[row] <= offset) & (offset < vmemmap.end[row])
    stored = (vmemmap.pa[row].astype(np.int64) + offset - vmemmap.start[row]) // sections.layout.section_size
    same = stored // blocks.per_block == numbers // blocks.per_block
    return np.asarray(mapped & same & sections.hotadded.contains(numbers * sections.pages_per_section))


def _flags(numbers: I64, rows: SectionRows | None) -> list[str]:
    """Flags of each section that tell where it came from, empty where there is no section table."""
    if rows is None:
        return [""] * numbers.size
    at = np.minimum(np.searchsorted(rows.section_nr, numbers.astype(np.uint64)), max(len(rows) - 1, 0))
    return [
        " ".join(word for word, has in (("early", early), ("taint", taint)) if has) or "-"
        for early, taint in zip(rows.early[at].tolist(), rows.device[at].tolist(), strict=True)
    ]


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

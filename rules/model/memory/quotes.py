"""Kernel structures of a crash dump as evidence: the word, what it says, and where it lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.ranges import Ranges
from rules.finding import Evidence

if TYPE_CHECKING:
    from parsers.mapping import I64, Bool
    from parsers.memory_blocks import MemoryBlocks
    from parsers.vmcore.rows import BlockRows, SectionRows

__all__ = [
    "block_pfns",
    "blocks_of_no_section",
    "name_sections",
    "quote_blocks",
    "quote_sections",
    "quote_state",
    "section_pfns",
]

MAX_QUOTED = 6


def section_pfns(rows: SectionRows, chosen: Bool, pages_per_section: int) -> Ranges:
    """PFNs of the chosen sections."""
    start = rows.section_nr[chosen].astype(np.int64) * pages_per_section
    return Ranges.of(start, start + pages_per_section)


def block_pfns(rows: BlockRows, pages_per_section: int) -> tuple[I64, I64]:
    """First and end PFN of each memory block."""
    start = rows.start_section_nr.astype(np.int64) * pages_per_section
    return start, start + rows.sections_per_block * pages_per_section


def blocks_of_no_section(blocks: BlockRows, rows: SectionRows) -> Bool:
    """Which memory blocks have no present section, and none that the dump leaves open."""
    sections = Ranges.of(rows.section_nr[rows.present].astype(np.int64), rows.section_nr[rows.present] + np.uint64(1))
    unknown = Ranges.of(rows.unknown_start.astype(np.int64), rows.unknown_end.astype(np.int64))
    first = blocks.start_section_nr.astype(np.int64)
    return ~(sections | unknown).touches(first, first + blocks.sections_per_block)


def name_sections(rows: SectionRows, chosen: Bool) -> str:
    """``Section 16``, ``Sections 16, 17``, or how many there are."""
    numbers = rows.section_nr[chosen].tolist()
    if len(numbers) > MAX_QUOTED:
        return f"{len(numbers)} sections"
    return f"Section{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def quote_sections(rows: SectionRows, chosen: Bool, source: str) -> tuple[Evidence, ...]:
    """The ``struct mem_section`` of each chosen section, the first few of many, at its physical address."""
    picked = np.flatnonzero(chosen)
    quoted = [
        Evidence(source, _section_text(rows, row), address=int(rows.pa[row])) for row in picked[:MAX_QUOTED].tolist()
    ]
    return (*quoted, *_more(picked, source, "sections"))


def _section_text(rows: SectionRows, row: int) -> str:
    word = int(rows.section_mem_map[row])
    flags = [name.removeprefix("SECTION_") for name, mask in rows.flags.items() if word & mask]
    bits = "".join(f"{value:016x}" for value in reversed(rows.subsections[row].tolist()))
    subsections = f"0x{bits}" if rows.subsections_known[row] else "unknown"
    return (
        f"mem_section[{int(rows.section_nr[row])}]: section_mem_map {word:#x} ({' '.join(flags) or 'no flags'}), "
        f"usage {int(rows.usage[row]):#x}, subsection_map {subsections}"
    )


def quote_blocks(rows: BlockRows, chosen: I64, source: str) -> tuple[Evidence, ...]:
    """The ``struct memory_block`` of each chosen row, the first few of many, at its virtual address."""
    quoted = [
        Evidence(source, _block_text(rows, row), address=int(rows.address[row])) for row in chosen[:MAX_QUOTED].tolist()
    ]
    return (*quoted, *_more(chosen, source, "memory blocks"))


def _block_text(rows: BlockRows, row: int) -> str:
    number = int(rows.start_section_nr[row]) // rows.sections_per_block
    text = f"memory{number}: {rows.state[row]}, zone {rows.zone[row] or '-'}, node {int(rows.nid[row])}"
    if rows.has_altmap[row]:
        free, base = int(rows.nr_vmemmap_pages[row]), int(rows.altmap_base_pfn[row])
        text += f", {free} pages of its own struct pages" + (f" from PFN {base:#x}" if base else "")
    return text


def quote_state(blocks: MemoryBlocks, row: int) -> Evidence:
    """The state of a memory block as sysfs shows it."""
    line = None if blocks.line is None else int(blocks.line[row]) or None
    return Evidence(blocks.path, f"memory{int(blocks.block[row])}/state:{blocks.state_word[row]}", line)


def _more(picked: I64, source: str, what: str) -> tuple[Evidence, ...]:
    if picked.size <= MAX_QUOTED:
        return ()
    return (Evidence(source, f"and {picked.size - MAX_QUOTED} more {what}"),)

"""The state of memory as tables: sections, what covers each subsection, and the page tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.sections.section_rows import KINDS, ORIGINS, STATES, section_columns
from analyzer.tables.frames import frame, nullable, one_of, truth, unsigned, words
from parsers.arm64 import ATTRIBUTE_FIELDS, PTE, Attr, MemType
from parsers.errors import InputError, UsageError
from parsers.mapping import Mapping
from rules.model.memory.coverage import MIXED, Coverage, Extent
from rules.model.memory.regions import LinearMap, RegionMap, Vmemmap

if TYPE_CHECKING:
    import pandas as pd

    from parsers.mapping import I8, I64, U8, U64, Bool
    from rules.facts import Facts

__all__ = ["REGIONS", "coverage_frame", "mapping_frame", "section_frame"]

REGIONS: dict[str, type[RegionMap]] = {"linear": LinearMap, "vmemmap": Vmemmap}
"""Regions by the name under which :func:`mapping_frame` gives them."""

_EXTENTS = ("unknown", "none", "part", "full")
_LEVELS = ("pte", "pmd", "pud", "p4d", "pgd", "mixed")
_MEMORY_TYPES = tuple(MemType.__members__)[1:]  # UNKNOWN is missing here


def section_frame(facts: Facts) -> pd.DataFrame:
    """One row a section that has struct pages, ascending.

    ``section``, ``start_pfn``, ``end_pfn``, ``start`` and ``last`` (physical bytes, inclusive), ``valid_pages``,
    ``valid_subsections``: ``uint64``.  ``subsection_map``: categorical hexadecimal text, lowest subsection in the
    lowest bit (a section of 64K pages has 256 of them).  ``state``, ``origin``, ``kind``, ``struct_pages``,
    ``struct_level``, ``linear``, ``linear_level``, ``precision``, ``source``: categorical.  ``node``, ``line``
    (of the memory block): nullable.  ``early``, ``taint``, ``self_hosted``: nullable boolean, missing where the
    evidence does not say.

    InputError, with what to collect, where the sections are not known.
    """
    columns = section_columns(facts)
    sections, coverage = columns.sections, columns.coverage
    number, size = columns.number, columns.number.size
    page = np.uint64(sections.layout.page_size)
    line, line_known = columns.lines
    start, end = unsigned(coverage.start_pfn), unsigned(coverage.end_pfn)
    return frame(
        {
            "section": unsigned(number),
            "start_pfn": start,
            "end_pfn": end,
            "start": start * page,
            "last": end * page - np.uint64(1),
            "state": _kind(columns.state, STATES),
            "origin": _kind(columns.origin, ORIGINS),
            "kind": _kind(columns.kind, KINDS),
            "node": nullable(columns.node, columns.node >= 0),
            "early": truth(columns.early, size),
            "taint": truth(columns.taint, size),
            "valid_pages": unsigned(coverage.valid_pages),
            "valid_subsections": unsigned(columns.valid_subsections),
            "subsection_map": words(columns.subsection_map),
            **_covered(coverage),
            "self_hosted": truth(columns.self_hosted, size),
            "precision": words([str(sections.precision)] * size),
            "source": words([columns.line_source if known else sections.source for known in line_known.tolist()]),
            "line": nullable(line, line_known, "UInt32"),
        }
    )


def coverage_frame(facts: Facts) -> pd.DataFrame:
    """One row a 2 MiB subsection of every section that has struct pages, ascending: valid pages, and what maps them.

    ``section``, ``subsection``, ``start_pfn``, ``end_pfn``, ``valid_pages``: ``uint64``.  ``struct_pages`` and
    ``linear`` (``unknown``, ``none``, ``part``, ``full``), ``struct_level`` and ``linear_level``: categorical.

    InputError, with what to collect, where the sections are not known.
    """
    columns = section_columns(facts)
    sections = columns.sections
    unit = sections.layout.pages_per_subsection
    per_section = sections.pages_per_section // unit
    coverage = Coverage.of_subsections(sections, columns.vmemmap, columns.linear, columns.number)
    return frame(
        {
            "section": unsigned(np.repeat(columns.number, per_section)),
            "subsection": unsigned(np.tile(np.arange(per_section), columns.number.size)),
            "start_pfn": unsigned(coverage.start_pfn),
            "end_pfn": unsigned(coverage.end_pfn),
            "valid_pages": unsigned(coverage.valid_pages),
            **_covered(coverage),
        }
    )


def _covered(coverage: Coverage) -> dict[str, Any]:
    return {
        "struct_pages": _extent(coverage.struct_pages),
        "struct_level": _level(coverage.struct_level),
        "linear": _extent(coverage.linear),
        "linear_level": _level(coverage.linear_level),
    }


def _kind(codes: I64, known: tuple[str, ...]) -> Any:  # noqa: ANN401
    """Words of `analyzer.sections.section_rows`, the last of which means "none of these": missing here."""
    return one_of(np.where(codes == len(known) - 1, -1, codes), known[:-1])


def _extent(extent: U8) -> Any:  # noqa: ANN401
    """Extents as words, in the order of `Extent`."""
    return one_of(extent, _EXTENTS[: max(Extent) + 1])


def _level(level: I8) -> Any:  # noqa: ANN401
    """Arm levels as words, missing where nothing is mapped."""
    plain = np.asarray(level, dtype=np.int64)
    codes = np.where((plain <= PTE) & (plain >= -1), PTE - plain, -1)
    return one_of(np.where(plain == MIXED, len(_LEVELS) - 1, codes), _LEVELS)


def mapping_frame(facts: Facts, region: str | None = None) -> pd.DataFrame:
    """One row a range of equal attributes and level, empty ranges included, ascending; of one region or of all.

    ``start``, ``size``, ``last`` (inclusive: the end of the address space has no half-open form): ``uint64`` bytes.
    ``region``, ``level``, ``attributes`` (the dump's words), ``memory_type``, ``source``: categorical.  ``present``,
    ``valid``: bool.  ``output`` (physical address of the first byte), ``start_pfn`` and ``end_pfn`` (pages whose
    memory or struct pages lie in the row) and ``line``: nullable.

    UsageError for an unknown region; InputError, with what to collect, where the tables are not known.
    """
    if region is not None and region not in REGIONS:
        raise UsageError(f"no region {region!r}; known: {', '.join(REGIONS)}")
    if region is not None:
        return _region_frame(_needed(facts, REGIONS[region]))
    mapping: Mapping = _needed(facts, Mapping)
    rows = np.arange(len(mapping))
    codes = np.full(rows.size, -1, dtype=np.int64)
    first, end, known = np.zeros(rows.size, np.int64), np.zeros(rows.size, np.int64), np.zeros(rows.size, np.bool_)
    for code, kind in enumerate(REGIONS.values()):
        found = facts.get(kind)
        if found is not None:
            codes[found.rows] = code
            first[found.rows], end[found.rows], known[found.rows] = _pfns(found)
    return _rows_frame(mapping, rows, mapping.start, mapping.size, codes, (first, end, known), mapping.pa)


def _needed(facts: Facts, kind: type[Any]) -> Any:  # noqa: ANN401 the fact of that type
    fact = facts.get(kind)
    if fact is None:
        raise InputError(f"{facts.why_missing(kind)}; collect: {'; '.join(facts.collect(kind))}")
    return fact


def _region_frame(found: RegionMap) -> pd.DataFrame:
    start = np.uint64(found.base) + found.start.astype(np.uint64)
    size = (found.end - found.start).astype(np.uint64)
    codes = np.full(start.size, list(REGIONS).index(found.name), dtype=np.int64)
    return _rows_frame(found.mapping, found.rows, start, size, codes, _pfns(found), found.pa)


def _pfns(found: RegionMap) -> tuple[I64, I64, Bool]:
    """First PFN and end PFN of each row, and which are known."""
    if not found.layout.knows("phys_offset", "page_size"):
        nothing = np.zeros(found.start.size, dtype=np.int64)
        return nothing, nothing, np.zeros(found.start.size, dtype=np.bool_)
    first = found.start // found.page_bytes + found.layout.start_pfn
    end = -(-found.end // found.page_bytes) + found.layout.start_pfn
    return first, end, first >= 0


def _rows_frame(
    mapping: Mapping,
    rows: I64,
    start: U64,
    size: U64,
    region: I64,
    pfns: tuple[I64, I64, Bool],
    output: Any,  # noqa: ANN401
) -> pd.DataFrame:
    attrs, valid = mapping.attrs[rows], mapping.valid[rows]
    count = rows.size
    line = np.zeros(count, dtype=np.uint32) if mapping.line is None else mapping.line[rows]
    first, end, known = pfns
    return frame(
        {
            "start": unsigned(start),
            "size": unsigned(size),
            "last": unsigned(start) + (unsigned(size) - np.uint64(1)),
            "region": one_of(region, tuple(REGIONS)),
            "level": _level(mapping.level[rows]),
            "present": mapping.present[rows],
            "valid": valid,
            "attributes": _attributes(attrs),
            "memory_type": one_of(mapping.memtype[rows].astype(np.int64) - 1, _MEMORY_TYPES),
            "output": nullable(0 if output is None else output, valid & (output is not None)),
            "start_pfn": nullable(first, known),
            "end_pfn": nullable(end, known),
            "source": one_of(np.zeros(count, dtype=np.int64), (mapping.source,)),
            "line": nullable(line, line > 0, "UInt32"),
        }
    )


def _attributes(attrs: Any) -> Any:  # noqa: ANN401
    """The words of the kernel's dump for each row; holes have none."""
    bits, where = np.unique(attrs, return_inverse=True)
    texts = [" ".join(one.word(value) for one in ATTRIBUTE_FIELDS if one.word(value)) for value in bits.tolist()]
    present = (bits & np.uint16(Attr.PRESENT)) != 0
    known = sorted({text for text, there in zip(texts, present.tolist(), strict=True) if there})
    codes = np.array([known.index(text) if there else -1 for text, there in zip(texts, present.tolist(), strict=True)])
    return one_of(codes[where] if bits.size else np.empty(0, np.int64), known)

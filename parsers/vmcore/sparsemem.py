"""The section table: ``mem_section`` roots, flags and subsection maps, read in bulk.

Structures from include/linux/mmzone.h and mm/sparse.c (4.14 to 6.18, with SPARSEMEM_EXTREME, which arm64 always
has): an array of pointers to pages full of ``struct mem_section``.  Flags are found by their enumerators, where
types have them, and by the numbers of 5.3 to 5.18 otherwise.
"""

from __future__ import annotations

import numpy as np

from parsers.errors import FormatError
from parsers.mapping import I64, U64, Bool
from parsers.ranges import Ranges
from parsers.vmcore.dump import Dump
from parsers.vmcore.memory import MissingMemoryError, page_runs
from parsers.vmcore.rows import SectionRows

__all__ = ["read_sections"]

_SUBSECTION_SHIFT = 21
_MAX_SECTIONS = 1 << 21  # in roots that are in use: 256 TiB in sections of 128 MiB
_MAX_ROOTS = 1 << 19  # 52 address bits in sections of 128 MiB, 64 to a root
_DEFAULT_SECTION_SIZE_BITS = 30  # VMCOREINFO has it since 5.13 and stable 5.10, 5.4; kernels before had 1 GiB sections

# Bit number of each flag where there are no types (since 5.3; TAINT_ZONE_DEVICE since 5.12).
_FLAG_BITS = {
    "SECTION_MARKED_PRESENT": 0,
    "SECTION_HAS_MEM_MAP": 1,
    "SECTION_IS_ONLINE": 2,
    "SECTION_IS_EARLY": 3,
    "SECTION_TAINT_ZONE_DEVICE": 4,
}


def read_sections(dump: Dump) -> SectionRows:
    """Read the section table; MissingMemoryError or FormatError when the dump has none that can be found."""
    info = dump.vmcoreinfo
    roots_va, nr_roots = info.symbol("mem_section"), info.length("mem_section")
    if not roots_va or not nr_roots:
        raise FormatError("VMCOREINFO has no mem_section: not a SPARSEMEM kernel")
    size = dump.size("mem_section") or 16
    page = dump.addresses.granule.page_size
    word_at = dump.offset("mem_section", "section_mem_map") or 0
    usage_at = dump.offset("mem_section", "usage")
    if not 0 < size <= page or size % 8 or word_at + 8 > size or nr_roots > _MAX_ROOTS:
        raise FormatError(f"impossible section table: {nr_roots} roots of {size} byte entries")
    if usage_at is None:
        usage_at = 8  # after the only word that every version has
    per_root = page // size
    places = np.uint64(roots_va) + np.arange(nr_roots, dtype=np.uint64) * np.uint64(8)
    roots, known = dump.read_words(places)
    used = np.flatnonzero(known & (roots != 0))
    if not used.size:
        dump.memory.has_false_zeros |= bool(known.all()) and not dump.memory.zeros_are_read
        why = "reads as zeros" if known.all() else "is not in the dump"
        raise MissingMemoryError(f"the mem_section array {why}", address=roots_va)
    if used.size * per_root > _MAX_SECTIONS:
        raise FormatError(f"impossible section table: {used.size} roots are in use")
    inside = np.arange(per_root, dtype=np.uint64)
    number = (used.astype(np.uint64)[:, None] * np.uint64(per_root) + inside).ravel()
    entries = (roots[used][:, None] + inside * np.uint64(size)).ravel()
    words, words_known = dump.read_words(entries + np.uint64(word_at))
    usage, usage_known = dump.read_words(entries + np.uint64(usage_at))
    unknown = _unknown(np.flatnonzero(~known), number[~(words_known & usage_known)], per_root)
    some = ((words | usage) != 0) | ~(words_known & usage_known)
    empty = used[~some.reshape(-1, per_root).any(axis=1)]
    array_page = places // np.uint64(page)
    unused = np.flatnonzero(known & ~np.isin(array_page, array_page[used]))  # no root in the whole page
    blank = Ranges.of(*(np.concatenate((empty, unused)) * per_root + edge for edge in (0, per_root)))
    rows = np.flatnonzero(words_known & usage_known & ((words != 0) | (usage != 0)))
    number, (pa, _) = number[rows], dump.physical(entries[rows])
    section_size_bits = info.number("SECTION_SIZE_BITS") or _DEFAULT_SECTION_SIZE_BITS
    if not _SUBSECTION_SHIFT < section_size_bits <= 40:
        raise FormatError(f"impossible SECTION_SIZE_BITS {section_size_bits}")
    subsections, subsections_known = _subsections(dump, usage[rows], words[rows], section_size_bits)
    flags = _flags(dump)
    words = words[rows]

    def flag(name: str) -> Bool:
        return np.asarray(words & np.uint64(flags.get(name, 0)) != 0)

    return SectionRows(
        section_nr=number,
        section_mem_map=words,
        present=flag("SECTION_MARKED_PRESENT"),
        has_memmap=flag("SECTION_HAS_MEM_MAP"),
        online=flag("SECTION_IS_ONLINE"),
        early=flag("SECTION_IS_EARLY"),
        device=flag("SECTION_TAINT_ZONE_DEVICE"),
        subsections=subsections,
        subsections_known=subsections_known,
        usage=usage[rows],
        pa=pa,
        flags=flags,
        section_size_bits=section_size_bits,
        unknown_start=unknown.start.astype(np.uint64),
        unknown_end=unknown.end.astype(np.uint64),
        blank_start=blank.start.astype(np.uint64),
        blank_end=blank.end.astype(np.uint64),
    )


def _unknown(roots: I64, sections: U64, per_root: int) -> Ranges:
    """Section numbers of which the dump shows nothing: those of whole ``roots``, and some ``sections``."""
    start, count = page_runs(sections)
    first = start.astype(np.int64)
    return Ranges.of(roots * per_root, (roots + 1) * per_root) | Ranges.of(first, first + count.astype(np.int64))


def _flags(dump: Dump) -> dict[str, int]:
    """Masks by flag name; a flag that the kernel's types do not have is left out."""
    if dump.enumerator("SECTION_MARKED_PRESENT_BIT") is not None:
        bits = {name: dump.enumerator(f"{name}_BIT") for name in _FLAG_BITS}
        return {name: 1 << bit for name, bit in bits.items() if bit is not None}
    # Before the enum (ed7802dd48f7, 5.19) they were macros; the numbers have not changed since 5.3.
    if dump.has_types and dump.offset("mem_section", "usage") is None:
        return {name: 1 << bit for name, bit in _FLAG_BITS.items() if bit < 3}  # up to 5.2
    if not dump.has_types:
        dump.say("no types: section flags are read by their usual numbers, the device flag may mean something else")
    return {name: 1 << bit for name, bit in _FLAG_BITS.items()}


def _subsections(dump: Dump, usage: U64, words: U64, section_size_bits: int) -> tuple[U64, Bool]:
    """``(n, words)`` subsection maps and which are known."""
    nr_words = -(-(1 << (section_size_bits - _SUBSECTION_SHIFT)) // 64)
    known = usage != 0
    result = np.zeros((usage.size, nr_words), dtype=np.uint64)
    at = _subsection_offset(dump, usage[known], words[known])
    if at is None or not known.any():
        return result, np.zeros(usage.size, dtype=np.bool_)
    addresses = usage[known, None] + np.uint64(at) + np.arange(nr_words, dtype=np.uint64) * np.uint64(8)
    values, got = dump.read_words(addresses.ravel(), in_use=True)
    result[known] = values.reshape(-1, nr_words)
    known[known] = got.reshape(-1, nr_words).all(axis=1)
    return result, known


def _subsection_offset(dump: Dump, usage: U64, words: U64) -> int | None:
    """Offset of subsection_map in mem_section_usage; None where there is none.

    Since 5ec8e8ea8b77 (6.8, and stable) an rcu_head of 16 bytes comes first.  Without types, the head gives itself
    away: it is zero in every section that is not being removed, and no present section has an empty map.
    """
    if dump.has_types:
        return dump.offset("mem_section_usage", "subsection_map")
    live = usage[words & np.uint64(1) != 0]
    if not live.size:
        return None
    first, known = dump.read_words(live)
    if not known.any():
        return None
    head = not (first[known] != 0).any()
    dump.say(f"no types: subsection maps are taken to follow {'an rcu_head' if head else 'nothing'}")
    return 16 if head else 0

"""Entries that no sound kernel writes, or that the walk could not follow: columns, gathered while walking."""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum

import numpy as np

from parsers.arm64 import PTE
from parsers.mapping import I8, I64, U8, U64
from parsers.records import dataclass
from parsers.vmcore.descriptors import DescriptorFormat

__all__ = ["FAULTS", "Fault", "FaultLog", "TableFaults"]

_MAX_KEPT = 4096


class Fault(StrEnum):
    """What is wrong with an entry."""

    RESERVED = "a reserved encoding"
    MISALIGNED = "a block whose output address is not aligned to its size"
    ELSEWHERE = "the table page is in use at another level"
    SHARED = "the table page is shared too often"
    MISSING = "the table page is not in the dump"
    BLANK = "the table page reads as zeros, as it may where the dump left it out"
    ROWS = "too many distinct ranges, not walked further"
    TABLES = "too many table pages, not walked further"


FAULTS: tuple[Fault, ...] = tuple(Fault)


@dataclass(frozen=True, eq=False, kw_only=True)
class TableFaults:
    """One row an entry; the first few thousand of them.  Runs of reserved pages are one row."""

    kind: U8
    """Index into `FAULTS`."""
    entry_pa: U64
    """Physical address of the entry."""
    level: I8
    """Arm level of the table that holds it."""
    va: U64
    """First virtual address that it would translate."""
    descriptor: U64
    table_pa: U64
    """Physical address of the table that it leads to; 0 for blocks and pages."""
    total: int
    """How many there are, those left out included."""

    def __len__(self) -> int:
        return int(self.kind.size)


@dataclass(slots=True)
class FaultLog:
    """Faults as a walk meets them."""

    format: DescriptorFormat
    parts: list[tuple[U8, U64, I8, U64, U64, U64]] = field(default_factory=list)
    kept: int = 0
    total: int = 0

    def add(
        self, fault: Fault, level: int, entry_pa: U64, va: U64, descriptor: U64, table_pa: U64 | None = None
    ) -> None:
        """Entries of tables of ``level``, all wrong in the same way."""
        self.total += int(va.size)
        some = slice(0, _MAX_KEPT - self.kept)
        count = va[some].size
        if count:
            kind, levels = np.full(count, FAULTS.index(fault), np.uint8), np.full(count, level, np.int8)
            leads_to = np.zeros(count, np.uint64) if table_pa is None else table_pa[some]
            self.parts.append((kind, entry_pa[some], levels, va[some], descriptor[some], leads_to))
            self.kept += count

    def look(self, level: int, descriptor: U64, table_pa: U64, index: I64, va: U64) -> None:
        """Find what is malformed among entries ``index`` of the tables at ``table_pa``."""
        block = descriptor & np.uint64(3) == 1
        if not block.any():
            return
        found = {Fault.RESERVED: block}
        if level != PTE and level in self.format.block_levels():
            levels = np.full(descriptor.size, level, dtype=np.int8)
            crooked = self.format.output(descriptor) != self.format.leaf_output(descriptor, levels)
            found = {Fault.MISALIGNED: block & crooked}
        for fault, bad in found.items():
            if bad.any():
                entry = table_pa[bad] + index[bad].astype(np.uint64) * np.uint64(8)
                self.add(fault, level, entry, va[bad], descriptor[bad])

    def table(self) -> TableFaults:
        """All of them, by level and address."""
        columns = list(zip(*self.parts, strict=True)) or [()] * 6
        kinds = (np.uint8, np.uint64, np.int8, np.uint64, np.uint64, np.uint64)
        kind, entry_pa, level, va, descriptor, table_pa = (
            np.concatenate([np.empty(0, dtype=dtype), *column]) for dtype, column in zip(kinds, columns, strict=True)
        )
        order = np.lexsort((va, level))
        kind, entry_pa, level = kind[order], entry_pa[order], level[order]
        va, descriptor, table_pa = va[order], descriptor[order], table_pa[order]
        return TableFaults(
            kind=kind,
            entry_pa=entry_pa,
            level=level,
            va=va,
            descriptor=descriptor,
            table_pa=table_pa,
            total=self.total,
        )

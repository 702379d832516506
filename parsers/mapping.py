"""The table of mapped and empty ranges of the kernel's page tables, whichever source it came from.

A text dump and a walk of the tables in a crash dump both end here, so nothing above this module
can tell them apart, except by the precision that the table carries: a walk knows output addresses
(``pa``), a text dump knows line numbers (``line``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field

import numpy as np
from numpy.typing import NDArray

from parsers.arm64 import ATTRIBUTE_FIELDS, Attr, MemType
from parsers.records import dataclass

__all__ = ["I8", "I64", "U8", "U16", "U32", "U64", "Bool", "Mapping", "Marker", "TablePages"]

U8 = NDArray[np.uint8]
U16 = NDArray[np.uint16]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
I8 = NDArray[np.int8]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Marker:
    """A ``---[ name ]---`` line: printed before row number ``row`` (0-based; may equal the row count)."""

    name: str
    row: int
    line: int | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class TablePages:
    """Translation table pages, one row each: physical address, Arm level, first VA, entries in use."""

    pa: U64
    level: I8
    va: U64
    used: U32
    """Entries that are not zero."""
    parent_pa: U64
    """Physical address of the entry that points at this table (0 for the root)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Mapping:
    """One row a range of equal attributes and level, in ascending order of ``start``.

    ``start`` + ``size`` may be 2**64, which wraps to 0: use ``last`` (inclusive).

    ``observed`` bounds what the source covers: an address outside of every
    ``[observed_start, observed_last]`` was not dumped, which is not the same as not mapped.
    """

    start: U64
    size: U64
    level: I8
    """Arm level of the (possibly empty) entries: 3 PTE, 2 PMD, 1 PUD, 0, -1."""
    attrs: U16
    """`parsers.arm64.Attr` bits; 0 for a hole."""
    memtype: U8
    """`parsers.arm64.MemType`."""
    observed_start: U64
    observed_last: U64
    source: str
    """Path or name of the source, for evidence."""
    pa: U64 | None = None
    """Output address of the first byte of each row (0 for holes); rows are physically contiguous then."""
    line: U32 | None = None
    """1-based line of the row in a text source."""
    tables: TablePages | None = None
    markers: tuple[Marker, ...] = ()
    quote: Callable[[int], str] | None = field(default=None, repr=False)
    """Text of row number i as it is in the source, where there is one."""

    @property
    def last(self) -> U64:
        """Inclusive last address of each row."""
        return self.start + (self.size - np.uint64(1))

    @property
    def present(self) -> Bool:
        """Rows that are not holes."""
        return self.has(Attr.PRESENT)

    @property
    def valid(self) -> Bool:
        """Rows that translate."""
        return self.has(Attr.VALID)

    def has(self, attr: Attr) -> Bool:
        """Rows that have all bits of ``attr``."""
        return np.asarray((self.attrs & np.uint16(attr)) == np.uint16(attr))

    def describe(self, row: int) -> str:
        """Row number ``row`` as its source has it, or in the words of a dump, with its output address."""
        if self.quote is not None:
            return self.quote(row)
        attrs, level = int(self.attrs[row]), int(self.level[row])
        end = (int(self.start[row]) + int(self.size[row])) & (2**64 - 1)
        words = [f"{int(self.start[row]):#018x}-{end:#018x} {int(self.size[row]) >> 10}K", f"level {level}"]
        if attrs & Attr.PRESENT:
            words += [field.word(attrs) for field in ATTRIBUTE_FIELDS if field.word(attrs)]
            words.append(MemType(int(self.memtype[row])).name)
            if self.pa is not None:
                words.append(f"-> {int(self.pa[row]):#x}")
        return " ".join(words)

    def __len__(self) -> int:
        return int(self.start.size)

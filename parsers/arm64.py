"""Arm VMSAv8-64 translation tables as the Linux kernel uses and prints them: the one table, both directions.

Geometry comes from the Arm ARM (D8.2) and arch/arm64/include/asm/pgtable-hwdef.h; attribute words
and their order from arch/arm64/mm/ptdump.c (4.14 to 6.18).  Levels are Arm's: 3 is the
last level (``PTE``), 2 ``PMD``, 1 ``PUD``, 0 and -1 the levels above.  A page table with fewer
levels simply starts lower, whatever word the kernel prints for its first level.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

from parsers.records import dataclass

__all__ = [
    "ATTRIBUTE_FIELDS",
    "GRANULES",
    "LEVEL_WORDS",
    "MEMORY_TYPE_WORDS",
    "PMD",
    "PTE",
    "PUD",
    "Attr",
    "AttributeField",
    "Granule",
    "LevelWord",
    "MemType",
    "granule",
]

PTE, PMD, PUD = 3, 2, 1  # Arm levels by the kernel's names


class LevelWord(IntEnum):
    """The level as a dump prints it; ``NONE`` for kernels up to 4.9, which print none."""

    NONE = 0
    PGD = 1
    P4D = 2
    PUD = 3
    PMD = 4
    PTE = 5


LEVEL_WORDS: tuple[str, ...] = tuple("" if word is LevelWord.NONE else word.name for word in LevelWord)

# The words that always mean the same level; PGD means the first level, whichever that is.
_FIXED_LEVELS = {LevelWord.PTE: 3, LevelWord.PMD: 2, LevelWord.PUD: 1, LevelWord.P4D: 0}


@dataclass(frozen=True, slots=True)
class Granule:
    """A translation granule: page size and what follows from it."""

    page_shift: int
    cont_ptes: int
    """Entries of a contiguous run at level 3."""
    cont_pmds: int
    """Entries of a contiguous run at level 2."""

    @property
    def page_size(self) -> int:
        return 1 << self.page_shift

    @property
    def bits_per_level(self) -> int:
        return self.page_shift - 3

    @property
    def entries(self) -> int:
        """Entries of a full table."""
        return 1 << self.bits_per_level

    def span(self, level: int) -> int:
        """Bytes that one entry of ``level`` translates."""
        return 1 << (self.page_shift + (3 - level) * self.bits_per_level)

    def cont_span(self, level: int) -> int:
        """Bytes of a contiguous run at ``level`` (2 or 3): the unit in which the CON bit must be uniform."""
        return self.span(level) * (self.cont_ptes if level == PTE else self.cont_pmds)

    def nr_levels(self, va_bits: int) -> int:
        """CONFIG_PGTABLE_LEVELS for ``va_bits``: 39 bits of 4K pages have 3, 52 have 5."""
        return -(-(va_bits - self.page_shift) // self.bits_per_level)

    def first_level(self, va_bits: int) -> int:
        """The Arm level of the root table: what the word ``PGD`` means."""
        return 4 - self.nr_levels(va_bits)

    def level_of(self, word: LevelWord, va_bits: int) -> int:
        """The Arm level that ``word`` means in a dump of a kernel with ``va_bits`` in use."""
        return _FIXED_LEVELS.get(word, self.first_level(va_bits))

    def block_levels(self) -> tuple[int, ...]:
        """Levels at which the kernel makes block entries: PUD blocks with 4K pages only."""
        return (PMD, PUD) if self.page_shift == 12 else (PMD,)

    @property
    def name(self) -> str:
        return f"{self.page_size >> 10}K"


GRANULES: dict[int, Granule] = {
    granule.page_size: granule
    for granule in (
        Granule(page_shift=12, cont_ptes=16, cont_pmds=16),
        Granule(page_shift=14, cont_ptes=128, cont_pmds=32),
        Granule(page_shift=16, cont_ptes=32, cont_pmds=32),
    )
}


def granule(page_size: int) -> Granule:
    """The granule of ``page_size`` bytes; ValueError if Arm has none."""
    try:
        return GRANULES[page_size]
    except KeyError:
        raise ValueError(f"{page_size} is not an arm64 page size (4096, 16384, 65536)") from None


class Attr(IntFlag):
    """Attributes of a mapped row, as the dump's words or the descriptor's bits give them.

    A row without ``PRESENT`` is a hole.  ``PRESENT`` without ``VALID`` is what the dump marks
    ``F``: an entry that is not zero and does not translate.
    """

    PRESENT = 1 << 0
    VALID = 1 << 1
    USER = 1 << 2
    RDONLY = 1 << 3
    PXN = 1 << 4
    SHARED = 1 << 5
    AF = 1 << 6
    NG = 1 << 7
    CONT = 1 << 8
    BLOCK = 1 << 9
    UXN = 1 << 10
    GP = 1 << 11


class MemType(IntEnum):
    """Memory type of a row; ``UNKNOWN`` where the dump prints none (an index without a name)."""

    UNKNOWN = 0
    DEVICE_nGnRnE = 1
    DEVICE_nGnRE = 2
    DEVICE_GRE = 3
    NORMAL_NC = 4
    NORMAL = 5
    NORMAL_TAGGED = 6
    NORMAL_WT = 7


MEMORY_TYPE_WORDS: dict[str, MemType] = {
    "DEVICE/nGnRnE": MemType.DEVICE_nGnRnE,
    "DEVICE/nGnRE": MemType.DEVICE_nGnRE,
    "DEVICE/GRE": MemType.DEVICE_GRE,
    "MEM/NORMAL-NC": MemType.NORMAL_NC,
    "MEM/NORMAL": MemType.NORMAL,
    "MEM/NORMAL-TAGGED": MemType.NORMAL_TAGGED,
}


@dataclass(frozen=True, slots=True)
class AttributeField:
    """One column of a dump: ``set_word`` when ``descriptor & mask == value``, else ``clear_word``.

    The kernel pads both words to the same width; here they are stripped, ``width`` restores them.
    """

    attr: Attr
    mask: int
    value: int
    set_word: str
    clear_word: str
    width: int

    def word(self, attrs: int) -> str:
        """The word for a row with these `Attr` bits; may be empty."""
        return self.set_word if attrs & self.attr else self.clear_word


# In the order in which the kernel prints them.  The memory type follows.
ATTRIBUTE_FIELDS: tuple[AttributeField, ...] = (
    AttributeField(Attr.VALID, 1 << 0, 1 << 0, "", "F", 1),
    AttributeField(Attr.USER, 1 << 6, 1 << 6, "USR", "", 3),
    AttributeField(Attr.RDONLY, 1 << 7, 1 << 7, "ro", "RW", 2),
    AttributeField(Attr.PXN, 1 << 53, 1 << 53, "NX", "x", 2),
    AttributeField(Attr.SHARED, 3 << 8, 3 << 8, "SHD", "", 3),
    AttributeField(Attr.AF, 1 << 10, 1 << 10, "AF", "", 2),
    AttributeField(Attr.NG, 1 << 11, 1 << 11, "NG", "", 2),
    AttributeField(Attr.CONT, 1 << 52, 1 << 52, "CON", "", 3),
    AttributeField(Attr.BLOCK, 1 << 1, 0, "BLK", "", 3),
    AttributeField(Attr.UXN, 1 << 54, 1 << 54, "UXN", "", 3),
    AttributeField(Attr.GP, 1 << 50, 1 << 50, "GP", "", 2),
)

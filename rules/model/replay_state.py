"""The state of memory hotplug by subsection, and what can go wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from parsers.mapping import I8, I64, Bool
    from parsers.ranges import Ranges

__all__ = ["NO", "SUBSECTION", "UNKNOWN", "YES", "Anomaly", "State", "Trouble"]

UNKNOWN, NO, YES = -1, 0, 1
SUBSECTION = 1 << 21
"""Bytes of a subsection: SUBSECTION_SHIFT is 21 for every page size (include/linux/mmzone.h, 5.3)."""


class Trouble(StrEnum):
    """What the replay noticed; each is one rule's matter."""

    REMOVE_WHILE_ONLINE = "TRC-01"
    FREE_BEFORE_OFFLINE = "TRC-02"
    DOUBLE_ADD = "TRC-03"
    REMOVE_UNKNOWN = "TRC-04"
    ASYMMETRIC_UNIT = "TRC-05"
    FAILED_WITHOUT_CLEANUP = "TRC-06"
    FREE_WIDER_THAN_REMOVE = "TRC-07"
    HUGE_FOR_PARTIAL = "TRC-08"
    POPULATED_TOO_LITTLE = "VMM-06"
    CONCURRENT = "TRC-11"
    ONLINE_WITHOUT_MEMORY = "TRC-12"
    ALTMAP_MISMATCH = "TRC-13"


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Something that should not have happened: which call, to which page frames."""

    trouble: Trouble
    call: int
    pfns: Ranges
    text: str
    certain: bool = True
    """False where it depends on which of two ways the kernel works."""


@dataclass(eq=False)
class State:
    """Columns over subsections, one row a subsection of a touched section, ascending by PFN."""

    start_pfn: I64
    valid: I8
    mapped: I8
    leaf: I8
    """`Leaf`."""
    linear: I8
    online: I8
    lost: Bool
    """Valid, and its struct pages were taken away: also if a later populate mapped fresh ones there."""
    damaged_by: I64
    """Call that took the struct pages away, -1."""
    suspect: I64
    """Call that may have taken them away, depending on how the kernel maps them, -1."""
    added_by: I64
    """Call that added it, -1."""
    self_hosted: I8

    @classmethod
    def unknown(cls, start_pfn: I64) -> State:
        """Nothing is known."""
        size = start_pfn.size

        def column(value: int = UNKNOWN) -> I8:
            return np.full(size, value, dtype=np.int8)

        none = np.full(size, UNKNOWN, dtype=np.int64)
        nobody = np.zeros(size, dtype=np.bool_)
        columns = (column(), column(), column(), column(), column())
        return cls(start_pfn, *columns, nobody, none, none.copy(), none.copy(), column())

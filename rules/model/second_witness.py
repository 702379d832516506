"""What another source says of the same machine, where a crash dump has the word: kept to be compared with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from parsers.mapping import Mapping
    from rules.model.coverage import LinearMap, Vmemmap
    from rules.model.sections import SectionTable

__all__ = ["ListedSections", "PrintedTables"]


@dataclass(frozen=True, eq=False)
class PrintedTables:
    """The page tables as the kernel printed them (debugfs)."""

    mapping: Mapping
    linear: LinearMap
    vmemmap: Vmemmap


@dataclass(frozen=True, eq=False)
class ListedSections:
    """The section table as it follows from /proc/iomem and the memory blocks in sysfs."""

    table: SectionTable

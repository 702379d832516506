"""The same machine at another moment, or from another source: what the evidence is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.records import dataclass

if TYPE_CHECKING:
    from parsers.mapping import Mapping
    from parsers.ranges import Ranges
    from rules.model.memory.regions import LinearMap, Vmemmap
    from rules.model.memory.sections import SectionTable

__all__ = ["Earlier", "ListedSections", "Present", "PrintedTables"]


@dataclass(frozen=True, eq=False)
class Earlier:
    """The same regions as they were before."""

    linear: LinearMap
    vmemmap: Vmemmap


@dataclass(frozen=True, eq=False)
class Present:
    """The memory that is valid when the trace ends, and what maps struct pages then, if that was captured."""

    valid: Ranges
    vmemmap: Vmemmap | None


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

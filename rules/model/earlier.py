"""The other moments that a trace is seen against: page tables of an earlier one, memory at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from parsers.ranges import Ranges
    from rules.model.coverage import LinearMap, Vmemmap

__all__ = ["Earlier", "Present"]


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

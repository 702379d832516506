"""The page tables of an earlier moment of the same boot, where two dumps are given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rules.model.coverage import LinearMap, Vmemmap

__all__ = ["Earlier"]


@dataclass(frozen=True, eq=False)
class Earlier:
    """The same regions as they were before."""

    linear: LinearMap
    vmemmap: Vmemmap

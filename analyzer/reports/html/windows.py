"""How a window of memory is drawn: what maps its struct pages and its linear range, as a class and in words."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import PMD, PTE, PUD
from parsers.records import dataclass
from rules.model.memory.coverage import MIXED, Extent

if TYPE_CHECKING:
    from parsers.mapping import I8, I64, U8
    from rules.model.memory.coverage import Coverage

__all__ = ["LEGEND", "Drawn", "Window", "codes", "merged", "window"]


class Drawn(StrEnum):
    """One look on the page; the value is the style class."""

    UNKNOWN = "unknown"
    UNMAPPED = "unmapped"
    MISSING = "missing"
    TORN = "torn"
    PART = "part"
    MIXED = "mixed"
    PTE = "pte"
    PMD = "pmd"
    PUD = "pud"


LEGEND: dict[Drawn, str] = {
    Drawn.MISSING: "no struct pages for valid memory",
    Drawn.TORN: "struct pages of valid memory, some missing",
    Drawn.PUD: "PUD leaves",
    Drawn.PMD: "PMD leaves",
    Drawn.PTE: "PTEs",
    Drawn.MIXED: "several levels",
    Drawn.PART: "mapped in part",
    Drawn.UNMAPPED: "not mapped",
    Drawn.UNKNOWN: "not known",
}

_LEVELS = {PTE: Drawn.PTE, PMD: Drawn.PMD, PUD: Drawn.PUD, MIXED: Drawn.MIXED}
VALID = ("no", "in part", "yes")


@dataclass(frozen=True, slots=True)
class Window:
    """Windows that look alike: 0, 1 or 2 for none, some or all pages valid, and two looks with their words."""

    valid: int
    structs: Drawn
    structs_text: str
    linear: Drawn
    linear_text: str


def codes(coverage: Coverage, pages: int) -> I64:
    """One number a window of ``pages`` pages; equal numbers look alike (`window` reads them)."""
    valid = np.where(coverage.valid_pages == 0, 0, np.where(coverage.valid_pages >= pages, 2, 1))
    structs = _code(coverage.struct_pages, coverage.struct_level)
    return np.asarray(valid * 1024 + structs * 32 + _code(coverage.linear, coverage.linear_level), dtype=np.int64)


def _code(extent: U8, level: I8) -> I64:
    """Four extents and eight levels, from -4 to 3."""
    return np.asarray(extent.astype(np.int64) * 8 + (level.astype(np.int64) + 4))


def window(code: int) -> Window:
    """What a number of `codes` means."""
    valid, structs, linear = code // 1024, code // 32 % 32, code % 32
    return Window(valid, *_structs(structs, valid), *_linear(linear))


def _structs(code: int, valid: int) -> tuple[Drawn, str]:
    extent, level = Extent(code // 8), code % 8 - 4
    if extent is Extent.UNKNOWN:
        return Drawn.UNKNOWN, "not known"
    if extent is Extent.NONE:
        return (Drawn.MISSING, "missing") if valid else (Drawn.UNMAPPED, "none")
    if extent is Extent.PART:
        return (Drawn.TORN if valid else Drawn.PART), f"{_level(level)}, in part"
    return _LEVELS.get(level, Drawn.PUD), _level(level)


def _linear(code: int) -> tuple[Drawn, str]:
    extent, level = Extent(code // 8), code % 8 - 4
    if extent is Extent.UNKNOWN:
        return Drawn.UNKNOWN, "not known"
    if extent is Extent.NONE:
        return Drawn.UNMAPPED, "not mapped"
    if extent is Extent.PART:
        return Drawn.PART, f"{_level(level)}, in part"
    return _LEVELS.get(level, Drawn.PUD), _level(level)


def _level(level: int) -> str:
    drawn = _LEVELS.get(level)
    return "several levels" if drawn is Drawn.MIXED else (drawn.upper() if drawn else f"level {level}")


def merged(parts: list[Window]) -> Window:
    """The look of a window made of windows: what holds for its valid part, which is all that must be mapped."""
    counted = [part for part in parts if part.valid] or parts
    valid = 2 if all(part.valid == 2 for part in parts) else (1 if any(part.valid for part in parts) else 0)
    structs = {part.structs for part in counted}
    linear = {part.linear for part in counted}
    return Window(valid, *_merged_structs(structs, counted), *_merged_linear(linear, counted))


def _merged_structs(looks: set[Drawn], parts: list[Window]) -> tuple[Drawn, str]:
    if len(looks) == 1:
        return parts[0].structs, parts[0].structs_text
    if Drawn.UNKNOWN in looks:
        return Drawn.UNKNOWN, "not known in part"
    if looks & {Drawn.MISSING, Drawn.TORN}:
        return Drawn.TORN, "some missing"
    if looks & {Drawn.UNMAPPED, Drawn.PART}:
        return Drawn.PART, "in part"
    return Drawn.MIXED, "several levels"


def _merged_linear(looks: set[Drawn], parts: list[Window]) -> tuple[Drawn, str]:
    if len(looks) == 1:
        return parts[0].linear, parts[0].linear_text
    if Drawn.UNKNOWN in looks:
        return Drawn.UNKNOWN, "not known in part"
    if looks & {Drawn.UNMAPPED, Drawn.PART}:
        return Drawn.PART, "in part"
    return Drawn.MIXED, "several levels"

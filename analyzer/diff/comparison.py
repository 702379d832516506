"""Whether two captures can be compared, in which numbers, and whether they are of one boot.

A change of a live translation is a hazard only within one boot; page frames are compared between any two captures of
the same page size whose PHYS_OFFSET is known, whatever KASLR did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.boot_id import BootId
from parsers.cmdline import CommandLine
from parsers.errors import UsageError
from parsers.layout import KernelLayout
from parsers.records import dataclass
from parsers.uname import KernelRelease

if TYPE_CHECKING:
    from rules.facts import Facts

__all__ = ["Comparison", "comparison"]

_PLACES = ("page_offset", "vmemmap_start", "phys_offset", "va_bits", "struct_page_size")


@dataclass(frozen=True)
class Comparison:
    """How two captures compare."""

    same_boot: bool
    by_pfn: bool
    """Page frame numbers; otherwise page indices from the start of the linear map, of one layout."""
    notes: tuple[str, ...]


def comparison(before: Facts, after: Facts) -> Comparison:
    """Compare the identities of two captures; UsageError where they cannot be compared."""
    layouts = before.get(KernelLayout) or KernelLayout({}), after.get(KernelLayout) or KernelLayout({})
    sizes = [layout.get("page_size") for layout in layouts]
    if None not in sizes and sizes[0] != sizes[1]:
        raise UsageError(f"two kernels with other page sizes ({sizes[0]} and {sizes[1]} bytes) cannot be compared")
    same_boot, why = _boot(before, after)
    by_pfn = all(layout.knows("phys_offset") for layout in layouts)
    moved = [key for key in _PLACES if _differs(layouts, key)]
    notes = [why]
    if not by_pfn and (moved or not same_boot):
        raise UsageError(
            f"{why}, and PHYS_OFFSET is not known, so page frames cannot be matched: "
            "collect /proc/iomem with each page-table dump, or give --layout phys_offset=0x…"
        )
    if moved and by_pfn:
        notes.append(f"compared by page frame number: {', '.join(moved)} differ")
    return Comparison(same_boot, by_pfn, tuple(notes))


def _differs(layouts: tuple[KernelLayout, KernelLayout], key: str) -> bool:
    values = [layout.get(key) for layout in layouts]
    return None not in values and values[0] != values[1]


def _boot(before: Facts, after: Facts) -> tuple[bool, str]:
    """Whether both are of one boot, and by what."""
    first, second = before.get(KernelRelease), after.get(KernelRelease)
    if first is not None and second is not None and first.raw != second.raw:
        return False, f"different kernels: {first.raw} and {second.raw}"
    ids = before.get(BootId), after.get(BootId)
    if ids[0] is not None and ids[1] is not None:
        same = ids[0].value == ids[1].value
        return same, "one boot, by its boot id" if same else "two boots, by their boot ids"
    layouts = before.get(KernelLayout) or KernelLayout({}), after.get(KernelLayout) or KernelLayout({})
    moved = [key for key in _PLACES if _differs(layouts, key)]
    if moved:
        return False, f"two boots: {', '.join(moved)} differ"
    lines = before.get(CommandLine), after.get(CommandLine)
    if lines[0] is not None and lines[1] is not None and lines[0].parameters != lines[1].parameters:
        return False, "two boots: the kernel command lines differ"
    return True, "assuming the same boot (no boot_id to confirm)"

"""What the kernel refuses before it touches anything: arch/arm64/mm/mmu.c, mm/memory_hotplug.c, by version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.ranges import Ranges
from parsers.records import dataclass

if TYPE_CHECKING:
    from parsers.uname import KernelRelease
    from rules.model.replay.forward import Machine

__all__ = ["Refusal", "hot_remove_exists", "linear_range", "offline_refused", "split_guard"]

_HOT_REMOVE = (5, 7)
"""bbd6ec605c0f: arm64 has no memory hot-remove before."""
_SPLIT_GUARD = (7, 1)
"""95a58852b0e5: offlining is refused where a leaf would split."""
_RIGHT_RANGE = (7, 3)
"""7.1 and 7.2 look at the range after the one that goes offline: their loop has moved the PFN on."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the kernel says no, and how."""

    errno: str
    message: str
    """As the kernel logs it, empty where it says nothing."""
    reason: str
    rule: str
    """The rule that finds the refusal in a log."""
    advice: str = ""
    hosted: bool = False
    """Of a block that holds its own struct pages, which offers itself without them."""
    region: str = ""
    leaf: tuple[int, int] = (0, 0)
    """The leaf or contiguous run that would be split: virtual addresses ``[start, end)``."""


def hot_remove_exists(release: KernelRelease | None) -> bool:
    """Whether arm64 kernels of that release can remove memory at all."""
    return release is None or release.series >= _HOT_REMOVE


def split_guard(release: KernelRelease | None) -> bool | None:
    """Whether the kernel checks that no leaf would split; None where the release is not known."""
    return None if release is None else release.series >= _SPLIT_GUARD


def offline_refused(machine: Machine, start_pfn: int, end_pfn: int, release: KernelRelease | None) -> Refusal | None:
    """Why a memory block, ``[start_pfn, end_pfn)``, cannot go offline: can_unmap_without_split() of 7.1 and later.

    The check is made on kernels that have it; ``release`` None stands for one that has the one of 7.3.  A block that
    holds its own struct pages offers itself without them.
    """
    if release is not None and release.series < _SPLIT_GUARD:
        return None
    first = start_pfn
    hosted = bool(machine.hosted & Ranges.one(start_pfn, end_pfn))
    if hosted:
        first += (end_pfn - start_pfn) * machine.calibration.struct_page_size // machine.page_size
    low, high = first, end_pfn
    if release is not None and release.series < _RIGHT_RANGE:
        step = machine.pages_per_section
        low = first + -(-(end_pfn - first) // step) * step
        high = low + end_pfn - first
    for entries, what, rule in ((machine.linear, "linear map", "LIN-04"), (machine.vmemmap, "vmemmap", "VMM-01")):
        for edge in (low, high):
            offset = (edge - entries.start_pfn) * entries.page_bytes
            if entries.splits(offset):
                start, end = (entries.base + one for one in entries.leaf_at(offset))
                page = machine.page_size
                return Refusal(
                    "EPERM",
                    f"[{low * page:x} {high * page:x}] splits a leaf entry in {what}",
                    f"the leaf or contiguous run {start:#x}-{end:#x} of the {what} has {edge * page:#x} inside of it",
                    "MOM-14" if hosted and what == "vmemmap" else rule,
                    _advice(hosted=hosted, linear=what == "linear map"),
                    hosted,
                    entries.name,
                    (start, end),
                )
    return None


def _advice(*, hosted: bool, linear: bool) -> str:
    if hosted:
        return "plug memory that has to leave without memory_hotplug.memmap_on_memory" + (
            ", or boot with rodata=full" if linear else ""
        )
    if linear:
        return "plug memory in units that begin and end on the leaves of the linear map, or boot with rodata=full"
    return "plug memory in whole sections"


def linear_range(machine: Machine) -> tuple[int, int]:
    """PFNs that the linear map can hold: arch_get_mappable_range()."""
    linear = machine.linear
    page = machine.page_size
    return max(linear.first // page + linear.start_pfn, 0), linear.size // page + linear.start_pfn

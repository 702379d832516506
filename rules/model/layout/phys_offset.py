"""PHYS_OFFSET from a page-table dump and /proc/iomem: which shift places the linear map over the memory.

The linear map has every memblock region that is not no-map (arch/arm64/mm/mmu.c map_mem()) and all
hot-added memory, page for page; /proc/iomem names both.  memstart_addr is a multiple of
ARM64_MEMSTART_ALIGN (arch/arm64/include/asm/kernel-pgtable.h), so few shifts need to be tried, and all
are: the answer is accepted only when no other comes near.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import Attr, MemType
from parsers.ranges import EMPTY, Ranges
from parsers.records import dataclass

if TYPE_CHECKING:
    from parsers.mapping import I64
    from rules.model.memory.regions import LinearMap
    from rules.model.memory.resources import Resources

__all__ = ["Fit", "fit_phys_offset"]

MAX_CANDIDATES = 64
"""Shifts that are tried, those that align most edges first."""
MAX_EDGES = 2048


@dataclass(frozen=True)
class Fit:
    """The shifts that fit, best first (bytes, may be negative), and what supports the best one."""

    candidates: tuple[int, ...]
    reason: str


def alignment(page_shift: int) -> int:
    """ARM64_MEMSTART_ALIGN for section sizes since 5.12; older ones use multiples of it."""
    return 1 << (29 if page_shift == 16 else 30)


def fit_phys_offset(linear: LinearMap, resources: Resources) -> Fit:
    """All shifts of the linear map that agree with ``resources`` about where memory is.

    One candidate means that no other comes near; none that nothing fits.
    """
    if not linear.mapped or not resources.ram:
        return Fit((), "no mapped linear range or no System RAM to compare")
    shifts = _shifts(linear, resources)
    if not shifts.size:
        return Fit((), "no shift places the linear map over System RAM")
    wrong = np.array([_disagreement(linear, resources, int(shift)) for shift in shifts])
    best = int(wrong.min())
    # A host may be damaged, so a perfect fit is not asked for: but the runner-up must be clearly worse.
    near = wrong <= max(2 * best, best + alignment(linear.layout.page_shift) // 16)
    close = shifts[near][np.argsort(wrong[near], kind="stable")]
    if close.size > 1:
        close = _by_kernel_image(linear, resources, close)
    memory = resources.ram.total
    agreed = int(linear.mapped.shift(int(close[0])).covered(resources.ram.start, resources.ram.end).sum())
    if agreed * 2 <= min(memory, linear.mapped.total):  # a fragment shows less than all memory, a damaged host more
        return Fit((), "no shift places more than half of System RAM under the linear map")
    reason = f"places the linear map over System RAM ({agreed >> 20} of {memory >> 20} MiB match)"
    return Fit(tuple(int(shift) for shift in close), reason)


def _shifts(linear: LinearMap, resources: Resources) -> I64:
    """Every multiple of the alignment that brings an edge of the linear map onto an edge of memory."""
    unit = alignment(linear.layout.page_shift)
    edges = np.concatenate((linear.mapped.start, linear.mapped.end))
    targets = np.concatenate((resources.ram.start, resources.ram.end))
    shifts = (_spread(targets)[:, None] - _spread(edges)[None, :]).ravel()
    shifts, votes = np.unique(shifts[shifts % unit == 0], return_counts=True)
    keep = np.argsort(-votes, kind="stable")[:MAX_CANDIDATES]
    return np.sort(shifts[keep])


def _spread(edges: I64) -> I64:
    """At most `MAX_EDGES` of the edges, the outermost ones: they are the most specific."""
    ordered = np.sort(edges)
    return (
        ordered
        if ordered.size <= MAX_EDGES
        else np.concatenate((ordered[: MAX_EDGES // 2], ordered[-MAX_EDGES // 2 :]))
    )


def _disagreement(linear: LinearMap, resources: Resources, shift: int) -> int:
    """Bytes that are mapped and no memory, or System RAM and seen not to be mapped."""
    mapped = linear.mapped.shift(shift)
    outside = mapped.total - int(resources.mappable.covered(mapped.start, mapped.end).sum())
    return outside + _unmapped(linear, resources, shift)


def _unmapped(linear: LinearMap, resources: Resources, shift: int) -> int:
    """Bytes of System RAM that are seen not to be mapped."""
    seen = resources.ram & linear.observed.shift(shift)
    return seen.total - int(linear.mapped.shift(shift).covered(seen.start, seen.end).sum())


def _by_kernel_image(linear: LinearMap, resources: Resources, shifts: I64) -> I64:
    """Of several shifts, those that put the read-only untagged alias of the kernel text onto "Kernel code"."""
    code = resources.kernel_code
    read_only = image_alias(linear)
    if not code or not read_only:
        return shifts
    fits = [bool((read_only.shift(int(shift)) & code).total * 2 > code.total) for shift in shifts]
    return shifts[fits] if any(fits) else shifts


def image_alias(linear: LinearMap) -> Ranges:
    """Offsets of read-only rows of plain Normal memory: the linear alias of kernel text and rodata looks like this."""
    plain = linear.valid & linear.has(Attr.RDONLY) & (linear.memtype == MemType.NORMAL)
    return linear.where(plain) if plain.any() else EMPTY

"""The memory maps that a kernel can have whose log states no page size, no address bits or no release.

Each page size and number of address bits of its era is tried.  What contradicts one leaves it out: a stack or a frame
pointer that is not canonical, or in the linear map of a kernel with stacks in vmalloc (e3067861ba66, 4.14); the level
of a fault that its tables do not have; code in the linear map (f9040773b7bb, 4.6, moved the image out of it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.address_space import Area, areas_of, kasan_shadow
from parsers.layout import ERAS, Fact, KernelLayout, Precision, regions
from parsers.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from parsers.address_space import KasanMode
    from parsers.layout import Era
    from parsers.oops import Report
    from parsers.uname import KernelRelease
    from rules.model.layout.builder import LayoutBuilder

__all__ = ["PossibleMap", "possible_maps"]

Version = tuple[int, int]
STRUCT_PAGE_SIZE = 64
_IMAGE_IN_VMALLOC = (4, 6)
_STACKS_IN_VMALLOC = (4, 14)
_NAMED = frozenset({"modules", "vmalloc", "kasan_shadow"})


@dataclass(frozen=True, slots=True)
class PossibleMap:
    """One memory map that fits everything in the log."""

    layout: KernelLayout
    areas: tuple[Area, ...]

    def area_of(self, va: int) -> str:
        """``linear``, ``vmemmap``, ``vmalloc``, ``modules``, ``kasan_shadow``, or ``none`` for a gap."""
        if va < (1 << 64) - (1 << self.layout.va_bits_actual):
            return "none"
        region = self.layout.region_of(va)
        if region != "other":
            return region
        name = next((area.name for area in self.areas if area.start <= va < area.end), "none")
        return name if name in _NAMED else "none"


def possible_maps(
    builder: LayoutBuilder,
    release: KernelRelease | None,
    reports: Sequence[Report],
    kasan: KasanMode | None,
    *,
    newer: bool,
) -> tuple[PossibleMap, ...]:
    """Every map that fits; none where one is known already, or nothing says of which era the kernel is.

    ``newer`` says that a kernel without a release is of 5.4 or later.
    """
    known = builder.get("page_size"), builder.get("va_bits_actual")
    if None not in known and release is not None:
        return ()
    found = []
    for series in _series(release, newer=newer):
        era = next(era for era in ERAS if era.has(series))
        for shift, bits in _sizes(era):
            if known[0] in {None, 1 << shift} and known[1] in {None, bits}:
                possible = _map(era, shift, bits, series, kasan)
                if all(_fits(possible, report, series, kasan) for report in reports):
                    found.append(possible)
    return tuple(found)


def _series(release: KernelRelease | None, *, newer: bool) -> Iterator[Version]:
    """The (major, minor) whose map it can be: up to 4.9 the linear map is where that of 4.10 is."""
    if release is None:
        yield from (era.first for era in ERAS[1 if newer else 0 :])
    elif release.series >= _IMAGE_IN_VMALLOC:
        yield max(release.series, ERAS[0].first)


def _sizes(era: Era) -> Iterator[tuple[int, int]]:
    return ((shift, bits) for shift, every in era.va_bits.items() for bits in every)


def _map(era: Era, shift: int, bits: int, series: Version, kasan: KasanMode | None) -> PossibleMap:
    found = regions(era, shift, bits, STRUCT_PAGE_SIZE)
    linear_end = found.linear_end
    if kasan is not None and series >= ERAS[1].first:
        linear_end = min(linear_end, kasan_shadow(kasan, 1 << shift, bits, bits, series).start)
    values = {
        "page_size": 1 << shift,
        "va_bits": bits,
        "va_bits_actual": bits,
        "page_offset": found.page_offset,
        "linear_end": linear_end,
        "vmemmap_start": found.vmemmap_start,
        "vmemmap_end": found.vmemmap_end,
        "struct_page_size": STRUCT_PAGE_SIZE,
    }
    layout = KernelLayout({key: Fact(value, "tried", Precision.INFERRED) for key, value in values.items()})
    return PossibleMap(layout, areas_of(layout, series, kasan))


def _fits(possible: PossibleMap, report: Report, series: Version, kasan: KasanMode | None) -> bool:
    """Whether nothing in a report contradicts the map."""
    layout = possible.layout
    lowest = (1 << 64) - (1 << layout.va_bits_actual)
    level = report.esr.level if report.esr is not None else None
    if level is not None and level < layout.granule.first_level(layout.va_bits_actual):
        return False
    if report.address is not None and report.walk is not None and lowest > report.address.value >= 1 << 63:
        return False
    if report.image_pc is not None and possible.area_of(report.image_pc) not in {"modules", "vmalloc"}:
        return False
    stacks = [report.registers[name] for name in ("sp", "x29") if report.registers.get(name, 0) >> 55 & 1]
    areas = {possible.area_of(stack | 0xFF << 56) for stack in stacks}
    wrong = {"none", "vmemmap", "kasan_shadow"}
    if series >= _STACKS_IN_VMALLOC and kasan is None:
        wrong.add("linear")
    return not areas & wrong

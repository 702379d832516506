"""The layout of the kernel of one boot of a log: its memory map, KASAN's shadow in it, and the kernel image."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from parsers.address_space import Area, KasanMode, areas_of, kasan_shadow
from parsers.dmesg import Kind
from parsers.expressions import expression
from parsers.layout import ERAS, Fact, Precision, regions
from rules.model.layout.from_counters import page_size_of_boot
from rules.model.layout.from_log import (
    add_built_bits,
    add_phys_offset,
    add_pointers,
    add_report,
    add_struct_page_size,
    guess_phys_offset,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from parsers.dmesg import Boot
    from parsers.layout import KernelLayout
    from parsers.oops import Panic, Report
    from parsers.uname import KernelRelease
    from rules.model.layout.builder import LayoutBuilder

__all__ = ["add_boot", "areas_of_boot", "image_of", "is_newer", "kasan_of", "layout_of_boot", "release_of_map"]

Version = tuple[int, int]


def layout_of_boot(
    path: str,
    boot: Boot,
    panics: Sequence[Panic],
    reports: Sequence[Report],
    builder: LayoutBuilder,
    release: KernelRelease | None,
    kasan: KasanMode | None,
) -> KernelLayout:
    """The layout of the kernel of one boot."""
    for report in reports:
        add_report(builder, report, path)
    add_pointers(builder, reports)
    _add_page_size(builder, reports, release)
    add_boot(builder, boot, path)
    add_built_bits(builder, reports, panics, release, path)
    series = release_of_map(release, builder.get("page_size"), builder.get("va_bits_actual"), reports)
    add_struct_page_size(builder, reports, series, path)
    if release is not None and series is not None:
        builder.release(release if series == release.series else replace(release, version=(*series, 0)))
    else:
        builder.only_era()
        series = _SINCE if _add_lower_half(builder, reports) else None
    _end_at_shadow(builder, series, kasan)
    add_phys_offset(builder, reports, panics, release, path)
    layout = builder.build()
    guess = None if layout.knows("phys_offset") else guess_phys_offset(layout, reports, boot, release)
    if guess is not None:
        builder.add("phys_offset", *guess, Precision.INFERRED)
        layout = builder.build()
    return layout


def add_boot(builder: LayoutBuilder, boot: Boot, path: str) -> None:
    """The page size that the messages of a boot show."""
    found = page_size_of_boot(boot)
    if found is not None:
        builder.add("page_size", found[0], f"size and order of a hash table, {path}:{found[1]}", Precision.DERIVED)


def _add_page_size(builder: LayoutBuilder, reports: Sequence[Report], release: KernelRelease | None) -> None:
    """Page size and address bits by a struct page that is printed with its PFN, where only one of them fits both."""
    shown = next((one for one in reports if one.page is not None and one.pfn is not None), None)
    if shown is None or shown.page is None or shown.pfn is None or release is None:
        return
    if {"page_size", "va_bits_actual", "va_bits"} & builder.facts.keys():
        return
    era = next((era for era in ERAS if era.has(release.series)), None)
    fitting = []
    for shift, every in ({} if era is None else era.va_bits).items():
        for bits in every:
            if era is not None and bits <= 48:
                area = regions(era, shift, bits, STRUCT_PAGE_SIZE)
                index, odd = divmod(shown.page - area.vmemmap_start, STRUCT_PAGE_SIZE)
                offset = (shown.pfn - index) << shift
                aligned = offset % (1 << 29 if shift == 16 else 1 << 30) == 0
                if (
                    area.vmemmap_start <= shown.page < area.vmemmap_end
                    and not odd
                    and aligned
                    and 0 <= offset < 1 << 48
                ):
                    fitting.append((1 << shift, bits))
    if len(fitting) == 1:
        source = f"the struct page that is printed with its PFN, line {shown.quotes['page'].line}"
        builder.add("page_size", fitting[0][0], source, Precision.INFERRED)
        builder.add("va_bits_actual", fitting[0][1], source, Precision.INFERRED)


# What only newer kernels print: since 5.8, 5.12 and 6.7 (arch/arm64/mm/fault.c, arch/arm64/kernel/process.c).
_NEWER = expression(
    r"\], p4d=|\bp4d=|\bFSC = 0x|\bISS2 = 0x|\bESR = 0x0{8}|\bx29: [0-9a-f]{16} x28: [0-9a-f]{16} x27: "
)


_SINCE = (5, 8)


def is_newer(reports: Sequence[Report]) -> bool:
    """Whether a report has fields that only kernels since 5.8 print."""
    return any(_NEWER.search(report.text) for report in reports)


def _add_lower_half(builder: LayoutBuilder, reports: Sequence[Report]) -> bool:
    """The linear map of a kernel whose release is not known and that is newer than 5.4: it begins at -2^VA_BITS.

    Whether it is such a kernel.
    """
    bits = builder.get("va_bits_actual")
    shown = next((report for report in reports if _NEWER.search(report.text)), None)
    if bits is None or shown is None or "page_offset" in builder.facts or bits > 48:
        return False
    source = f"fields that only kernels since 5.8 print, line {shown.line}"
    builder.add("va_bits", bits, source, Precision.INFERRED)
    builder.add("page_offset", (1 << 64) - (1 << bits), source, Precision.INFERRED)
    builder.add("linear_end", (1 << 64) - (1 << (bits - 1)), source, Precision.INFERRED)
    return True


def _end_at_shadow(builder: LayoutBuilder, series: Version | None, kasan: KasanMode | None) -> None:
    """With KASAN the linear map ends where the shadow begins (5.4 and later)."""
    page, va_bits, end = builder.get("page_size"), builder.get("va_bits"), builder.get("linear_end")
    if kasan is None or series is None or series < ERAS[1].first or None in {page, va_bits, end}:
        return
    actual = builder.get("va_bits_actual") or va_bits
    shadow = kasan_shadow(kasan, page or 0, va_bits or 0, actual or 0, series)
    if shadow.start < (end or 0):
        builder.facts["linear_end"] = Fact(shadow.start, f"KASAN ({kasan}) in the log", Precision.INFERRED)


# Instrumented code that looks at the shadow. KASAN of hardware tags has none.
_SHADOW_READERS = ("kasan_check_range", "check_memory_region", "__kasan_check_", "__asan_", "kasan_poison")
# kasan_non_canonical_hook() (5.12 and later) names the bytes that a byte of shadow stands for.
_SHADOWED = expression(r"\bKASAN: [\w -]{4,60} in range \[0x([0-9a-f]{1,16})-0x([0-9a-f]{1,16})\]")


def kasan_of(boot: Boot, reports: Sequence[Report]) -> KasanMode | None:
    """The mode of KASAN that the boot or its reports name, None for none and for that of hardware tags."""
    for message in boot.of(Kind.KASAN):
        tags = "sw-tags" in message.text
        return None if "hw-tags" in message.text else KasanMode.SW_TAGS if tags else KasanMode.GENERIC
    for report in reports:
        near = (report.function, report.lr.partition("+")[0], *report.trace[:3])
        if (found := _SHADOWED.search(report.text)) is not None:
            return KasanMode.SW_TAGS if int(found[2], 16) - int(found[1], 16) == 0xF else KasanMode.GENERIC
        if any(name.startswith("__hwasan_") for name in near):
            return KasanMode.SW_TAGS
        if any(name.startswith(_SHADOW_READERS) for name in near):
            tagged = report.address is not None and report.address.tag is not None
            return KasanMode.SW_TAGS if tagged else KasanMode.GENERIC
    return None


IMAGE_BYTES = 32 << 20
"""Taken for the size of the kernel image where the log does not say it."""
_PART = expression(r"(\d{1,9})K (?:kernel code|rwdata|rodata|init|bss)")


def areas_of_boot(layout: KernelLayout, series: Version | None, kasan: KasanMode | None) -> tuple[Area, ...]:
    """The areas beside memory and struct pages; KASAN's shadow alone where the era is not known."""
    if series is not None:
        return areas_of(layout, series, kasan)
    page, bits = layout.get("page_size"), layout.get("va_bits")
    if kasan is None or page is None or bits is None:
        return ()
    return (kasan_shadow(kasan, page, bits, layout.va_bits_actual, _SINCE),)


def image_of(boot: Boot, panics: Sequence[Panic], areas: tuple[Area, ...]) -> Area | None:
    """Where the kernel image is: by the offset that a panic prints, or at its link address if it was not moved."""
    parts = [int(part) << 10 for message in boot.of(Kind.IMAGE_SIZE)[:1] for part in _PART.findall(message.text)]
    size = sum(parts) or IMAGE_BYTES
    for panic in panics:
        if panic.image is not None:
            return Area("image", panic.image, panic.image + size)
    vmalloc = next((area for area in areas if area.name == "vmalloc"), None)
    stays = boot.kaslr is False or any(panic.kernel_offset is None and panic.phys_offset is None for panic in panics)
    return Area("image", vmalloc.start, vmalloc.start + size) if vmalloc is not None and stays else None


def release_of_map(
    release: KernelRelease | None, page: int | None, bits: int | None, reports: Sequence[Report]
) -> Version | None:
    """The (major, minor) whose memory map a kernel has: its release's, or that of the next where registers show it.

    Development kernels, -next above all, carry the release of the series before.  VMEMMAP_START in a register is that
    of one era only.
    """
    if release is None:
        return None
    own = next((number for number, era in enumerate(ERAS) if era.has(release.series)), None)
    if page is None or bits is None or own is None or not _is_development(release):
        return release.series
    values = {value for report in reports for value in report.registers.values()}
    shift = page.bit_length() - 1
    starts = [
        regions(era, shift, bits, STRUCT_PAGE_SIZE).vmemmap_start if bits in era.va_bits[shift] else 0 for era in ERAS
    ]
    following = own + 1
    if starts[own] in values or following >= len(ERAS) or starts[following] not in values:
        return release.series
    return ERAS[following].first


STRUCT_PAGE_SIZE = 64


def _is_development(release: KernelRelease) -> bool:
    """A release candidate, -next, or a kernel that was built from a work tree in which patches were added."""
    return release.rc is not None or "-rc" in release.extra or "next" in release.extra

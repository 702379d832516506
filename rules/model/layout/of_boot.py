"""The layout of the kernel of one boot of a log: its memory map, KASAN's shadow in it, and the kernel image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.address_space import Area, KasanMode, kasan_shadow
from parsers.dmesg import Kind
from parsers.layout import ERAS, Fact, Precision
from rules.model.layout.from_log import (
    add_built_bits,
    add_phys_offset,
    add_pointers,
    add_report,
    guess_phys_offset,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from parsers.dmesg import Boot
    from parsers.layout import KernelLayout
    from parsers.oops import Panic, Report
    from parsers.uname import KernelRelease
    from rules.model.layout.builder import LayoutBuilder

__all__ = ["image_of", "kasan_of", "layout_of_boot"]


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
    add_built_bits(builder, panics, path)
    if release is not None:
        builder.release(release)
    else:
        builder.only_era()
    _end_at_shadow(builder, release, kasan)
    add_phys_offset(builder, reports, panics, release, path)
    layout = builder.build()
    guess = None if layout.knows("phys_offset") else guess_phys_offset(layout, reports, boot, release)
    if guess is not None:
        builder.add("phys_offset", *guess, Precision.INFERRED)
        layout = builder.build()
    return layout


def _end_at_shadow(builder: LayoutBuilder, release: KernelRelease | None, kasan: KasanMode | None) -> None:
    """With KASAN the linear map ends where the shadow begins (5.4 and later)."""
    page, va_bits, end = builder.get("page_size"), builder.get("va_bits"), builder.get("linear_end")
    if kasan is None or release is None or release.series < ERAS[1].first or None in {page, va_bits, end}:
        return
    actual = builder.get("va_bits_actual") or va_bits
    shadow = kasan_shadow(kasan, page or 0, va_bits or 0, actual or 0, release.series)
    if shadow.start < (end or 0):
        builder.facts["linear_end"] = Fact(shadow.start, f"KASAN ({kasan}) in the log", Precision.INFERRED)


# Instrumented code that looks at the shadow. KASAN of hardware tags has none.
_SHADOW_READERS = ("kasan_check_range", "check_memory_region", "__kasan_check_", "__asan_", "__hwasan_", "kasan_poison")


def kasan_of(boot: Boot, reports: Sequence[Report]) -> KasanMode | None:
    """The mode of KASAN that the boot or its reports name, None for none and for that of hardware tags."""
    for message in boot.of(Kind.KASAN):
        return (
            None if "hw-tags" in message.text else KasanMode.SW_TAGS if "sw-tags" in message.text else KasanMode.GENERIC
        )
    for report in reports:
        near = (report.function, report.lr.partition("+")[0], *report.trace[:3])
        if any(name.startswith("__hwasan_") for name in near):
            return KasanMode.SW_TAGS
        if (
            any(name.startswith(_SHADOW_READERS) for name in near)
            or "\nKASAN: " in report.text
            or "] KASAN: " in report.text
        ):
            tagged = report.address is not None and report.address.tag is not None and not report.between
            return KasanMode.SW_TAGS if tagged else KasanMode.GENERIC
    return None


IMAGE_BYTES = 64 << 20
"""At most this much is taken for the kernel image where the log does not say how large it is."""


def image_of(boot: Boot, panics: Sequence[Panic], reports: Sequence[Report], areas: tuple[Area, ...]) -> Area | None:
    """Where the kernel image is: by the panic's offset, an address of code that was printed, or its link address."""
    for panic in panics:
        if panic.image is not None:
            return Area("image", panic.image, panic.image + IMAGE_BYTES)
    for report in reports:
        if report.image_pc is not None and not report.module:
            return Area("image", report.image_pc - IMAGE_BYTES // 2, report.image_pc + IMAGE_BYTES // 2)
    vmalloc = next((area for area in areas if area.name == "vmalloc"), None)
    stays = boot.kaslr is False or any(panic.kernel_offset is None and panic.phys_offset is None for panic in panics)
    return Area("image", vmalloc.start, vmalloc.start + IMAGE_BYTES) if vmalloc is not None and stays else None

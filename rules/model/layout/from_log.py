"""The kernel's address layout from its log alone: what an oops and the boot say, and PHYS_OFFSET by four ways.

In order of trust: the panic notifier's "PHYS_OFFSET:" (arch/arm64/kernel/setup.c); an oops in the linear map that
prints the descriptor of its own address; the registers of an oops, which often hold the page frame number, the physical
address or ``vmemmap`` beside the struct page that faulted; where the memory of the boot began, if the linear map is
not randomised (arm64_memblock_init() in arch/arm64/mm/init.c; randomisation left in 6.16, 1db780bafa4c).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import GRANULES
from parsers.layout import ERAS, MASK, KernelLayout, Precision, regions
from rules.model.layout.builder import STRUCT_PAGE_SIZES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from parsers.dmesg import Boot
    from parsers.oops import Panic, Report
    from parsers.uname import KernelRelease
    from rules.model.layout.builder import LayoutBuilder

__all__ = [
    "add_built_bits",
    "add_phys_offset",
    "add_pointers",
    "add_report",
    "add_struct_page_size",
    "guess_phys_offset",
]

PHYSICAL_BITS = 52
_ONE_PAGE_SIZE = {39: 4096, 42: 65536}
_ENOUGH = 4
_FEW_PAGES = 0x100
"""Page frame numbers below this are any small numbers."""
MAX_CANDIDATES = 1 << 16
_NOT_RANDOMISED = (6, 16)
_LINEAR_FORMULA = (5, 10)  # 7bc1a0f9e176: before it, 52-bit kernels shifted the map by a variable
_BELOW_52_BITS = (2**64 - 2**52, 2**64 - 2**51)
"""PHYS_OFFSET of kernels built for 52-bit addresses that run with fewer (7bc1a0f9e176, 5.10); KASLR moves it less."""
_DESCRIPTOR_BITS = 0x0000_FFFF_FFFF_F000
_LPA2_BITS = 0x0003_FFFF_FFFF_F000


def add_report(builder: LayoutBuilder, report: Report, path: str) -> None:
    """Page size and address bits that an oops prints (``4k pages, 48-bit VAs``)."""
    quote = report.quotes.get("pgtable")
    wide = report.user_table and report.va_bits == 52  # 5.0 to 5.3: of programs alone
    if quote is None or report.page_size is None or wide:
        return
    source = _place(path, quote.line)
    builder.add("page_size", report.page_size, source, Precision.EXACT)
    builder.add("va_bits_actual", report.va_bits, source, Precision.EXACT)


def add_built_bits(
    builder: LayoutBuilder,
    reports: Sequence[Report],
    panics: Sequence[Panic],
    release: KernelRelease | None,
    path: str,
) -> None:
    """CONFIG_ARM64_VA_BITS where nothing states it and the log shows a 52-bit kernel.

    A panic prints its PHYS_OFFSET, or a register of an oops holds its VMEMMAP_START.
    """
    if builder.get("va_bits") is not None:
        return
    lines = [panic.line for panic in panics if panic.phys_offset is not None and _is_shifted(panic.phys_offset)]
    if lines:
        builder.add("va_bits", 52, f"PHYS_OFFSET, {_place(path, lines[0])}", Precision.DERIVED)
        return
    start = _wide_vmemmap_start(builder, release)
    for report in reports:
        name = next((name for name, value in report.registers.items() if value == start), "")
        if name:
            source = f"{name} holds VMEMMAP_START of 52 bits, {_place(path, report.line)}"
            builder.add("va_bits", 52, source, Precision.INFERRED)
            return


def _wide_vmemmap_start(builder: LayoutBuilder, release: KernelRelease | None) -> int | None:
    """VMEMMAP_START if the kernel was built for 52 bits and runs with fewer; None where it cannot be identified."""
    page_size, actual = builder.get("page_size"), builder.get("va_bits_actual")
    if page_size not in GRANULES or actual is None or release is None or not _after_5_10(release):
        return None
    shift = page_size.bit_length() - 1
    era = next((era for era in ERAS if era.has(release.series)), None)
    if era is None or 52 not in era.va_bits[shift] or actual != (47 if shift == 14 else 48):
        return None
    size = builder.get("struct_page_size") or STRUCT_PAGE_SIZES[0]
    start = regions(era, shift, 52, size, actual).vmemmap_start
    negated = (1 << 64) - start
    return start if negated & (negated - 1) else None  # a power of two, as up to 6.8, may as well be a mask


def add_struct_page_size(
    builder: LayoutBuilder, reports: Sequence[Report], series: tuple[int, int] | None, path: str
) -> None:
    """sizeof(struct page) where the registers of an oops show that it is not 64.

    Page flags that do not fit beside KASAN's tag, node and zone make it larger (_last_cpupid, include/linux/mm_types.h;
    80 bytes), and the area of struct pages begins below that of 64 bytes, where vmalloc would end.  Two things show
    it: a register that holds VMEMMAP_START of the size, unless that is a power of two, which may as well be a mask; a
    struct page beside its page frame number, which differs from the place in the area by a PHYS_OFFSET that can be.
    """
    page_size, bits = builder.get("page_size"), builder.get("va_bits") or builder.get("va_bits_actual")
    era = next((era for era in ERAS if series is not None and era.has(series)), None)
    if builder.get("struct_page_size") is not None or page_size not in GRANULES or bits is None or era is None:
        return
    shift, actual = page_size.bit_length() - 1, builder.get("va_bits_actual")
    if bits not in era.va_bits[shift]:
        return
    areas = {size: regions(era, shift, bits, size, actual) for size in STRUCT_PAGE_SIZES}
    starts = {size: area.vmemmap_start for size, area in areas.items()}
    usual = starts.pop(STRUCT_PAGE_SIZES[0])
    larger = {size: start for size, start in starts.items() if start < usual}
    for report in reports:
        address = report.address.value if report.address is not None else 0
        around = [size for size, start in larger.items() if start <= address < usual]
        numbered = {size: said for size in around if (said := _numbered(report, larger[size], usual, size, shift))}
        based = {size: said for size in around if (said := _based(report, larger[size]))}
        found = numbered if len(numbered) == 1 else based if len(based) == 1 else {}
        for size, said in found.items():
            source = f"{said}, {_place(path, report.line)}"
            builder.add("struct_page_size", size, source, Precision.INFERRED)
            return


def _based(report: Report, start: int) -> str:
    """Which register holds VMEMMAP_START."""
    negated = (1 << 64) - start
    if not negated & (negated - 1):
        return ""
    name = next((name for name, value in report.registers.items() if value == start), "")
    return name and f"{name} holds VMEMMAP_START"


def _numbered(report: Report, start: int, end: int, size: int, shift: int) -> str:
    """Which registers hold a struct page and its page frame number, or the next, if struct pages had this size.

    Of the address that faulted any byte of the struct page counts.
    """
    unit = (1 << 29 if shift == 16 else 1 << 30) >> shift
    address = report.address.value if report.address is not None else 0
    pointers = {"the address": address - (address - start) % size, **report.registers}
    for name, value in pointers.items():
        index, odd = divmod(value - start, size)
        if odd or not start < value < end or index < _FEW_PAGES:
            continue
        for other, number in report.registers.items():
            if index <= number < 1 << (PHYSICAL_BITS - shift) and (number - index) % unit <= 1:
                return f"{other} holds the page frame number of {name}"
    return ""


def add_pointers(builder: LayoutBuilder, reports: Sequence[Report]) -> None:
    """Page size and address bits by the kernel addresses in the registers, where the kernel printed neither.

    39 bits mean 4K pages, 42 bits 64K; with 48 bits every page size is possible.
    """
    if builder.get("page_size") is not None or builder.get("va_bits_actual") is not None:
        return
    for report in reports:
        values = [value | 0xFF << 56 for value in report.registers.values() if value >> 55 & 1]
        values += [report.image_pc] if report.image_pc is not None else []
        pointers = {value for value in values if value < MASK - (1 << 32)}
        for bits, page_size in _ONE_PAGE_SIZE.items():
            lowest = (1 << 64) - (1 << bits)
            if len(pointers) >= _ENOUGH and all(lowest <= one < lowest + (3 << bits - 2) for one in pointers):
                source = f"kernel addresses in the registers, line {report.line}"
                builder.add("page_size", page_size, source, Precision.INFERRED)
                builder.add("va_bits_actual", bits, source, Precision.INFERRED)
                return


def add_phys_offset(
    builder: LayoutBuilder,
    reports: Sequence[Report],
    panics: Sequence[Panic],
    release: KernelRelease | None,
    path: str,
) -> None:
    """PHYS_OFFSET where the log prints it, or the descriptor of a linear address."""
    for panic in panics:
        if panic.phys_offset is not None:
            offset = panic.phys_offset
            if _is_shifted(offset):  # the layout may count from the bits in use
                offset += (1 << 52) - (1 << (builder.get("va_bits") or 52))
            builder.add("phys_offset", offset & MASK, _place(path, panic.line), Precision.EXACT)
    layout = builder.build()
    for report in reports:
        value = _from_descriptor(report, layout, release)
        if value is not None:
            source = f"the descriptor of a linear address, {_place(path, report.quotes['walk'].line)}"
            builder.add("phys_offset", value, source, Precision.DERIVED)
    for report in reports:
        for value, source in _printed(report, layout):
            builder.add("phys_offset", value, f"{source}, {_place(path, report.line)}", Precision.DERIVED)


def guess_phys_offset(
    layout: KernelLayout, reports: Sequence[Report], boot: Boot | None, release: KernelRelease | None
) -> tuple[int, str] | None:
    """PHYS_OFFSET and what supports it, None where nothing does or two things disagree."""
    if not layout.knows("page_size", "page_offset", "linear_end"):
        return None
    found = [guess for report in reports if (guess := _from_registers(report, layout)) is not None]
    found += _from_boot(boot, release, layout)
    found += [guess for report in reports if (guess := _from_pointers(report, boot, layout)) is not None]
    return found[0] if len({value for value, _ in found}) == 1 else None


def _place(path: str, line: int) -> str:
    return f"{path.rpartition('/')[2]}:{line}"


def alignment(layout: KernelLayout) -> int:
    """What PHYS_OFFSET is a multiple of: ARM64_MEMSTART_ALIGN (arch/arm64/include/asm/kernel-pgtable.h)."""
    return max(1 << 29 if layout.page_size == 65536 else 1 << 30, 1 << (layout.get("section_size_bits") or 0))


def _is_shifted(phys_offset: int) -> bool:
    return _BELOW_52_BITS[0] <= phys_offset < _BELOW_52_BITS[1]


def _plausible(value: int, layout: KernelLayout) -> bool:
    """Whether it is aligned and lays some of the linear map over physical addresses that the kernel's tables can hold.

    It may be negative: the map randomised, or a kernel built for 52-bit addresses that runs with fewer.
    """
    if value % alignment(layout) or 1 << PHYSICAL_BITS <= value < 2**64 - (1 << PHYSICAL_BITS):
        return False
    if not layout.knows("page_offset", "linear_end"):
        return True
    first, end = _mapped(value, layout)
    return first < 1 << _physical_bits(layout) and end > 0


def _mapped(phys_offset: int, layout: KernelLayout) -> tuple[int, int]:
    """The physical addresses that the linear map spans, half-open; the first may be negative."""
    signed = phys_offset - (1 << 64) if phys_offset >> 63 else phys_offset
    return signed + layout.linear_start - layout.page_offset, signed + layout.linear_end - layout.page_offset


def _physical_bits(layout: KernelLayout) -> int:
    """Bits of output address: 4K and 16K descriptors have more than 48 with LPA2 only, whose tables have 52 bits."""
    return PHYSICAL_BITS if layout.page_size == 65536 or layout.va_bits_actual == 52 else 48


def _agrees(phys_offset: int, report: Report, layout: KernelLayout) -> bool:
    """Whether the report's own page tables are in the linear map, and some linear address in a register is memory.

    arm64_memblock_init() removes the memory that the linear map cannot reach, so every table is in reach.
    """
    first, end = _mapped(phys_offset, layout)
    if not all(first <= table < end for table in _tables(report, layout)):
        return False
    linear = [value - layout.page_offset for value in report.registers.values() if layout.region_of(value) == "linear"]
    signed = first - (layout.linear_start - layout.page_offset)
    return not linear or any(0 <= signed + offset < 1 << _physical_bits(layout) for offset in linear)


def _tables(report: Report, layout: KernelLayout) -> Iterator[int]:
    """Physical addresses of the page tables that a report names."""
    quote = report.quotes.get("pgtable")
    if report.pgd is not None and quote is not None and "pgdp=" in quote.text:  # "pgdp = " is hashed (up to 5.0)
        yield report.pgd
    if report.walk is not None:
        for _, descriptor in report.walk.entries[:-1]:
            if descriptor & 3 == 3:
                yield _output_address(descriptor, layout)


def _printed(report: Report, layout: KernelLayout) -> Iterator[tuple[int, str]]:
    """PHYS_OFFSET from a struct page that is printed with its number, or a table page that the walk could not read."""
    if report.page is not None and report.pfn is not None and layout.knows("vmemmap_start", "struct_page_size"):
        index, odd = divmod(report.page - layout.vmemmap_start, layout.struct_page_size)
        value = ((report.pfn - index) << layout.page_shift) & MASK
        if layout.region_of(report.page) == "vmemmap" and not odd and _plausible(value, layout):
            yield value, "the struct page that is printed with its PFN"
    if (
        report.walk is None
        or not report.walk.is_cut
        or not report.nested
        or not layout.knows("page_offset", "page_size")
    ):
        return
    page_mask = layout.page_size - 1
    pa = _output_address(report.walk.last[1], layout)
    value = (pa - ((report.nested[0] & ~page_mask) - layout.page_offset)) & MASK
    if layout.region_of(report.nested[0]) == "linear" and _plausible(value, layout):
        yield value, "the page table that the kernel could not read"


def _from_descriptor(report: Report, layout: KernelLayout, release: KernelRelease | None) -> int | None:
    """A linear address and the leaf that maps it, even if that is not valid, differ by PHYS_OFFSET."""
    if report.walk is None or report.address is None or not layout.knows("page_size", "page_offset", "linear_end"):
        return None
    va, (name, descriptor) = report.address.value, report.walk.last
    shifted = layout.va_bits_actual == 52 and layout.page_size == 65536 and not _after_5_10(release)
    if layout.region_of(va) != "linear" or not descriptor or shifted:
        return None
    level = {"pte": 3, "pmd": 2, "pud": 1}.get(name)
    is_table = level != 3 and descriptor & 2
    if level is None or is_table:
        return None
    offset_mask = layout.granule.span(level) - 1
    pa = (_output_address(descriptor, layout) & ~offset_mask) | (va & offset_mask)
    value = (pa - (va - layout.page_offset)) & MASK
    return value if _plausible(value, layout) else None


def _after_5_10(release: KernelRelease | None) -> bool:
    return release is not None and release.series >= _LINEAR_FORMULA


def _output_address(descriptor: int, layout: KernelLayout) -> int:
    """The output address of a leaf: LPA2 keeps bits 51:50 in 9:8 (4K, 16K), 52-bit 64K tables 51:48 in 15:12."""
    if layout.page_size == 65536:
        return descriptor & _DESCRIPTOR_BITS & ~0xFFFF | (descriptor >> 12 & 0xF) << 48
    if layout.va_bits_actual == 52:
        return descriptor & _LPA2_BITS | (descriptor >> 8 & 3) << 50
    return descriptor & _DESCRIPTOR_BITS


def _from_registers(report: Report, layout: KernelLayout) -> tuple[int, str] | None:
    """What several registers say alike of the page whose struct page faulted.

    VMEMMAP_START itself and the offset of the struct page from it support no value alone: pfn_to_page() adds the two
    after it subtracted memstart_addr, whatever that is.
    """
    if report.address is None or layout.region_of(report.address.value) != "vmemmap":
        return None
    index = (report.address.value - layout.vmemmap_start) // layout.struct_page_size
    votes: dict[int, dict[str, str]] = {}
    constants = {layout.vmemmap_start, index * layout.struct_page_size}
    named: set[int] = set()
    for name, value in report.registers.items():
        for offset, meaning in _readings(value, index, layout):
            if _plausible(offset, layout) and _agrees(offset, report, layout):
                votes.setdefault(offset, {}).setdefault(name, f"{name} holds {meaning}")
                named |= set() if value in constants else {offset}
    votes = {offset: names for offset, names in votes.items() if offset in named}
    ranking = Counter({offset: len(names) for offset, names in votes.items()}).most_common(2)
    if not ranking or ranking[0][1] < 2 or (len(ranking) > 1 and ranking[1][1] == ranking[0][1]):
        return None
    offset = ranking[0][0]
    return offset, f"registers of the oops: {', '.join(votes[offset].values())}"


def _readings(value: int, index: int, layout: KernelLayout) -> Iterator[tuple[int, str]]:
    """The values of PHYS_OFFSET if the register holds the page's number, its address, or something like them."""
    shift, size = layout.page_shift, layout.struct_page_size
    # The offset from VMEMMAP_START of a kernel that was built for 52 bits, and the page index in its linear map.
    wide = index + ((1 << 52) - (1 << layout.va_bits_actual) >> shift)
    if layout.va_bits_actual < 52 and value in {wide, wide * size, wide << shift}:
        return
    if (layout.vmemmap_start - value) % size == 0 and value >> 63:
        yield ((layout.vmemmap_start - value) // size << shift) & MASK, "vmemmap"
    if 0x1000 <= value < 1 << (PHYSICAL_BITS - shift):
        yield ((value - index) << shift) & MASK, "the page frame number"
    if layout.page_size <= value < 1 << PHYSICAL_BITS and value % layout.page_size == 0:
        yield (value - (index << shift)) & MASK, "the physical address"
    if 0x1000 * size <= value < 1 << (PHYSICAL_BITS - shift + 7) and value % size == 0:
        yield ((value // size - index) << shift) & MASK, "the offset into vmemmap"


def _from_boot(boot: Boot | None, release: KernelRelease | None, layout: KernelLayout) -> list[tuple[int, str]]:
    """The lowest memory, rounded down, where the linear map was not randomised."""
    if boot is None or not boot.memory.start.size:
        return []
    if boot.kaslr is not False and (release is None or release.series < _NOT_RANDOMISED):
        return []
    lowest = int(boot.memory.start.min())
    first = layout.linear_start - layout.page_offset  # not 0 if built for 52 bits and run with fewer
    value = (lowest // alignment(layout) * alignment(layout) - first) & MASK
    return [(value, f"memory of the boot log begins at {lowest:#x}")]


def _from_pointers(report: Report, boot: Boot | None, layout: KernelLayout) -> tuple[int, str] | None:
    """The one value that puts all linear addresses among the registers into the memory of the boot."""
    if boot is None or not boot.memory.start.size:
        return None
    values = {value | 0xFF << 56 for value in report.registers.values() if value >> 55 & 1}
    offsets = np.array(
        sorted(value - layout.page_offset for value in values if layout.region_of(value) == "linear"), dtype=np.int64
    )
    if offsets.size < 3:
        return None
    unit = alignment(layout)
    start, last = boot.memory.start.astype(np.int64), boot.memory.last.astype(np.int64)
    first = -(-(int(start.min()) - int(offsets[0])) // unit)
    final = (int(last.max()) - int(offsets[-1])) // unit
    if not 0 <= final - first < MAX_CANDIDATES:
        return None
    candidates = np.arange(first, final + 1, dtype=np.int64) * unit
    at = candidates[:, None] + offsets[None, :]
    row = np.searchsorted(start, at, side="right") - 1
    fits = ((row >= 0) & (at <= last[np.maximum(row, 0)])).all(axis=1)
    if np.count_nonzero(fits) != 1:
        return None
    return int(candidates[fits][0]) & MASK, "only so do the registers of the oops point into the memory of the boot log"

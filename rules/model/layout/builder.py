"""The kernel's address layout from everything that was captured, in order of trust, each value with its source.

VMCOREINFO, then explicit values, then config and sysfs, then the dump's own markers, then
inference.  Values that two sources give differently are noted; the more trusted one stands.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import GRANULES, Attr, LevelWord
from parsers.layout import ERAS, Era, Fact, KernelLayout, Precision, Regions, regions
from parsers.ranges import Ranges
from parsers.records import dataclass
from rules.model.memory.regions import clip

if TYPE_CHECKING:
    from collections.abc import Container, Iterator
    from collections.abc import Mapping as Dict

    from parsers.kconfig import Kconfig
    from parsers.mapping import I64, Bool
    from parsers.ptdump import PageTableDump
    from parsers.uname import KernelRelease
    from parsers.vmcoreinfo import VmcoreInfo

__all__ = ["STRUCT_PAGE_SIZES", "LayoutBuilder"]

STRUCT_PAGE_SIZES = (64, 80, 96, 112, 128, 72, 56)
"""Sizes that arm64 kernels can have, most common first; 64 on nearly every kernel."""

_BITS = range(36, 53)
_KERNEL_PAGES = range(0xFFF0_0000_0000_0000, 1 << 64, 4096)  # up to 52 bits of address
_POSSIBLE: Dict[str, Container[int]] = {
    "page_size": (4096, 16384, 65536),
    "va_bits": _BITS,
    "va_bits_actual": _BITS,
    "struct_page_size": range(32, 257),
    "section_size_bits": range(20, 41),
    "block_size": tuple(1 << bits for bits in range(20, 46)),
    "linear_end": range((1 << 64) + 1),  # the top of the address space up to 5.3
    "phys_offset": range(0, 1 << 64, 4096),  # modulo 2**64
    "page_offset": _KERNEL_PAGES,
    "vmemmap_start": _KERNEL_PAGES,
    "vmemmap_end": _KERNEL_PAGES,
}
"""What arm64 can have; every other fact is an address."""
_ADDRESSES = range(1 << 64)

_PLAIN_VENDORS = ("", "debian", "ubuntu", "fedora")
"""Vendors that do not move the memory map of one series to another."""

_LINEAR_START = ("Linear Mapping start", "Linear Mapping")
_LINEAR_END = ("Linear Mapping end", "Kasan shadow start")


@dataclass(frozen=True, slots=True)
class _Candidate:
    era: Era
    page_size: int
    va_bits: int
    va_actual: int
    struct_page_size: int
    regions: Regions


class LayoutBuilder:
    """Collects facts, first come first served: add the most trusted source first."""

    def __init__(self) -> None:
        self.facts: dict[str, Fact] = {}
        self.notes: list[str] = []
        self.foreign = ""
        """Why the dump is of another kernel than what was known before it."""
        self.linear_ends: list[int] = []
        """Addresses of the dump's markers that no linear map crosses: its end, and KASAN's shadow."""

    def add(self, key: str, value: int | None, source: str, precision: Precision = Precision.DERIVED) -> None:
        """A value from a source; ignored with a note where it cannot be or a more trusted source differs."""
        if value is None:
            return
        if value not in _POSSIBLE.get(key, _ADDRESSES):
            self.notes.append(f"{key}: {source} says {hex(value)[:24]}, which cannot be")
            return
        known = self.facts.setdefault(key, Fact(value, source, precision))
        if known.value != value:
            self.notes.append(f"{key}: {known.source} says {known.value:#x}, {source} says {value:#x}")

    def copy(self) -> LayoutBuilder:
        """Another builder with the same facts."""
        made = LayoutBuilder()
        made.facts, made.notes, made.foreign = dict(self.facts), list(self.notes), self.foreign
        return made

    def get(self, key: str) -> int | None:
        """The value so far."""
        fact = self.facts.get(key)
        return None if fact is None else fact.value

    def explicit(self, values: Dict[str, int]) -> None:
        """Values given on the command line."""
        for key, value in values.items():
            self.add(key, value, "--layout", Precision.EXACT)

    def vmcoreinfo(self, info: VmcoreInfo) -> None:
        """What VMCOREINFO exports (kernel/vmcore_info.c, arch/arm64/kernel/vmcore_info.c)."""
        source, exact = "VMCOREINFO", Precision.EXACT
        self.add("page_size", info.page_size, source, exact)
        self.add("va_bits", info.number("VA_BITS"), source, exact)
        t1sz = info.number("TCR_EL1_T1SZ")
        self.add("va_bits_actual", None if t1sz is None else 64 - t1sz, source, exact)
        self.add("phys_offset", info.number("PHYS_OFFSET"), source, exact)
        self.add("struct_page_size", info.size("page"), source, exact)
        self.add("section_size_bits", info.number("SECTION_SIZE_BITS"), source, exact)
        start, end = info.number("VMEMMAP_START"), info.number("VMEMMAP_END")
        self.add("vmemmap_start", None if start is None else start & (2**64 - 1), source, exact)
        self.add("vmemmap_end", None if end is None else end & (2**64 - 1), source, exact)

    def config(self, config: Kconfig) -> None:
        """Page size and VA bits of the kernel's configuration."""
        self.add("page_size", config.page_size, "kernel config")
        self.add("va_bits", config.va_bits, "kernel config")

    def dump(self, dump: PageTableDump, release: KernelRelease | None) -> None:
        """Page size, VA bits, and the regions, from the dump's markers and the shape of its rows."""
        rows = [marker.row for marker in dump.markers if marker.name in _LINEAR_END and marker.row < dump.start.size]
        self.linear_ends = dump.start[rows].tolist()
        fitting = list(self._fitting(dump))
        if release is not None and any(fit.era.has(release.series) for fit in fitting):
            fitting = [fit for fit in fitting if fit.era.has(release.series)]
        self.foreign = self._foreign(dump, fitting, release)
        if not fitting:
            self._linear_only(dump)
            return
        # Damage hides struct pages, so a common layout is given up only if it puts most of them nowhere.
        best = next(
            (fit for fit in fitting if len(fitting) == 1 or _share_without_struct_pages(dump, fit) < 0.5), fitting[0]
        )
        source = "markers of the dump"
        self._adopt(best, source, Precision.INFERRED)

    def _foreign(self, dump: PageTableDump, fitting: list[_Candidate], release: KernelRelease | None) -> str:
        """Why the markers are another kernel's: they fit a map, and not that of the sizes or the release known."""
        if fitting:
            if release is None or release.vendor not in _PLAIN_VENDORS or fitting[0].era.has(release.series):
                return ""
            first, last = fitting[0].era.first, fitting[0].era.last
            span = f"{first[0]}.{first[1]}" + ("" if last[0] == 99 else f" to {last[0]}.{last[1]}")
            return f"the dump's markers are those of kernels from {span}, not of {release.raw}"
        sizes = {key: self.facts[key] for key in ("page_size", "va_bits") if key in self.facts}
        alone = LayoutBuilder()
        alone.facts = {key: fact for key, fact in self.facts.items() if key == "struct_page_size"}
        other = next(alone._fitting(dump), None) if sizes else None
        if other is None:
            return ""
        said = ", ".join(f"{fact.source} says {key} {fact.value}" for key, fact in sizes.items())
        return f"the dump's markers fit page_size {other.page_size}, va_bits {other.va_bits}; {said}"

    def _adopt(self, fit: _Candidate, source: str, precision: Precision) -> None:
        self.add("page_size", fit.page_size, source, precision)
        self.add("va_bits", fit.va_bits, source, precision)
        self.add("va_bits_actual", fit.va_actual, source, precision)
        self.add("struct_page_size", fit.struct_page_size, source, precision)
        self.add("page_offset", fit.regions.page_offset, source, precision)
        self.add("linear_end", fit.regions.linear_end, source, precision)
        self.add("vmemmap_start", fit.regions.vmemmap_start, source, precision)
        self.add("vmemmap_end", fit.regions.vmemmap_end, source, precision)

    def release(self, release: KernelRelease) -> None:
        """What the release implies where nothing better is known: era of the map, section size."""
        actual = self.facts.get("va_bits_actual")
        if actual is not None and "va_bits" not in self.facts:
            self.add("va_bits", actual.value, f"bits in use, {actual.source}", Precision.INFERRED)
        page, va_bits = self.get("page_size"), self.get("va_bits")
        version = release.series
        if page is not None:
            old = version < (5, 12)  # f0b13ee23241
            self.section_size_bits(30 if old else (29 if page == 65536 else 27), f"release {release.raw}")
        if page is None or va_bits is None:
            return
        era = next((era for era in ERAS if era.has(version)), None)
        if era is not None:
            size = self.get("struct_page_size") or STRUCT_PAGE_SIZES[0]
            shift = page.bit_length() - 1
            used = actual.value if actual is not None else va_bits
            areas = regions(era, shift, va_bits, size, used)
            if self.get("page_offset") == areas.linear_start != areas.page_offset:
                # Up to 5.9 vmemmap was moved instead of memstart_addr: index 0 has the first struct page in use.
                areas = replace(areas, page_offset=areas.linear_start, vmemmap_start=areas.vmemmap_used)
            found = _Candidate(era, page, va_bits, used, size, areas)
            if "vmemmap_start" not in self.facts:
                self._adopt(found, f"release {release.raw}", Precision.INFERRED)
            else:
                self.add("page_offset", found.regions.page_offset, "VA_BITS", Precision.DERIVED)
                if "linear_end" not in self.facts:
                    self.add("linear_end", found.regions.linear_end, "VA_BITS", Precision.DERIVED)

    def only_era(self) -> None:
        """The memory map where page size and address bits leave one era: 52 bits of 4K pages came with 6.9."""
        page, bits = self.get("page_size"), self.get("va_bits_actual")
        if page not in GRANULES or bits is None:
            return
        shift = page.bit_length() - 1
        eras = [era for era in ERAS if bits in era.va_bits[shift]]
        if len(eras) == 1:
            size = self.get("struct_page_size") or STRUCT_PAGE_SIZES[0]
            found = _Candidate(eras[0], page, bits, bits, size, regions(eras[0], shift, bits, size))
            self._adopt(found, f"{bits}-bit addresses with {page >> 10}K pages", Precision.INFERRED)

    def infer_phys_offset(self, value: int, reason: str) -> None:
        """PHYS_OFFSET (bytes, may be negative) from matching the dump against /proc/iomem."""
        self.add("phys_offset", value & (2**64 - 1), f"the dump and /proc/iomem: {reason}", Precision.INFERRED)

    def section_size_bits(self, bits: int, source: str) -> None:
        """Section size where VMCOREINFO does not give it; a memory block is never smaller than a section."""
        block = self.get("block_size")
        if block is not None and block < 1 << bits:
            bits, source = block.bit_length() - 1, "block_size_bytes"
        if "section_size_bits" not in self.facts:
            self.add("section_size_bits", bits, source, Precision.INFERRED)

    def build(self, candidates: tuple[int, ...] = ()) -> KernelLayout:
        """The layout as known so far; ``candidates`` are values of PHYS_OFFSET that all fit."""
        known = dict(self.facts)
        self._end_linear_map(known)
        if "section_size_bits" not in known and "page_size" in known:
            self._assume_sections(known)
        return KernelLayout(known, candidates, tuple(dict.fromkeys(self.notes)))

    def _end_linear_map(self, known: dict[str, Fact]) -> None:
        """KASAN's shadow takes the end of the linear map's half, whatever the release or a torn dump implies."""
        if {"page_offset", "linear_end"} <= known.keys():
            inside = range(known["page_offset"].value + 1, known["linear_end"].value)
            end = min((address for address in self.linear_ends if address in inside), default=None)
            if end is not None and known["linear_end"].precision is not Precision.EXACT:
                known["linear_end"] = Fact(end, "a marker of the dump", Precision.INFERRED)

    def _assume_sections(self, known: dict[str, Fact]) -> None:
        block, page = known.get("block_size"), known["page_size"].value
        if block is not None:
            known["section_size_bits"] = Fact(block.value.bit_length() - 1, "block_size_bytes", Precision.INFERRED)
            return
        vmemmap = known.get("vmemmap_start")
        if vmemmap is not None and vmemmap.source.startswith("markers") and self._era(known) == "E":
            bits = 29 if page == 65536 else 27
            known["section_size_bits"] = Fact(bits, "layout of 6.9 and later", Precision.INFERRED)

    @staticmethod
    def _era(known: dict[str, Fact]) -> str:
        return "E" if known["vmemmap_end"].value == (-(1 << 30)) & (2**64 - 1) else ""

    def _linear_only(self, dump: PageTableDump) -> None:
        """A fragment: the start of the linear map alone shows PAGE_OFFSET (5.4 and later)."""
        start = _linear_start(dump)
        self.notes.append("the dump's markers fit no known layout, or it is a fragment")
        bits = 0 if start is None else (2**64 - start).bit_length() - 1
        if start == 2**64 - (1 << bits) and bits in {36, 39, 42, 47, 48, 52}:
            source = "first row of the linear map"
            configured = self.get("va_bits") or bits  # a 52-bit kernel may run with fewer
            self.add("va_bits", configured, source, Precision.INFERRED)
            self.add("va_bits_actual", bits, source, Precision.INFERRED)
            self.add("page_offset", -(1 << configured) & (2**64 - 1), source, Precision.INFERRED)
            low = 47 if configured == 52 and self.get("page_size") == 16384 else min(configured, 48)
            self.add("linear_end", -(1 << (low - 1)) & (2**64 - 1), source, Precision.INFERRED)
            page = self.get("page_size") or _granule_of_rows(dump)
            self.add("page_size", page, "sizes of the dump's rows", Precision.INFERRED)

    def _fitting(self, dump: PageTableDump) -> Iterator[_Candidate]:
        """Layouts that no marker contradicts, likeliest first."""
        start = _linear_start(dump)
        row_granule = _granule_of_rows(dump)
        wanted = self.get("page_size")
        pages = [wanted] if wanted else sorted(GRANULES, key=lambda size: (size != row_granule, size))
        sizes = [known] if (known := self.get("struct_page_size")) else list(STRUCT_PAGE_SIZES)
        if start is None or not any(marker.name.startswith("vmemmap") for marker in dump.markers):
            return
        for struct_page, page, era in itertools.product(sizes, pages, ERAS):
            if not wanted and page > row_granule:
                continue
            shift = page.bit_length() - 1
            for va_bits in era.va_bits[shift]:
                if self.get("va_bits") not in {None, va_bits}:
                    continue
                for actual in {va_bits, 52 if va_bits == 52 else va_bits, *((47, 48) if va_bits == 52 else ())}:
                    found = _below_shadow(dump, regions(era, shift, va_bits, struct_page, actual))
                    exact = found.linear_start == start or not dump.prints_holes
                    if exact and found.linear_start <= start and _agrees(dump, era, found):
                        yield _Candidate(era, page, va_bits, actual, struct_page, found)


def _below_shadow(dump: PageTableDump, found: Regions) -> Regions:
    """The regions with the linear map ending where KASAN's shadow begins (since 5.11, f4693c2716b3)."""
    for marker in dump.markers:
        if marker.name == "Kasan shadow start" and marker.row < dump.start.size:
            return replace(found, linear_end=min(found.linear_end, int(dump.start[marker.row])))
    return found


def _share_without_struct_pages(dump: PageTableDump, fit: _Candidate) -> float:
    """Share of the linear map whose struct pages this layout puts where nothing is mapped.

    All memory has struct pages, so only the right layout brings the two areas together.
    """
    linear, vmemmap = (
        Ranges.of(start[valid], end[valid])
        for start, end, valid in (
            _valid_rows(dump, fit.regions.page_offset, fit.regions.linear_end),
            _valid_rows(dump, fit.regions.vmemmap_start, fit.regions.vmemmap_end),
        )
    )
    vmemmap &= Ranges.one(fit.regions.vmemmap_used - fit.regions.vmemmap_start, 1 << 62)
    pages = linear.divide(fit.page_size, outward=False)
    return (pages - vmemmap.divide(fit.struct_page_size, outward=False)).total / max(pages.total, 1)


def _valid_rows(dump: PageTableDump, base: int, limit: int) -> tuple[I64, I64, Bool]:
    """Byte offsets of the rows in ``[base, limit)``, clipped, and which of them translate."""
    rows, start, end = clip(dump.start, dump.start + (dump.size - np.uint64(1)), base, limit - base)
    return start, end, (dump.attrs[rows] & np.uint16(Attr.VALID)) != 0


def _linear_start(dump: PageTableDump) -> int | None:
    """Address of the first row of the linear map.

    Kernels 5.6 to 5.11 print no marker before it (ptdump did not initialise the level until 5.12).
    """
    for marker in dump.markers:
        if marker.name in _LINEAR_START and marker.row < dump.start.size:
            return int(dump.start[marker.row])
    kernel_half = int(np.searchsorted(dump.start, np.uint64(1 << 63)))
    if any(marker.name == "Linear Mapping end" and marker.row > kernel_half for marker in dump.markers):
        return int(dump.start[kernel_half])
    return None


def _agrees(dump: PageTableDump, era: Era, found: Regions) -> bool:
    """Whether every marker stands where this layout would have the kernel print it.

    The kernel prints a marker before the first row that starts at or above its address, so the
    marker's address lies above the start of the row before it and not above that of the row after.
    """
    expected: dict[str, tuple[int, ...]] = {
        "Linear Mapping end": (found.linear_end,),
        "Linear Mapping": (found.page_offset,) if era.name == "A" else (),
        "vmemmap start": (found.vmemmap_used, found.vmemmap_start),
        "vmemmap end": (found.vmemmap_end,),
    }
    rows = dump.start.size
    for marker in dump.markers:
        addresses = [address for address in expected.get(marker.name, ()) if not address >> 64]
        if not addresses or marker.row >= rows:
            continue
        after = int(dump.start[marker.row])
        before = int(dump.start[marker.row - 1]) if marker.row else 0
        if not any(before < address <= after for address in addresses):
            return False
    return True


def _granule_of_rows(dump: PageTableDump) -> int:
    """The largest page size whose entry spans divide the rows: blocks and holes betray the granule.

    A few rows may not fit: the kernel cuts some at region boundaries.
    """
    for page_size in sorted(GRANULES, reverse=True):
        granule = GRANULES[page_size]
        odd = ((dump.start | dump.size) & np.uint64(page_size - 1)) != 0
        for word, level in ((LevelWord.PMD, 2), (LevelWord.PUD, 1)):
            span = np.uint64(granule.span(level) - 1)
            odd |= (dump.word == word) & (((dump.start | dump.size) & span) != 0)
        if np.count_nonzero(odd) * 20 <= odd.size:
            return page_size
    return min(GRANULES)

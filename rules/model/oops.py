"""Oopses decoded: which page, section and level a faulting address means, by what the log itself says.

The log alone is enough: page size and address bits are in the oops' banner, the era of the memory map follows from the
release, PHYS_OFFSET is derived from the log (`rules.model.layout.from_log`).  Other evidence of the same boot takes
precedence.
"""

from __future__ import annotations

import bisect
from dataclasses import replace
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from parsers.address_space import Area, KasanMode
from parsers.arm64 import PTE
from parsers.dmesg import Dmesg, Kind, bare_boot
from parsers.errors import FormatError
from parsers.esr import Fault
from parsers.expressions import expression
from parsers.layout import Fact, Precision
from parsers.ranges import EMPTY, Ranges
from parsers.records import dataclass
from parsers.uname import KernelRelease, parse_uname
from rules.finding import Evidence, UndecidedError, VaRange
from rules.model.layout.builder import LayoutBuilder
from rules.model.layout.from_log import add_report
from rules.model.layout.of_boot import (
    add_boot,
    areas_of_boot,
    image_of,
    is_newer,
    kasan_of,
    layout_of_boot,
    release_of_map,
)
from rules.model.layout.possible import possible_maps
from rules.model.memory.struct_page import field_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from parsers.dmesg import Boot, Message
    from parsers.layout import KernelLayout
    from parsers.oops import Panic, Report, ReportKind
    from rules.model.layout.possible import PossibleMap

__all__ = ["DecodedOops", "Oopses", "Region"]

_LEVELS = {"pte": 3, "pmd": 2, "pud": 1, "p4d": 0}
_QUOTED = ("start", "esr", "pgtable", "walk", "task", "place", "pc", "trace")
NULL_PAGE = 4096
_LAST_PAGE = (1 << 64) - NULL_PAGE
_LOWEST = (1 << 64) - (1 << 52)
"""No kernel has more than 52 bits of addresses."""


class Region(StrEnum):
    """Where in the address space."""

    LINEAR = "linear"
    VMEMMAP = "vmemmap"
    NULL = "null"
    USER = "user"
    OTHER = "other"
    """Modules, vmalloc, the kernel image, the fixmap, KASAN's shadow (`DecodedOops.area` says which)."""
    BETWEEN = "between user and kernel addresses"
    ERROR = "error pointer"
    """The last page, which no kernel maps: an error code that was taken for a pointer, or what lies just below NULL."""


@dataclass(frozen=True, eq=False, kw_only=True)
class DecodedOops:
    """A report with the layout of the kernel that printed it."""

    report: Report
    path: str
    boot: Boot
    current: bool
    """Of the boot that the other evidence is of."""
    release: KernelRelease | None
    layout: KernelLayout
    areas: tuple[Area, ...] = ()
    """The other parts of this kernel's address space; none where they are not known."""
    image: Area | None = None
    """The kernel image, as far as the log says where it is."""
    kasan: KasanMode | None = None
    """The mode of KASAN, as far as the log shows that there is a shadow."""
    possible: tuple[PossibleMap, ...] = ()
    """The memory maps that this kernel can have, where its log does not say which; none otherwise."""
    working_on_memory: tuple[Message, ...] = ()
    """What the same boot said of memory that was added, removed or taken by drivers."""

    @cached_property
    def area(self) -> str:
        """The part of the address space in one word.

        ``vmemmap``, ``linear``, ``vmalloc``, ``modules``, ``image``, ``kasan_shadow``, ``user``; ``none`` where
        there is no address, or nothing can be there: the NULL page, non-canonical addresses, gaps; ``unknown``.
        """
        address, region = self.report.address, self.region
        if address is None or region in {Region.NULL, Region.BETWEEN, Region.ERROR}:
            return "none"
        if region is None or (region is Region.OTHER and self.possible):
            names = {one.area_of(address.value) for one in self.possible}
            return names.pop() if len(names) == 1 else "unknown"
        return self.area_of(address.value) if region is Region.OTHER else str(region)

    def area_of(self, va: int) -> str:
        """The area of a kernel address that is in none of the regions; ``none`` for a gap."""
        if self.image is not None and self.image.start <= va < self.image.end:
            return "image"
        found = next((area.name for area in self.areas if area.start <= va < area.end), "")
        if found in {"kasan_shadow", "modules", "vmalloc"}:
            return found
        return "none" if len(self.areas) > 1 else "unknown"  # of an era that is not known the shadow alone

    @cached_property
    def region(self) -> Region | None:
        """The region of the faulting address; None where the layout or the address is not known."""
        address = self.report.address
        if address is None:
            return None
        if address.value < NULL_PAGE:
            return Region.NULL
        if address.value >= _LAST_PAGE and address.tag is None:
            return Region.ERROR
        kernel = bool(address.value >> 55 & 1)
        if self.report.between or (address.value < _LOWEST if kernel else address.value >> 52):
            return Region.BETWEEN  # poison, too, such as LIST_POISON1
        return self._kernel_region(address.value) if kernel else Region.USER

    def _kernel_region(self, va: int) -> Region | None:
        known = self.layout.knows("page_offset", "linear_end")
        region = self.layout.region_of(va) if known else "other"
        if region == "linear" or (known and self.layout.knows("vmemmap_start", "vmemmap_end")):
            return Region(region)
        if self.area_of(va) != "unknown":
            return Region.OTHER
        names = {one.area_of(va) for one in self.possible}
        return Region.OTHER if names and not names & {"linear", "vmemmap"} else None

    @cached_property
    def index(self) -> int | None:
        """Index of the page, from the start of the linear map, that the address or the struct page there is of."""
        layout, address = self.layout, self.report.address
        if address is None or not layout.knows("page_size"):
            return None
        if self.region is Region.VMEMMAP and layout.knows("struct_page_size"):
            return (address.value - layout.vmemmap_start) // layout.struct_page_size
        if self.region is Region.LINEAR:
            return (address.value - layout.page_offset) >> layout.page_shift
        return None

    @property
    def first_index(self) -> int:
        """Index of the first page of the linear map at run time: not 0 if built for 52 bits and run with fewer."""
        if not self.layout.knows("page_offset", "page_size", "va_bits"):
            return 0
        return (self.layout.linear_start - self.layout.page_offset) >> self.layout.page_shift

    @cached_property
    def pfn(self) -> int | None:
        """The page frame number, None where PHYS_OFFSET is not known or no memory can be there."""
        if self.report.pfn is not None and self.report.address is None:
            return self.report.pfn
        if self.index is None or not self.layout.knows("phys_offset"):
            return None
        pfn = self.index + self.layout.start_pfn
        return pfn if 0 <= pfn < 1 << (52 - self.layout.page_shift) else None

    @property
    def pfns(self) -> Ranges:
        """The page as a range."""
        return EMPTY if self.pfn is None else Ranges.one(self.pfn, self.pfn + 1)

    @property
    def vas(self) -> tuple[VaRange, ...]:
        """What the faulting entry would translate: the struct page, or the page."""
        address, index = self.report.address, self.index
        if address is None or index is None:
            return ()
        if self.region is Region.VMEMMAP:
            start = self.layout.vmemmap_va(index)
            return (VaRange(start, start + self.layout.struct_page_size, "vmemmap"),)
        start = self.layout.linear_va(index)
        return (VaRange(start, start + self.layout.page_size, "linear"),)

    @cached_property
    def field(self) -> tuple[int, str | None] | None:
        """Offset into the struct page and, as a hint, the field there."""
        address = self.report.address
        if self.region is not Region.VMEMMAP or address is None or self.index is None:
            return None
        size = self.layout.struct_page_size
        offset = (address.value - self.layout.vmemmap_start) % size
        return offset, field_at(offset, size, self.release.series if self.release else None)

    @cached_property
    def hole(self) -> tuple[int, int] | None:
        """(Arm level, descriptor) where the printed walk ends in an entry that does not translate."""
        if self.report.walk is None:
            return None
        name, descriptor = self.report.walk.last
        if descriptor & 1:
            return None
        if name == "pgd" and self.layout.knows("page_size", "va_bits"):
            return self.layout.granule.first_level(self.layout.va_bits_actual), descriptor
        return _LEVELS.get(name, 0), descriptor

    @property
    def level(self) -> int | None:
        """The Arm level that faulted: by the syndrome, or else by the walk."""
        esr = self.report.esr
        if esr is not None and (esr.level is not None or esr.fault not in {None, Fault.TRANSLATION}):
            return esr.level
        return None if self.hole is None else self.hole[0]

    @property
    def span(self) -> int | None:
        """Bytes that an entry of the level that faulted translates, in this kernel's granule."""
        level = self.level
        if level is None or level > PTE or not self.layout.knows("page_size", "va_bits"):
            return None
        granule = self.layout.granule
        return granule.span(level) if level >= granule.first_level(self.layout.va_bits_actual) else None

    @property
    def access(self) -> str | None:
        """``read``, ``write`` or ``execute``; None where the log does not say."""
        esr, said = self.report.esr, self.report.headline
        if (esr is not None and esr.execute) or "execute from" in said:
            return "execute"
        if esr is None or esr.write is None:
            return "write" if "write to read-only" in said else None
        return "write" if esr.write else "read"

    def faulted(self, region: Region, *faults: Fault) -> bool:
        """An access into the region that ended in one of these faults."""
        esr = self.report.esr
        fault = esr.fault if esr is not None else None if self.hole is None else Fault.TRANSLATION
        return self.region is region and fault in faults

    @property
    def lost_struct_page(self) -> bool:
        """A struct page that nothing maps was touched."""
        empty = self.hole is None or not self.hole[1]
        return empty and self.faulted(Region.VMEMMAP, Fault.TRANSLATION)

    @property
    def at_boot(self) -> bool | None:
        """Whether the page is in a section that held memory at boot; None where the log does not list it."""
        if self.pfn is None or not self.boot.memory.start.size or not self.layout.knows("section_size_bits"):
            return None
        section = self.layout.section_size
        memory = Ranges.of(self.boot.memory.start.astype(np.int64), self.boot.memory.last.astype(np.int64) + 1)
        return bool(memory.widen(section).contains(self.pfn << self.layout.page_shift))

    def describe(self) -> str:
        """The page in words: PFN, section, subsection, memory block, field; and what of it is not known."""
        if self.index is None:
            return "the page is not known"
        layout, parts = self.layout, []
        if self.pfn is not None:
            parts.append(f"PFN {self.pfn:#x} (physical {self.pfn << layout.page_shift:#x})")
        else:
            parts.append(f"page {self.index - self.first_index:#x} of the linear map (its PFN needs PHYS_OFFSET)")
        parts += self._section()
        if self.at_boot is not None:
            parts.append("boot memory" if self.at_boot else "not memory of the boot: hot-added, or a device's")
        if self.field is not None:
            offset, name = self.field
            parts.append(f"byte {offset:#x} of its struct page" + (f" ({name})" if name else ""))
        return ", ".join(parts)

    def describe_page(self) -> str:
        """The page that a report is about, where it is not the page of an address."""
        if self.pfn is None or not self.layout.knows("section_size_bits", "page_size"):
            return "its section is not known" if self.pfn is None else f"PFN {self.pfn:#x}"
        return f"PFN {self.pfn:#x}, section {self.pfn // self.layout.pages_per_section}"

    def _section(self) -> Iterator[str]:
        if not self.layout.knows("section_size_bits") or self.index is None:
            return
        pages, unit = self.layout.pages_per_section, self.layout.pages_per_subsection
        if self.pfn is not None:
            yield f"section {self.pfn // pages}"
        # PHYS_OFFSET is a multiple of the section size, so the place inside of a section needs none.
        yield f"subsection {self.index % pages // unit} of {pages // unit}"
        block = self.layout.get("block_size")
        if self.pfn is not None and block:
            yield f"memory block {(self.pfn << self.layout.page_shift) // block}"

    def assumptions(self) -> str:
        """Where the layout values that the decoding needs came from."""
        keys = ("page_size", "va_bits", "vmemmap_start", "phys_offset", "struct_page_size", "section_size_bits")
        facts = {key: fact for key in keys if (fact := self.layout.facts.get(key)) is not None}
        sources: dict[str, list[str]] = {}
        for key, fact in facts.items():
            sources.setdefault(_source(fact), []).append(key)
        return "Assumptions: " + "; ".join(f"{', '.join(keys)}: {source}" for source, keys in sources.items()) + "."

    @property
    def who(self) -> str:
        """Task, function and kernel, as far as they are printed."""
        report = self.report
        task = f"{report.comm} ({report.pid})" if report.comm else "a task that is not named"
        where = f" in {report.pc}" if report.pc else ""
        kernel = f" on {self.release.raw}" if self.release else ""
        earlier = "" if self.current else f", {self.when}"
        return f"{task}{where}{kernel}{earlier}"

    @property
    def when(self) -> str:
        """Which boot it was, where it is not that of the other evidence."""
        bare = not self.boot.messages and self.boot.release is None
        return "" if self.current else "of another kernel" if bare else "in an earlier boot of the log"

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """The lines that say it."""
        lines: dict[int, Evidence] = {}
        for name in _QUOTED:
            quote = self.report.quotes.get(name)
            if quote is not None:
                lines.setdefault(quote.line, Evidence(self.path, quote.text, quote.line))
        return tuple(lines[line] for line in sorted(lines))


def _source(fact: Fact) -> str:
    return fact.source if fact.precision is Precision.EXACT else f"{fact.source} ({fact.precision})"


@dataclass(frozen=True, eq=False, kw_only=True)
class Oopses:
    """Every report of a log, decoded."""

    dmesg: Dmesg
    all: tuple[DecodedOops, ...]
    layout: KernelLayout
    """Of the boot that the other evidence is of, whether it has reports or not."""
    release: KernelRelease | None
    """Of the same boot: as given, as its banner says, or else its oopses."""

    @classmethod
    def of(cls, dmesg: Dmesg, builder: LayoutBuilder, release: KernelRelease | None) -> Oopses:
        """``builder`` holds what other sources say of the kernel, ``release`` its release."""
        reports, strangers = _by_kernel(dmesg, release)
        every: list[DecodedOops] = []
        for number, boot in enumerate(dmesg.boots):
            current = boot is dmesg.boot
            until = dmesg.boots[number + 1].line if number + 1 < len(dmesg.boots) else None
            panics = [
                one for one in dmesg.reports.panics if one.line >= boot.line and (until is None or one.line < until)
            ]
            kernel = (release if current else None) or boot.release or _release(reports[number], boot, dmesg.path)
            base = builder if current else LayoutBuilder()
            layout, decoded = _decoded(dmesg.path, boot, kernel, base, panics, reports[number], current=current)
            every += decoded
            if current:
                now, known = layout, kernel
        for group in strangers:
            boot = bare_boot(dmesg.path, group[0].line)
            kernel = _release(group, boot, dmesg.path)
            every += _decoded(dmesg.path, boot, kernel, LayoutBuilder(), (), group, current=False)[1]
        every.sort(key=lambda oops: oops.report.line)
        return cls(dmesg=dmesg, all=tuple(every), layout=now, release=known)

    def of_kind(self, *kinds: ReportKind) -> Iterator[DecodedOops]:
        """The reports of these kinds."""
        return (oops for oops in self.all if oops.report.kind in kinds)

    def need_regions(self) -> None:
        """UndecidedError where an oops has an address in the kernel's half whose region is not known."""
        lost = next((oops for oops in self.all if oops.report.address is not None and oops.region is None), None)
        if lost is not None:
            raise UndecidedError(
                f"which region the address of line {lost.report.line} is in is not known: the page size, the address "
                "bits or the release are not in the log",
                KernelRelease,
                Dmesg,
            )


def _by_kernel(dmesg: Dmesg, release: KernelRelease | None) -> tuple[list[list[Report]], list[list[Report]]]:
    """The reports of each boot, and those of kernels that no boot of the log is of.

    Boots follow each other in a log, but the console of a guest, or a log that a mail quotes besides, stands between.
    So a report that prints its release is of the last boot before it with that release, whatever banner came since.
    """
    starts = [boot.line for boot in dmesg.boots]
    names = [boot.release.raw if boot.release is not None else "" for boot in dmesg.boots]
    if release is not None:
        names[dmesg.boots.index(dmesg.boot)] = release.raw
    mine: list[list[Report]] = [[] for _ in starts]
    strangers: dict[str, list[Report]] = {}
    for report in dmesg.reports.reports:
        place = max(bisect.bisect(starts, report.line) - 1, 0)
        printed = report.release.partition(" ")[0]
        names[place] = names[place] or printed
        home = next((one for one in range(place, -1, -1) if _is_release(printed, names[one])), None)
        if home is None:
            strangers.setdefault(printed, []).append(report)
        else:
            mine[home].append(report)
    return mine, list(strangers.values())


def _is_release(printed: str, name: str) -> bool:
    """Whether a report can be of the kernel of that name: it prints none, the same, or a part that mail wrapped."""
    return not printed or printed == name or (printed.endswith(("-", ".", "+")) and name.startswith(printed))


def _decoded(
    path: str,
    boot: Boot,
    kernel: KernelRelease | None,
    known: LayoutBuilder,
    panics: Sequence[Panic],
    reports: Sequence[Report],
    *,
    current: bool,
) -> tuple[KernelLayout, list[DecodedOops]]:
    """The reports of one kernel with its layout; ``known`` is what other sources say of it."""
    kasan = kasan_of(boot, reports)
    layout = layout_of_boot(path, boot, panics, reports, known.copy(), kernel, kasan)
    series = release_of_map(kernel, layout.get("page_size"), layout.get("va_bits_actual"), reports)
    areas = areas_of_boot(layout, series, kasan)
    image = image_of(boot, panics, areas)
    possible: tuple[PossibleMap, ...] = ()
    if not layout.knows("page_offset", "linear_end", "vmemmap_start"):
        facts = known.copy()
        for report in reports:
            add_report(facts, report, path)
        add_boot(facts, boot, path)
        possible = possible_maps(facts, kernel, reports, kasan, newer=is_newer(reports))
    memory = tuple(message for message in boot.messages if message.kind in _MEMORY_WORK)
    return layout, [
        DecodedOops(
            report=one,
            path=path,
            boot=boot,
            current=current,
            release=kernel,
            layout=layout,
            areas=areas,
            image=image,
            kasan=kasan,
            possible=possible,
            working_on_memory=memory,
        )
        for one in reports
    ]


_BOOT_IMAGE = expression(r"vmlinu[xz][-_]([1-9]\d?\.\d{1,3}\S{0,120})")


def _release(reports: Sequence[Report], boot: Boot, path: str) -> KernelRelease | None:
    """The release where the banner is not in the log: as an oops prints it, or as the image is called that was booted.

    The first word of ``uname -v`` after the release of an oops may name the vendor.
    """
    texts = [(report.release, report.quotes["task"].line) for report in reports if report.release]
    line = boot.command_line
    image = _BOOT_IMAGE.search(line.value("BOOT_IMAGE") or "") if line is not None else None
    if line is not None and image is not None:
        texts.append((image[1], line.line))
    for text, number in texts:
        try:
            return replace(parse_uname(f"Linux oops {text} ".encode(), path), line=number)
        except FormatError:
            continue
    return None


_MEMORY_WORK = frozenset({Kind.HOTPLUG, Kind.VMEMMAP, Kind.VIRTIO_MEM, Kind.DAX, Kind.ACPI_MEMORY, Kind.ARM64_MEMORY})

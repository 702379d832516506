"""Everything that the audit takes from a crash dump, in one call."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from collections.abc import Mapping as Dict
from dataclasses import field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from parsers.cmdline import CommandLine
from parsers.dmesg import Dmesg
from parsers.errors import Diagnostic, FormatError, InputError
from parsers.image.code import KernelCode
from parsers.iomem import Iomem
from parsers.kconfig import Kconfig
from parsers.mapping import I64, Mapping
from parsers.records import dataclass
from parsers.uname import KernelRelease
from parsers.vmcore.addresses import AddressMap
from parsers.vmcore.blocks import read_blocks
from parsers.vmcore.crash_image import read_crash_image
from parsers.vmcore.distilled import write_core
from parsers.vmcore.dump import Dump
from parsers.vmcore.explain import Step
from parsers.vmcore.fitting import other_phys_offset, why_not_of
from parsers.vmcore.generation import Generation, came_or_went, changed_sections, is_noisy, read_events, read_generation
from parsers.vmcore.hugetlb import read_hugetlb
from parsers.vmcore.kcore import KcoreMemory
from parsers.vmcore.kernel_code import read_kernel_code
from parsers.vmcore.memory import PhysicalMemory, RecordingMemory
from parsers.vmcore.moment import Flux, find_flux, joined, linear_map_of, of_no_section, struct_pages_of, without_flux
from parsers.vmcore.opening import RawDump, open_dump
from parsers.vmcore.pagetable import Walk, walk_page_tables
from parsers.vmcore.printed import Boundary, as_printed, read_boundaries
from parsers.vmcore.resources import read_iomem
from parsers.vmcore.rows import (
    RECORDS,
    BlockRows,
    CrashKernelMemory,
    HugetlbRows,
    ListedMemory,
    SectionRows,
    SelfHostedRows,
    StructPageRows,
    ZoneRows,
)
from parsers.vmcore.self_hosted import read_self_hosted
from parsers.vmcore.sparsemem import read_sections
from parsers.vmcore.struct_pages import read_struct_pages
from parsers.vmcore.texts import Texts, read_nodename
from parsers.vmcore.zeros import boot_memory, no_memory, voucher
from parsers.vmcore.zones import read_zones
from parsers.vmcoreinfo import VmcoreInfo

__all__ = ["Distilled", "VmcoreFacts", "distill", "extract", "extract_facts"]

T = TypeVar("T")
_SECOND_READINGS = 4
_PAUSES = 1, 2, 4
"""Seconds between attempts at a running kernel of whose memory some came or went."""

_KINDS: Dict[str, type] = {
    **{record.what: record.fact for record in RECORDS},
    "resources": Iomem,
    "kernel release": KernelRelease,
    "command line": CommandLine,
    "kernel configuration": Kconfig,
    "kernel log": Dmesg,
}
"""What diagnostics call the facts of a dump."""


@dataclass(frozen=True, eq=False, kw_only=True)
class VmcoreFacts:
    """What one dump shows; a member is None where dump, symbols or types lack it: then a diagnostic says why."""

    path: str
    kind: str
    """``elf``, ``kdump`` or ``kcore``."""
    flux: Flux | None
    """What changed while a running kernel was read; None for a dump."""
    release: str | None
    nodename: str
    """The host's name; empty where the dump does not say."""
    vmcoreinfo: VmcoreInfo
    addresses: AddressMap
    walk: Walk
    boundaries: tuple[Boundary, ...]
    sections: SectionRows | None
    struct_pages: StructPageRows | None
    blocks: BlockRows | None
    self_hosted: SelfHostedRows | None
    zones: ZoneRows | None
    hugetlb: HugetlbRows | None
    iomem: Iomem | None
    crash_image: CrashKernelMemory | None
    """What the crash kernel that is loaded takes for memory; None where the dump does not say if one is."""
    listed: ListedMemory | None
    """What the dump's writer took for memory; None for a running kernel."""
    texts: Texts
    code: KernelCode | None
    """The code that shows which fixes the kernel has; None where the dump has no kallsyms."""
    unreadable: Dict[type, str]
    """Facts that are damaged, or lie in memory that is not in the dump, by type, and why."""
    types: str
    """Where structures are known from: ``debuginfo``, ``BTF`` or ``VMCOREINFO``."""
    has_symbols: bool
    """Whether kallsyms, a System.map or a vmlinux says where variables are."""
    diagnostics: tuple[Diagnostic, ...]
    recheck: Callable[[], Flux] | None = field(repr=False)
    """Reads a running kernel again and says what is different since; None for a dump."""
    settled: Callable[[], bool] | None = field(repr=False)
    """Whether no memory came or went in a running kernel since its reading began; None for a dump."""
    explain: Callable[[int], list[Step]] = field(repr=False)
    """The walk of one virtual address, level by level."""
    symbol: Callable[[str], int | None] = field(repr=False)
    """Address of a symbol of the kernel image, or None."""
    symbol_at: Callable[[int], tuple[str, int] | None] = field(repr=False)
    """The symbol of the kernel image that an address belongs to, and the offset from it."""

    @property
    def mapping(self) -> Mapping:
        """The page tables: rows with output addresses, and the table pages."""
        return self.walk.mapping

    @property
    def printed(self) -> Mapping:
        """The page tables as the kernel's text dump would show them, markers included."""
        return as_printed(self.walk.mapping, self.boundaries, self.addresses.granule)


def extract(
    path: Path | Sequence[Path],
    *,
    vmlinux: Path | None = None,
    vmcoreinfo: Path | None = None,
    system_map: Path | None = None,
    with_dmesg: bool = True,
    name: str | None = None,
) -> VmcoreFacts:
    """Read a dump: an ELF core or a kdump, plain or compressed; several paths for the files of a split one.

    ``name`` is what it is called, if not by its path.

    Raises the errors of :func:`parsers.vmcore.opening.open_dump`, :class:`parsers.vmcore.dump.Dump` and
    `extract_facts`.
    """
    dump: Dump | None = None

    def read() -> VmcoreFacts:
        nonlocal dump
        raw = open_dump(path, vmcoreinfo=vmcoreinfo, name=name)  # the kernel lists its RAM again
        dump = Dump(raw, vmlinux=vmlinux, system_map_path=system_map, like=dump)
        facts = _facts_of(dump, raw, with_dmesg=with_dmesg, with_nodename=True)
        return facts if facts.flux is None else without_flux(facts, facts.flux)

    for pause in _PAUSES:
        facts = read()
        if facts.flux is None or not facts.flux.matters:
            return facts
        del facts
        gc.collect()  # it is full of cycles, and as large as the next one
        time.sleep(pause)
    return read()


def _listed(raw: RawDump, page_size: int) -> ListedMemory:
    start, end = raw.memory.listed
    first = (start // np.uint64(page_size)).astype(np.int64)
    return ListedMemory(start_pfn=first, end_pfn=-(-end.astype(np.int64) // page_size))


def _trust_zeros(dump: Dump, memory: KcoreMemory) -> None:
    """Let pages of zeros count where the kernel's own account of them says that it read them."""
    other = memory.unvouched
    sections = dump.attempt("section table", lambda: read_sections(dump))
    if sections is not None:
        memory.vouch = voucher(dump, sections, other)


@dataclass(frozen=True, eq=False)
class _Reading:
    """What of a first reading is read a second time."""

    walk: Walk
    sections: SectionRows | None
    struct_pages: StructPageRows | None
    zones: ZoneRows | None
    iomem: Iomem | None
    generation: Generation
    """When it began."""


def _find_flux(dump: Dump, first: _Reading) -> Flux:
    """What is different when section table, page tables and resources are read again, or came and went meanwhile.

    Events of other devices do not end on some hosts.  Memory of drivers, of which only events tell that it came and
    went, counts as unchanged where a second reading of it, with no event meanwhile, is equal to the first.
    """
    for _ in range(_SECOND_READINGS - 1):
        flux, is_final = _compared(dump, first)
        if is_final:
            return flux
    return _compared(dump, first)[0]


def _compared(dump: Dump, first: _Reading) -> tuple[Flux, bool]:
    """The difference of a second reading, and whether another one would show no less."""
    walk, sections, generation = first.walk, first.sections, first.generation
    dump.forget()
    events = read_events(dump)
    is_noisy_before = generation.events is not None and events != generation.events
    again = dump.attempt("section table", lambda: read_sections(dump))
    same = first.iomem is None or _same_resources(first.iomem, dump.attempt("resources", lambda: read_iomem(dump)))
    size, page_size = dump.size("page") or 64, dump.addresses.granule.page_size
    stale = of_no_section(walk, sections, dump.addresses, size)
    of_drivers = sections is not None and bool(sections.device.any())
    can_be_noise = of_drivers or (stale is not None and bool(stale[0].size))
    ranges = [] if sections is None else [struct_pages_of(sections, size, page_size)]
    if is_noisy_before and sections is not None:
        ranges += [linear_map_of(sections, sections.device, dump.addresses), *filter(None, [stale])]
    empty = (np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.uint64))
    start, last = joined(*(np.concatenate(column) for column in zip(empty, *ranges, strict=True)))
    second = walk_page_tables(dump.memory, dump.addresses, source=dump.path, pages_of=(start, last))
    moved = np.empty(0, dtype=np.int64)
    if is_noisy_before and first.zones is not None:
        same &= _same_zones(first.zones, dump.attempt("zones", lambda: read_zones(dump)))
    if is_noisy_before and first.struct_pages is not None and sections is not None:
        pages = dump.attempt("struct pages", lambda: read_struct_pages(dump, again, second))
        moved = _different_pages(first.struct_pages, pages, sections)
    now = read_generation(dump)
    is_steady = events is not None and events == now.events and not now.is_list_old
    if sections is not None:
        moved = np.union1d(moved, changed_sections(generation, now, sections, is_steady=is_steady))
    per_block = 1 if generation.blocks is None else generation.blocks.sections_per_block
    if is_steady or not is_noisy(generation, now):
        stale = None
    flux = find_flux((walk, sections), (second, again), dump.addresses, size, per_block, moved, stale)
    came = not same or came_or_went(generation, now)
    is_final = is_steady or came or not can_be_noise or not is_noisy(generation, now) or not flux.matters
    return replace(flux, matters=True) if came else flux, is_final


def _same_zones(mine: ZoneRows, other: ZoneRows | None) -> bool:
    columns = ("node", "start_pfn", "spanned", "present", "node_id", "node_start_pfn", "node_spanned", "node_present")
    same = other is not None and mine.name == other.name
    return same and all(np.array_equal(getattr(mine, name), getattr(other, name)) for name in columns)


def _different_pages(mine: StructPageRows, other: StructPageRows | None, sections: SectionRows) -> I64:
    """Numbers of the sections whose struct pages are not the same, or are not known the second time."""
    per_section = (1 << sections.section_size_bits) // ((2 << 20) // mine.pages_per_subsection)
    if other is None:
        return np.unique(mine.pfn // per_section)
    pfns = np.union1d(mine.pfn, other.pfn)
    state = np.full((2, pfns.size), -1, dtype=np.int64)
    for row, rows in enumerate((mine, other)):
        state[row, np.searchsorted(pfns, rows.pfn)] = rows.blank
    return np.unique(pfns[state[0] != state[1]] // per_section)


def _same_resources(mine: Iomem, other: Iomem | None) -> bool:
    columns = ("start", "last", "depth")
    same = other is not None and mine.name == other.name
    return same and all(np.array_equal(getattr(mine, name), getattr(other, name)) for name in columns)


def extract_facts(
    raw: RawDump,
    *,
    memory: PhysicalMemory | None = None,
    vmlinux: Path | None = None,
    system_map: Path | None = None,
    with_dmesg: bool = True,
    with_nodename: bool = True,
) -> VmcoreFacts:
    """The facts of an opened dump; ``memory`` may replace its own.

    FormatError where its VMCOREINFO is of another boot or kernel (`parsers.vmcore.fitting`).

    Of a running kernel's memory they are of one moment, but for what `VmcoreFacts.flux` names.
    """
    dump = Dump(raw, memory=memory, vmlinux=vmlinux, system_map_path=system_map)
    return _facts_of(dump, raw, with_dmesg=with_dmesg, with_nodename=with_nodename)


def _facts_of(dump: Dump, raw: RawDump, *, with_dmesg: bool, with_nodename: bool) -> VmcoreFacts:
    if isinstance(raw.memory, KcoreMemory):
        _trust_zeros(dump, raw.memory)
    generation = None if raw.kind != "kcore" else read_generation(dump)

    def fact(what: str, read: Callable[[Dump], T]) -> T | None:
        return dump.attempt(what, lambda: read(dump))

    sections = fact("section table", read_sections)
    blocks = (
        fact("memory blocks", read_blocks) if generation is None or generation.blocks is None else generation.blocks
    )
    zones = fact("zones", read_zones)
    hugetlb = fact("huge pages", read_hugetlb)
    iomem = fact("resources", read_iomem)
    absent = None if sections is None else no_memory(dump, sections)
    stays = None if sections is None else boot_memory(dump, sections, iomem)
    if why := why_not_of(dump.memory.unrecorded, raw.vmcoreinfo):
        raise FormatError(f"VMCOREINFO is of another boot or another kernel: {why}", path=raw.path)
    walk = walk_page_tables(dump.memory, dump.addresses, source=raw.path, no_memory=absent, boot_memory=stays)
    if (other := other_phys_offset(walk.mapping, dump.addresses)) is not None:
        message = f"the linear map shows PHYS_OFFSET {other:#x}, not {dump.addresses.phys_offset:#x}"
        raise FormatError(f"VMCOREINFO is of another boot: {message}", path=raw.path)
    struct_pages = fact("struct pages", lambda dump: read_struct_pages(dump, sections, walk))
    self_hosted = fact("self-hosted pages", lambda dump: read_self_hosted(dump, sections, blocks, walk))
    crash_image = fact("crash kernel", read_crash_image)
    texts = Texts.of(dump, raw.vmcoreinfo.osrelease, with_dmesg=with_dmesg, with_nodename=with_nodename)
    code = fact("kernel code", read_kernel_code)
    boundaries = read_boundaries(dump)
    recheck = None
    if generation is not None:
        recheck = partial(_find_flux, dump, _Reading(walk, sections, struct_pages, zones, iomem, generation))
    return VmcoreFacts(
        path=raw.path,
        kind=raw.kind,
        flux=None if recheck is None else recheck(),
        recheck=recheck,
        settled=None if generation is None else lambda: not came_or_went(generation, read_generation(dump)),
        release=raw.vmcoreinfo.osrelease,
        nodename=read_nodename(dump) if with_nodename else "",
        vmcoreinfo=raw.vmcoreinfo,
        code=code,
        addresses=dump.addresses,
        walk=walk,
        boundaries=boundaries,
        sections=sections,
        struct_pages=struct_pages,
        blocks=blocks,
        self_hosted=self_hosted,
        zones=zones,
        hugetlb=hugetlb,
        iomem=iomem,
        crash_image=crash_image,
        listed=None if raw.kind == "kcore" else _listed(raw, dump.addresses.granule.page_size),
        texts=texts,
        unreadable={kind: dump.unreadable[what] for what, kind in _KINDS.items() if what in dump.unreadable},
        types=dump.types,
        has_symbols=dump.has_symbols,
        diagnostics=tuple(dict.fromkeys((*dump.diagnostics, *walk.diagnostics, *raw.memory.diagnostics))),
        explain=dump.explain,
        symbol=dump.symbol,
        symbol_at=dump.symbol_at,
    )


@dataclass(frozen=True, slots=True)
class Distilled:
    """What a small core holds."""

    pages: int
    """Page frames of 4096 bytes."""
    size: int
    """Bytes of the file."""
    memory: int
    """Bytes of physical memory that the dump may hold."""


def distill(
    path: Path | Sequence[Path],
    output: Path,
    *,
    vmlinux: Path | None = None,
    vmcoreinfo: Path | None = None,
    system_map: Path | None = None,
    with_dmesg: bool = False,
) -> Distilled:
    """Write the small core of a dump: the pages that :func:`extract` reads of it, and no other.

    Of a running kernel, pages are kept as they were read last, and read again where memory came or went meanwhile.
    InputError, and no file, where it does so each time: a small core cannot say which parts were in flux.
    """
    for pause in (*_PAUSES, None):
        raw = open_dump(path, vmcoreinfo=vmcoreinfo)
        recorder = RecordingMemory(raw.memory)
        facts = extract_facts(
            raw, memory=recorder, vmlinux=vmlinux, system_map=system_map, with_dmesg=with_dmesg, with_nodename=False
        )
        units = recorder.units
        size = write_core(output, raw.memory, units, raw.vmcoreinfo_bytes, changing=facts.recheck is not None)
        if facts.recheck is None or not facts.recheck().matters:  # equal before and after the pages were written
            break
        del facts
        gc.collect()
        if pause is None:
            output.unlink(missing_ok=True)
            raise InputError("memory came and went while it was read: try again when hotplug is quiet", path=raw.path)
        time.sleep(pause)
    starts, ends = raw.memory.extents
    return Distilled(units.size, size, int((ends - starts).sum()))

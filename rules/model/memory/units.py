"""What can leave a running machine by one operation: devices, hot-added RAM, memory blocks.

A namespace or device-dax range leaves by memunmap_pages(), RAM by remove_memory() of what add_memory() was given: one
row of /proc/iomem, unless the driver merges its rows (virtio-mem, which removes block by block).  At boot,
arch/arm64/kernel/setup.c gives each "System RAM" its "Kernel code" and "reserved" children; RAM that was added
later has none.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from parsers.iomem import Iomem
from parsers.memory_blocks import BlockState, MemoryBlocks
from parsers.ranges import EMPTY, Ranges
from parsers.records import dataclass
from rules.finding import Evidence
from rules.model.memory.resources import MAX_ADDRESS, Resources
from rules.model.memory.sections import SectionTable

if TYPE_CHECKING:
    from parsers.layout import KernelLayout
    from parsers.mapping import I64
    from rules.facts import Facts

__all__ = ["Inventory", "Unit", "UnitKind"]

_OF_BOOT = ("Kernel code", "Kernel data", "reserved", "Crash kernel")


class UnitKind(StrEnum):
    """How a unit leaves."""

    DEVICE = "device"
    """memunmap_pages()."""
    RAM = "ram"
    """Offline all its blocks, then remove_memory()."""
    BLOCK = "block"
    """One memory block."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Something that leaves by one operation."""

    name: str
    kind: UnitKind
    start_pfn: int
    end_pfn: int
    boot: bool | None = False
    """Whether it was there at boot, None where the evidence does not say."""
    online: bool | None = None
    """All of it, or None for devices and where it is not known."""
    node: int | None = None
    zones: str = ""
    """valid_zones of a block."""
    driver: str = ""
    """``kmem`` or ``virtio_mem``, from the resource's name."""
    aliases: tuple[str, ...] = ()
    source: str = ""
    line: int | None = None

    @property
    def pfns(self) -> Ranges:
        return Ranges.one(self.start_pfn, self.end_pfn)

    @property
    def evidence(self) -> Evidence:
        """The line that names it."""
        return Evidence(self.source, f"{self.name}: PFNs {self.start_pfn:#x}-{self.end_pfn:#x}", self.line)


@dataclass(frozen=True, eq=False)
class Inventory:
    """Everything that can leave, by kind, ascending."""

    devices: tuple[Unit, ...]
    ram: tuple[Unit, ...]
    """Hot-added RAM, as it was added; RAM of boot as far as nothing says where it came from."""
    blocks: tuple[Unit, ...]
    boot: Ranges
    """PFNs of sections that came at boot, by whatever shows it."""
    named: tuple[Unit, ...]
    """Every other claimed row of /proc/iomem."""
    unowned: Ranges = EMPTY
    """Hot-added memory that is in none of the units."""
    complete: bool = True
    """/proc/iomem and the memory blocks were read: what has no owner in them has none."""

    @classmethod
    def of(cls, facts: Facts, layout: KernelLayout) -> Inventory:
        """From iomem, memory blocks and the section table; each may be missing."""
        sections, iomem, resources = facts.get(SectionTable), facts.get(Iomem), facts.get(Resources)
        boot = EMPTY if sections is None else sections.early
        rows = () if iomem is None or resources is None else _ram_rows(iomem, layout)
        nomap = EMPTY if resources is None else resources.pfns(resources.nomap, layout.page_size)
        boot = (
            boot
            | nomap.widen(layout.pages_per_section)
            | Ranges.pairs((unit.start_pfn, unit.end_pfn) for unit in rows if unit.boot).widen(layout.pages_per_section)
        )
        blocks = _blocks(facts, layout, boot)
        devices = () if resources is None else tuple(_devices(resources, sections, layout))
        edges = _edges(blocks)
        every = (
            _with_blocks(unit, _within(blocks, edges, unit.pfns), origin)
            for unit, origin in zip(rows, _origins(rows, boot, sections), strict=True)
        )
        ram = tuple(unit for unit in every if not unit.boot)
        named = () if iomem is None or resources is None else tuple(_named(iomem, layout))
        owned = Ranges.pairs((unit.start_pfn, unit.end_pfn) for unit in (*devices, *ram, *blocks))
        added = EMPTY if sections is None else (sections.hotadded | sections.device) - boot - owned
        return cls(
            devices, ram, blocks, boot, named, added, resources is not None and facts.get(MemoryBlocks) is not None
        )

    @cached_property
    def removable(self) -> tuple[Unit, ...]:
        """What one removal takes: devices, RAM as it was added, and blocks where the driver removes by block."""
        by_block = [unit.pfns for unit in self.ram if unit.driver == "virtio_mem"]
        taken = Ranges.pairs(pair for pfns in by_block for pair in pfns.tuples())
        whole = [unit for unit in self.ram if unit.driver != "virtio_mem"]
        single = self.blocks_in(taken)
        return tuple(sorted((*self.devices, *whole, *single), key=_place))

    def with_added(self, unit: Unit, layout: KernelLayout) -> Inventory:
        """With a unit that was added, and the memory blocks that it gets if it is RAM; they are offline."""
        if unit.kind is UnitKind.DEVICE:
            return replace(self, devices=tuple(sorted((*self.devices, unit), key=_place)))
        pages = (layout.get("block_size") or layout.section_size) // layout.page_size
        added = tuple(
            Unit(f"memory{first // pages}", UnitKind.BLOCK, first, first + pages, online=False, source=unit.source)
            for first in range(unit.start_pfn // pages * pages, unit.end_pfn, pages)
        )
        return replace(
            self,
            ram=tuple(sorted((*self.ram, unit), key=_place)),
            blocks=tuple(sorted((*self.blocks, *added), key=_place)),
        )

    def without(self, pfns: Ranges) -> Inventory:
        """Without the units that lie in ``pfns``."""

        def kept(units: tuple[Unit, ...]) -> tuple[Unit, ...]:
            return tuple(one for one in units if one.pfns - pfns)

        return replace(self, devices=kept(self.devices), ram=kept(self.ram), blocks=kept(self.blocks))

    def with_online(self, online: Ranges) -> Inventory:
        """With the blocks in the state that ``online`` says."""
        return replace(self, blocks=tuple(replace(one, online=not one.pfns - online) for one in self.blocks))

    def owners(self, pfns: Ranges) -> tuple[Unit, ...]:
        """The units that hold any of ``pfns``: devices, RAM as it was added, or else blocks."""
        found = _within(self.removable, self._removable_edges, pfns)
        rest = pfns - Ranges.pairs((unit.start_pfn, unit.end_pfn) for unit in found)
        return (*found, *self.blocks_in(rest))

    def blocks_in(self, pfns: Ranges) -> list[Unit]:
        """The memory blocks that hold any of ``pfns``."""
        return _within(self.blocks, self._block_edges, pfns)

    def added_in(self, pfns: Ranges) -> list[Unit]:
        """The devices, and the RAM as it was added, that hold any of ``pfns``."""
        return _within(self._added, self._added_edges, pfns)

    @cached_property
    def _added(self) -> tuple[Unit, ...]:
        return tuple(sorted((*self.devices, *self.ram), key=_place))

    @cached_property
    def _added_edges(self) -> tuple[I64, I64]:
        return _edges(self._added)

    @cached_property
    def _block_edges(self) -> tuple[I64, I64]:
        return _edges(self.blocks)

    @cached_property
    def _removable_edges(self) -> tuple[I64, I64]:
        return _edges(self.removable)

    @cached_property
    def _by_name(self) -> dict[str, list[Unit]]:
        """Units by name, those that win first: a block, a device, RAM of a device, any other row."""
        found: dict[str, list[Unit]] = {}
        for units in (self.blocks, (*self.devices, *self.ram), self.named):
            mine: dict[str, list[Unit]] = {}
            for unit in units:
                for name in {unit.name, *unit.aliases}:
                    mine.setdefault(name, []).append(unit)
            found = mine | found
        return found

    def find(self, name: str) -> list[Unit]:
        """Units of that name; a memory block, a device, RAM of a device, any other row of /proc/iomem."""
        return self._by_name.get(name, [])


def _edges(units: tuple[Unit, ...]) -> tuple[I64, I64]:
    """First and end PFNs, one row a unit."""
    start = np.fromiter((unit.start_pfn for unit in units), np.int64, len(units))
    return start, np.fromiter((unit.end_pfn for unit in units), np.int64, len(units))


def _within(units: tuple[Unit, ...], edges: tuple[I64, I64], pfns: Ranges) -> list[Unit]:
    """The units that hold any of ``pfns``; found by search, for every answer asks."""
    if not units or not pfns:
        return []
    first, last = int(pfns.start[0]), int(pfns.end[-1])
    low = int(np.searchsorted(edges[1], first, side="right"))  # ends ascend as starts do: units do not overlap
    high = int(np.searchsorted(edges[0], last, side="left"))
    touched = pfns.touches(edges[0][low:high], edges[1][low:high])
    return [units[low + row] for row in np.flatnonzero(touched).tolist()]


def _place(unit: Unit) -> tuple[int, int]:
    return unit.start_pfn, unit.end_pfn


def _pages(iomem: Iomem, row: int, layout: KernelLayout) -> tuple[int, int]:
    start = min(int(iomem.start[row]), MAX_ADDRESS)
    end = min(int(iomem.last[row]), MAX_ADDRESS - 1) + 1
    return start // layout.page_size, -(-end // layout.page_size)


def _ram_rows(iomem: Iomem, layout: KernelLayout) -> tuple[Unit, ...]:
    """System RAM, one unit a row; several rows of boot memory may be parts of one section."""
    children: dict[int, set[str]] = {}
    for name, parent in zip(iomem.name, iomem.parent.tolist(), strict=True):
        children.setdefault(parent, set()).add(name)
    found: list[Unit] = []
    for row in iomem.named("System RAM").tolist():
        parent = int(iomem.parent[row])
        if parent >= 0 and iomem.name[parent].startswith("System RAM"):
            continue
        start, end = _pages(iomem, row, layout)
        boot = True if any(one.startswith(_OF_BOOT) for one in children.get(row, ())) else None
        names = _ancestors(iomem, row)
        driver = iomem.name[row].removeprefix("System RAM").strip(" ()")
        name = (
            names[0]
            if names and driver != "virtio_mem"
            else f"0x{start * layout.page_size:x}-0x{end * layout.page_size:x}"
        )
        aliases = tuple(dict.fromkeys((*names, iomem.name[row])))
        boot = False if driver else boot
        found.append(
            Unit(
                name, UnitKind.RAM, start, end, boot, None, None, "", driver, aliases, iomem.path, int(iomem.line[row])
            )
        )
    return tuple(found)


def _ancestors(iomem: Iomem, row: int) -> list[str]:
    """Names of the resources around a row, innermost first."""
    names: list[str] = []
    parent = int(iomem.parent[row])
    while parent >= 0:
        names.append(iomem.name[parent])
        parent = int(iomem.parent[parent])
    return names


def _with_blocks(unit: Unit, mine: list[Unit], origin: bool | None) -> Unit:
    """A RAM unit with what its blocks say of it."""
    nodes = {block.node for block in mine}
    return replace(
        unit,
        boot=unit.boot if origin is None else origin,
        online=all(block.online for block in mine) if mine else None,
        node=nodes.pop() if len(nodes) == 1 else None,
    )


def _origins(units: tuple[Unit, ...], boot: Ranges, sections: SectionTable | None) -> list[bool | None]:
    """For each unit, whether all of it was there at boot (True) or came later (False), None where neither is known."""
    start, end = _edges(units)
    early = boot.covered(start, end) == end - start
    later = np.zeros(start.size, dtype=np.bool_)
    if sections is not None:
        later = sections.hotadded.covered(start, end) == end - start
    return [True if one else (False if two else None) for one, two in zip(early.tolist(), later.tolist(), strict=True)]


def _devices(resources: Resources, sections: SectionTable | None, layout: KernelLayout) -> list[Unit]:
    """Device ranges with struct pages; without page tables, all that is claimed of persistent or reserved memory."""
    if sections is not None and (sections.device_units or sections.devices_known):
        units = sections.device_units
        return [
            Unit(
                label.split("+")[0],
                UnitKind.DEVICE,
                start,
                end,
                source=units.source,
                line=line,
                aliases=(*label.split("+"), *_dax(resources, start, layout)),
            )
            for label, start, end, line in zip(
                units.label, units.start_pfn.tolist(), units.end_pfn.tolist(), units.line, strict=True
            )
        ]
    unit = layout.pages_per_subsection
    found: list[Unit] = []
    ram = resources.pfns(resources.ram, layout.page_size)
    inside = resources.pfns(resources.containers, layout.page_size)
    for device in resources.devices:
        claimed = Ranges.one(device.start // layout.page_size, -(-device.end // layout.page_size))
        found += [
            Unit(
                device.name.split("+")[0],
                UnitKind.DEVICE,
                lo,
                hi,
                aliases=tuple(device.name.split("+")),
                source=resources.iomem.path,
                line=device.line,
            )
            for lo, hi in ((claimed & inside) - ram).shrink(unit).tuples()
        ]
    return found


def _dax(resources: Resources, start_pfn: int, layout: KernelLayout) -> tuple[str, ...]:
    """Names of the resources that begin with a device or hold its first page."""
    iomem = resources.iomem
    at = np.uint64(start_pfn * layout.page_size)
    rows = np.flatnonzero((iomem.start <= at) & (at <= iomem.last))
    return tuple(
        iomem.name[row] for row in rows.tolist() if iomem.name[row].startswith(("namespace", "dax", "pmem", "btt"))
    )


def _blocks(facts: Facts, layout: KernelLayout, boot: Ranges) -> tuple[Unit, ...]:
    blocks, sections = facts.get(MemoryBlocks), facts.get(SectionTable)
    if blocks is None or not blocks.block_size_bytes:
        return ()
    pages = blocks.block_size_bytes // layout.page_size
    start = blocks.block * pages
    early = boot.touches(start, start + pages)
    added = (
        np.zeros(start.size, dtype=np.bool_)
        if sections is None
        else (sections.hotadded.covered(start, start + pages) == pages)
    )
    drivers = _drivers(facts, layout, start, start + pages)
    lines = np.zeros(start.size, dtype=np.int64) if blocks.line is None else blocks.line
    return tuple(
        Unit(
            f"memory{number}", UnitKind.BLOCK, first, first + pages, True if of_boot else (False if hot else None),
            None if state == BlockState.UNKNOWN else state == BlockState.ONLINE, node if node >= 0 else None, zones,
            driver, (), blocks.path, line or None,
        )
        for number, first, of_boot, hot, state, node, zones, driver, line in sorted(
            zip(
                blocks.block.tolist(), start.tolist(), early.tolist(), added.tolist(), blocks.state.tolist(),
                blocks.node.tolist(), blocks.valid_zones, drivers, lines.tolist(), strict=True,
            )
        )
    )  # fmt: skip


def _drivers(
    facts: Facts, layout: KernelLayout, start: np.typing.NDArray[np.int64], end: np.typing.NDArray[np.int64]
) -> list[str]:
    """The driver that added each block, empty for firmware or where it is not known."""
    resources = facts.get(Resources)
    found = np.full(start.size, "", dtype=object)
    if resources is not None:
        for name in ("kmem", "virtio_mem"):
            rows = resources.iomem.named(f"System RAM ({name})")
            mine = Ranges.pairs(_pages(resources.iomem, row, layout) for row in rows.tolist())
            found[mine.touches(start, end)] = name
    return [str(one) for one in found]


def _named(iomem: Iomem, layout: KernelLayout) -> list[Unit]:
    """All rows by name, for operations that name another resource."""
    rows = range(len(iomem.name)) if len(iomem.name) < 1 << 16 else ()
    return [
        Unit(
            iomem.name[row], UnitKind.DEVICE, *_pages(iomem, row, layout), source=iomem.path, line=int(iomem.line[row])
        )
        for row in rows
    ]

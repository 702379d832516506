"""Physical memory as /proc/iomem names it: RAM, no-map carve-outs, device memory and who claims it.

Names are those of arch/arm64/kernel/setup.c request_standard_resources() ("System RAM", and "reserved" at the top
level for no-map memory), mm/memory_hotplug.c ("System RAM", or the driver's name in brackets: kmem, virtio_mem),
drivers/acpi/nfit and drivers/nvdimm (containers and namespaces), drivers/dax, drivers/cxl.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from parsers.expressions import expression
from parsers.ranges import EMPTY, Ranges
from parsers.records import dataclass

if TYPE_CHECKING:
    from parsers.iomem import Iomem
    from parsers.mapping import I64

__all__ = ["DeviceRange", "Resources"]

# What firmware or a bus describes; a driver that uses it claims a child.
_CONTAINER = expression(r"Persistent Memory|Soft Reserved|CXL Window|region\d+$|PCI Bus|PCI ECAM|virtio\d+$|hmem\.")
_MEMORY_CONTAINER = expression(r"Persistent Memory|Soft Reserved|CXL Window|region\d+$|hmem\.")
# Hot-added RAM whose driver names itself: certainly not boot memory.
_HOTPLUGGED_RAM = expression(r"System RAM \(\w+\)")
MAX_ADDRESS = 1 << 56  # above any Arm physical address; keeps byte ranges in int64


@dataclass(frozen=True, slots=True)
class DeviceRange:
    """A claimed range that a driver may have given struct pages to, ``[start, end)`` in bytes."""

    start: int
    end: int
    name: str
    line: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Resources:
    """Byte ranges of physical memory by kind, from one privileged /proc/iomem."""

    iomem: Iomem
    ram: Ranges
    """"System RAM" of any flavour."""
    hotplugged_ram: Ranges
    """System RAM whose name says that a driver added it."""
    nomap: Ranges
    """Top-level "reserved": no-map memory."""
    kernel_code: Ranges
    crash_kernel: Ranges
    devices: tuple[DeviceRange, ...]
    """Claimed ranges outside of System RAM; a namespace and the dax device behind it are one."""
    containers: Ranges
    """Persistent or soft-reserved memory and CXL windows, claimed or not."""
    everything: Ranges
    windows: Ranges
    """What firmware or a bus describes, claimed or not: memory containers, PCI windows, virtio-mem's region."""

    @classmethod
    def of(cls, iomem: Iomem) -> Resources | None:
        """The resources, or None where the file was read without privilege."""
        if not iomem.privileged:
            return None
        names = np.array(iomem.name, dtype=object)

        def ranges(mask: list[bool]) -> Ranges:
            rows = np.flatnonzero(mask)
            return _byte_ranges(iomem, rows)

        ram_rows = [name.startswith("System RAM") for name in names]
        return cls(
            iomem=iomem,
            ram=ranges(ram_rows),
            hotplugged_ram=ranges([_HOTPLUGGED_RAM.match(name) is not None for name in names]),
            nomap=ranges([name == "reserved" and depth == 0 for name, depth in zip(names, iomem.depth, strict=True)]),
            kernel_code=ranges([name == "Kernel code" for name in names]),
            crash_kernel=ranges([name.startswith("Crash kernel") for name in names]),
            devices=tuple(_devices(iomem)),
            containers=ranges([_MEMORY_CONTAINER.match(name) is not None for name in names]),
            everything=ranges([True] * len(iomem)),
            windows=ranges([_CONTAINER.match(name) is not None for name in names]),
        )

    @property
    def claimed(self) -> Ranges:
        """Ranges that a driver claims."""
        return Ranges.pairs((device.start, device.end) for device in self.devices)

    def after_removing(self, gone: Ranges, left: Ranges) -> Resources:
        """The resources after bytes ``gone`` of memory were removed and ``left`` of it stayed.

        A driver releases what it claims when nothing of it stays; what firmware describes stays.
        """
        spans = ((one, Ranges.one(one.start, one.end)) for one in self.devices)
        devices = tuple(one for one, span in spans if span & left or not span & gone)
        return replace(self, devices=devices, ram=self.ram - gone, hotplugged_ram=self.hotplugged_ram - gone)

    def after_adding(self, start: int, end: int, name: str, *, device: bool) -> Resources:
        """The resources after ``[start, end)``, in bytes, was added: claimed by a driver, or System RAM."""
        added = Ranges.one(start, end)
        if not device:
            return replace(self, ram=self.ram | added, hotplugged_ram=self.hotplugged_ram | added)
        return replace(self, devices=(*self.devices, DeviceRange(start, end, name, 0)))

    @property
    def mappable(self) -> Ranges:
        """Memory that the linear map may hold: RAM, and whatever a driver claims or firmware calls memory."""
        return self.ram | self.claimed | self.containers

    def pfns(self, ranges: Ranges, page_size: int) -> Ranges:
        """Byte ranges as PFNs, touched pages included."""
        return ranges.divide(page_size, outward=True)


def _byte_ranges(iomem: Iomem, rows: I64) -> Ranges:
    limit = np.uint64(MAX_ADDRESS)
    start = np.minimum(iomem.start[rows], limit).astype(np.int64)
    end = (np.minimum(iomem.last[rows], limit - np.uint64(1)) + np.uint64(1)).astype(np.int64)
    return Ranges.of(start, end) if rows.size else EMPTY


def _devices(iomem: Iomem) -> list[DeviceRange]:
    """The topmost claimed resources that are not RAM, no-map memory or containers, namespaces joined to their dax."""
    claimed: list[DeviceRange] = []
    inside = [False] * len(iomem)
    for row, name in enumerate(iomem.name):
        parent = int(iomem.parent[row])
        covered = parent >= 0 and inside[parent]
        claims = not covered and not _CONTAINER.match(name) and name != "reserved"
        inside[row] = covered or claims or name.startswith("System RAM")
        if not claims or name.startswith("System RAM"):
            continue
        start, last = int(iomem.start[row]), int(iomem.last[row])
        if last >= MAX_ADDRESS:
            continue
        line = int(iomem.line[row])
        before = claimed[-1] if claimed else None
        if before and before.end == start and name.startswith("dax") and before.name.startswith("namespace"):
            claimed[-1] = DeviceRange(before.start, last + 1, f"{before.name}+{name}", before.line)
        else:
            claimed.append(DeviceRange(start, last + 1, name, line))
    return claimed

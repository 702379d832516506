"""Memory sections: which exist, which struct pages they must have, and what one removal takes away.

The exact table is read from ``mem_section`` in a crash dump.  Otherwise it is derived: a memory block stands for
whole sections (drivers/base/memory.c), System RAM lies in whole sections (boot memory has its memmap section by
section, add_memory() takes whole blocks), and device memory has struct pages for the 2 MiB subsections that
memremap_pages() also put into the linear map (mm/memremap.c; arch_add_memory() makes both).

All ranges here are page frame numbers.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from parsers.layout import KernelLayout, Precision
from parsers.ranges import EMPTY, Ranges
from parsers.records import dataclass
from parsers.vmcore.rows import subsection_bits
from rules.finding import Claim, UndecidedError
from rules.model.memory.lists import (
    NO_UNITS,
    Lacking,
    Units,
    device_units,
    lacks_boot_memory,
    memory_block_units,
    what_lists_lack,
)

if TYPE_CHECKING:
    from parsers.mapping import Bool
    from parsers.memory_blocks import MemoryBlocks
    from parsers.vmcore.rows import SectionRows
    from parsers.zoneinfo import Zoneinfo
    from rules.model.memory.regions import LinearMap
    from rules.model.memory.resources import Resources

__all__ = ["SectionTable"]


@dataclass(frozen=True, eq=False, kw_only=True)
class SectionTable:
    """Sections by kind.  ``valid`` is certain, ``possible`` cannot be excluded: a rule about missing struct
    pages looks at the first, one about superfluous mappings at the second.
    """

    layout: KernelLayout
    precision: Precision
    valid: Ranges
    """PFNs that must have a struct page: pfn_valid() holds."""
    possible: Ranges
    """PFNs that may have one."""
    ram: Ranges
    """PFNs of System RAM."""
    online: Ranges
    """PFNs known to be online."""
    blocks: Ranges
    """PFNs that have a memory block; empty also where that is not known (``blocks_known``)."""
    blocks_known: bool
    nomap: Ranges
    early: Ranges
    """PFNs of sections known to be present since boot."""
    hotadded: Ranges
    """PFNs known to have been added after boot."""
    device: Ranges
    """PFNs of ZONE_DEVICE memory; empty also where that is not known (``devices_known``)."""
    devices_known: bool
    device_units: Units
    block_units: Units
    source: str
    listed_units: Units = NO_UNITS
    """Device memory that /proc/iomem lists and whose linear map was not seen: it may have struct pages, or none."""
    unlisted: Ranges = EMPTY
    """PFNs in the linear map that no list has: one of the lists is cut, or their mapping was not torn down (LIN-01)."""
    unnamed: Ranges = EMPTY
    """PFNs in the linear map that /proc/iomem does not name, except as a container: it is cut.  Of the exact table only
    what was added after boot and has no block; those outside of the linear map were added by halves (VMM-14).
    """
    unread: Ranges = EMPTY
    """PFNs of present sections added after boot whose subsection maps are not in the dump: some or all are valid."""
    unshown: Ranges = EMPTY
    """PFNs of parts of ``mem_section`` that are not in the dump."""
    contested: Ranges = EMPTY
    """PFNs of sections that /proc/iomem and the memory blocks, taken one after the other, disagree about (SEC-04)."""
    lacking: Lacking | None = None
    """What shows that a list lacks lines, where something does."""

    @cached_property
    def pages_per_section(self) -> int:
        return self.layout.pages_per_section

    @property
    def claim(self) -> Claim:
        """How far a finding that rests on this table may go."""
        return Claim.PROVEN if self.precision is Precision.EXACT else Claim.PROBABLE

    def need_whole_lists(self) -> None:
        """UndecidedError where a list or a dump that this table is made from has less than the other, or the tables."""
        if self.lacking is not None:
            raise UndecidedError(self.lacking.reason, *self.lacking.collect)
        if self.unread:
            number = self.unread.total // self.pages_per_section
            raise UndecidedError(f"the subsection maps of {number} sections are not in the dump", "vmcore")
        if self.precision is Precision.EXACT and (self.contested or not self.valid):
            lacking = f"{self.contested.total} pages that are RAM" if self.contested else "any memory"
            raise UndecidedError(f"mem_section has no section for {lacking}: zeros in the dump?", "vmcore")
        if self.precision is Precision.EXACT and self.unlisted:
            lacking = f"{self.unlisted.total} pages of the linear map"
            raise UndecidedError(f"mem_section has no section for {lacking}: zeros in the dump?", "vmcore")
        if self.contested:
            raise UndecidedError(
                f"/proc/iomem and the memory blocks disagree about {self.contested.total} pages",
                "iomem",
                "memory blocks",
            )
        if self.unlisted:
            raise UndecidedError(
                f"the linear map has {self.unlisted.total} pages that no list names: a list may be cut",
                "iomem",
                "memory blocks",
            )

    def claim_about(self, pfns: Ranges) -> Claim:
        """`claim`, or less where the lists disagree about some of ``pfns``: they may be of two moments."""
        return Claim.SUSPECTED if pfns & self.contested else self.claim

    @cached_property
    def early_unknown(self) -> Ranges:
        """Valid PFNs that may or may not have been there at boot."""
        return self.valid - self.early - self.hotadded

    @cached_property
    def ram_sections(self) -> Ranges:
        """PFNs of sections with RAM, no-map memory or a memory block: their memmap came section by section."""
        memory = self.early | self.ram | self.nomap | self.blocks
        return memory.widen(self.pages_per_section)

    @cached_property
    def present_sections(self) -> Ranges:
        """Numbers of the sections with valid PFNs."""
        return self.valid.divide(self.pages_per_section, outward=True)

    @cached_property
    def in_part(self) -> Ranges:
        """The valid PFNs of sections that are populated in part."""
        return self.valid - self.valid.shrink(self.pages_per_section)

    @cached_property
    def units(self) -> Units:
        """All removable units, device ranges and hot-added memory blocks, ascending."""
        both = (self.device_units, self.block_units)
        start = np.concatenate([unit.start_pfn for unit in both])
        order = np.argsort(start, kind="stable")
        labels = [label for unit in both for label in unit.label]
        lines = [line for unit in both for line in unit.line]
        return Units(
            start[order],
            np.concatenate([unit.end_pfn for unit in both])[order],
            tuple(labels[row] for row in order.tolist()),
            tuple(lines[row] for row in order.tolist()),
            self.source,
        )

    def describe(self, pfns: Ranges) -> str:
        """What the first of ``pfns`` belongs to, in words."""
        point = int(pfns.start[0])
        for kind, where in (("device memory", self.device), ("System RAM", self.ram), ("a memory block", self.blocks)):
            if where.contains(point):
                return kind
        return "memory"

    @classmethod
    def derive(
        cls,
        layout: KernelLayout,
        *,
        resources: Resources | None,
        blocks: MemoryBlocks | None,
        linear: LinearMap | None,
        boot_memory: Ranges | None,
        zoneinfo: Zoneinfo | None,
    ) -> SectionTable | None:
        """The table from iomem and memory blocks (either may be missing); None without both.

        ``boot_memory`` holds byte ranges of memory present at boot, None where unknown; ``zoneinfo`` is a witness of
        what the lists must have.
        """
        if (resources is None and blocks is None) or not layout.knows("page_size", "section_size_bits"):
            return None
        lacking = what_lists_lack(layout, resources, blocks, zoneinfo, boot_memory)
        if boot_memory is not None and lacks_boot_memory(resources, boot_memory):
            boot_memory = None
        return _Derivation(layout, resources, blocks, linear, boot_memory).table(lacking)

    @classmethod
    def exact(
        cls,
        layout: KernelLayout,
        rows: SectionRows,
        *,
        resources: Resources | None,
        blocks: MemoryBlocks | None,
        linear: LinearMap | None,
        source: str,
    ) -> SectionTable:
        """The table as ``mem_section`` in a crash dump has it; iomem and blocks only name and group what is there.

        The linear map is a second witness of which memory has sections.
        """
        return _Reading(layout, rows, resources, blocks, linear, source).table()


class _Reading:
    """From section flags and subsection maps to the table."""

    def __init__(
        self,
        layout: KernelLayout,
        rows: SectionRows,
        resources: Resources | None,
        blocks: MemoryBlocks | None,
        linear: LinearMap | None,
        source: str,
    ) -> None:
        self.layout, self.rows, self.resources, self.linear, self.source = layout, rows, resources, linear, source
        self.section = layout.pages_per_section
        self.start = rows.section_nr.astype(np.int64) * self.section
        self.blocks = memory_block_units(blocks, layout)
        self.blocks_known = blocks is not None and len(blocks) > 0

    def table(self) -> SectionTable:
        rows, resources, page = self.rows, self.resources, self.layout.page_size
        usable = rows.present & rows.has_memmap
        early = self._whole(usable & rows.early)
        known = rows.subsections_known
        bits = self._subsections(usable & ~rows.early & known)
        unread = self._whole(usable & ~rows.early & ~known)
        # Without iomem it is not known which part of a boot section is memory; only RAM is ever online.
        ram = resources.pfns(resources.ram, page) if resources else self._whole(usable & rows.online & ~rows.early)
        nomap = resources.pfns(resources.nomap, page) if resources else EMPTY
        unknown = Ranges.of(rows.unknown_start.astype(np.int64), rows.unknown_end.astype(np.int64)).scale(self.section)
        unknown |= unread | self._doubtful()
        online = self._whole(usable & rows.online)
        block_pfns = Ranges.of(self.blocks.start_pfn, self.blocks.end_pfn)
        # Only sections that device memory shares are marked, since 5.12: whole ones are known by who claims them.
        claimed = resources.pfns(resources.claimed, page) if resources else EMPTY
        device = self._subsections(usable & rows.device & known) | ((bits & claimed) - online - block_pfns)
        device -= ram
        hotadded = bits - early
        return SectionTable(
            layout=self.layout,
            precision=Precision.EXACT,
            valid=early | bits,
            possible=early | bits | unknown,
            ram=ram,
            online=online,
            blocks=block_pfns,
            blocks_known=self.blocks_known,
            nomap=nomap,
            early=early,
            hotadded=hotadded,
            device=device,
            devices_known=self.resources is not None,
            device_units=device_units(resources, device, self.layout),
            block_units=self.blocks.starting_in(hotadded),
            source=self.source,
            unlisted=self._unlisted(early | bits | unknown),
            unnamed=self._unnamed(bits),
            unread=unread,
            unshown=unknown - unread,
            contested=EMPTY if resources is None else ram - early - bits - unknown,
        )

    def _doubtful(self) -> Ranges:
        """PFNs of parts of the table that read as zeros, unless the linear map was seen to have nothing there either.

        The kernel keeps such a part of the table when the last section in it is removed.
        """
        blank = Ranges.of(self.rows.blank_start.astype(np.int64), self.rows.blank_end.astype(np.int64))
        blank = blank.scale(self.section)
        if self.linear is None or not self.layout.knows("phys_offset"):
            return blank
        linear = self.linear
        reach = linear.pfns(Ranges.one(linear.first, linear.size).divide(linear.page_bytes, outward=False))
        other = reach - linear.pfns(linear.pages_observed - linear.pages_mapped)
        return Ranges.pairs((lo, hi) for lo, hi in blank.tuples() if Ranges.one(lo, hi) & other)

    def _unlisted(self, sections: Ranges) -> Ranges:
        """PFNs in the linear map without a section."""
        if self.linear is None or not self.layout.knows("phys_offset"):
            return EMPTY
        return self.linear.pfns(self.linear.pages_mapped) - sections

    def _unnamed(self, added: Ranges) -> Ranges:
        """PFNs of ``added`` in the linear map, but in no memory block and no resource except a bare container.

        None without a resource tree or a linear map.
        """
        if self.resources is None or self.linear is None or not self.layout.knows("phys_offset"):
            return EMPTY
        resources, page = self.resources, self.layout.page_size
        bare = resources.containers - resources.claimed - resources.ram
        named = resources.pfns(resources.everything - bare, page).widen(self.layout.pages_per_subsection)
        unnamed = added - named - Ranges.of(self.blocks.start_pfn, self.blocks.end_pfn)
        return unnamed & self.linear.pfns(self.linear.pages_mapped)

    def _whole(self, chosen: Bool) -> Ranges:
        """All PFNs of the chosen sections."""
        return Ranges.of(self.start[chosen], self.start[chosen] + self.section)

    def _subsections(self, chosen: Bool) -> Ranges:
        """PFNs of the subsections whose bit is set in the chosen sections."""
        unit = self.layout.pages_per_subsection
        bits = subsection_bits(self.rows.subsections)
        row, bit = np.nonzero(bits[:, : self.section // unit] & chosen[:, None])
        start = self.start[row] + bit * unit
        return Ranges.of(start, start + unit)


class _Derivation:
    """One derivation: the steps share their inputs."""

    def __init__(
        self,
        layout: KernelLayout,
        resources: Resources | None,
        blocks: MemoryBlocks | None,
        linear: LinearMap | None,
        boot_memory: Ranges | None,
    ) -> None:
        self.layout, self.resources, self.blocks = layout, resources, blocks
        self.linear, self.boot_memory = linear, boot_memory
        self.section = layout.pages_per_section

    def table(self, lacking: Lacking | None) -> SectionTable:
        blocks, online, block_pfns = self._blocks()
        ram, nomap = self._of("ram"), self._of("nomap")
        boot = self._boot_sections()
        early = boot or EMPTY  # boot memory is never removed on arm64 (prevent_bootmem_remove_notifier, 5.7)
        device_units = self._device_units()
        device = Ranges.of(device_units.start_pfn, device_units.end_pfn)
        populated = block_pfns | ram.widen(self.section)
        added = self._of("hotplugged_ram").widen(self.section) if boot is None else populated
        hotadded = (added | self._device_only(device, populated, nomap)) - early
        possible = self._possible(populated | nomap | early | Ranges.of(blocks.start_pfn, blocks.end_pfn))
        return SectionTable(
            layout=self.layout,
            precision=Precision.DERIVED,
            valid=populated | device | early,
            possible=possible,
            unlisted=self._unlisted(populated | nomap | early),
            unnamed=self._unnamed(),
            ram=ram,
            online=online,
            blocks=block_pfns,
            blocks_known=self.blocks is not None and len(self.blocks) > 0 and self.blocks.block_size_bytes is not None,
            nomap=nomap,
            early=early,
            hotadded=hotadded,
            device=device,
            devices_known=self._devices_known(),
            device_units=device_units,
            listed_units=self._listed_units(),
            block_units=blocks.starting_in(hotadded),
            source=self.resources.iomem.path if self.resources else (self.blocks.path if self.blocks else ""),
            contested=self._contested(ram, nomap, online),
            lacking=lacking,
        )

    def _contested(self, ram: Ranges, nomap: Ranges, online: Ranges) -> Ranges:
        """Sections with RAM and without a block, and online blocks without memory."""
        if self.resources is None or self.blocks is None or not len(self.blocks):
            return EMPTY
        units = memory_block_units(self.blocks, self.layout)
        listed = ram.widen(self.section)
        return (listed - Ranges.of(units.start_pfn, units.end_pfn)) | (online - listed - nomap.widen(self.section))

    def _of(self, kind: str) -> Ranges:
        """PFNs of a kind of resource."""
        if self.resources is None:
            return EMPTY
        ranges: Ranges = getattr(self.resources, kind)
        return self.resources.pfns(ranges, self.layout.page_size)

    def _boot_sections(self) -> Ranges | None:
        """Whole sections that held memory at boot, None where that is not known."""
        if self.boot_memory is None:
            return None
        return self.boot_memory.divide(self.layout.page_size, outward=True).widen(self.section)

    def _blocks(self) -> tuple[Units, Ranges, Ranges]:
        """Memory blocks as units, the PFNs that are online, the PFNs that have a block."""
        units = memory_block_units(self.blocks, self.layout)
        if self.blocks is None or not len(units):
            return NO_UNITS, EMPTY, EMPTY
        present = Ranges.of(units.start_pfn, units.end_pfn)
        numbers = self.blocks.online[np.argsort(self.blocks.block, kind="stable")]
        online = Ranges.of(units.start_pfn[numbers], units.end_pfn[numbers])
        if self.resources is not None:
            # A boot block may have sections without memory, and the device of a removed block may linger in sysfs.
            memory = (self._of("ram") | self._of("nomap")).widen(self.section)
            larger = int(units.end_pfn[0] - units.start_pfn[0]) > self.section
            online = online & memory if larger else online
            present = present & (memory | online)
        return units, online, present

    def _device_units(self) -> Units:
        """Claimed ranges that are in the linear map: memremap_pages() put them there."""
        if self.resources is None or self.linear is None or not self.layout.knows("phys_offset"):
            return NO_UNITS
        return device_units(self.resources, self.linear.pfns(self.linear.pages_mapped) - self._of("ram"), self.layout)

    def _listed_units(self) -> Units:
        """Claimed parts of persistent and soft-reserved memory outside of what the linear map shows."""
        if self.resources is None:
            return NO_UNITS
        ram = self.resources.ram
        # Memory of a dax device that kmem drives is System RAM, what is left of the device has no struct pages.
        driven = Ranges.pairs(
            (one.start, one.end) for one in self.resources.devices if Ranges.one(one.start, one.end) & ram
        )
        pages = self.resources.pfns(
            (self.resources.claimed & self.resources.containers) - driven, self.layout.page_size
        )
        if self.linear is not None and self.layout.knows("phys_offset"):
            pages -= self.linear.pfns(self.linear.pages_observed)
        return device_units(self.resources, pages, self.layout)

    def _devices_known(self) -> bool:
        """Whether the linear map of everything that is claimed was seen: only so is it known what has struct pages."""
        if self.resources is None or self.linear is None or not self.layout.knows("phys_offset"):
            return False
        claimed = self.resources.pfns(self.resources.claimed & self.resources.containers, self.layout.page_size)
        return not claimed - self.linear.pfns(self.linear.pages_observed)

    def _device_only(self, device: Ranges, populated: Ranges, nomap: Ranges) -> Ranges:
        """Device PFNs in sections that hold no RAM of any kind: those sections came with the device."""
        if self.resources is None:
            return EMPTY
        return device - (populated | nomap).widen(self.section)

    def _unlisted(self, memory: Ranges) -> Ranges:
        """PFNs in the linear map that are neither of sections of ``memory`` nor claimed."""
        if self.linear is None or not self.layout.knows("phys_offset"):
            return EMPTY
        listed = memory.widen(self.section) if self.resources is None else self._possible(memory)
        return self.linear.pfns(self.linear.pages_mapped) - listed

    def _unnamed(self) -> Ranges:
        """PFNs in the linear map of no resource but a bare container; none without resources or a linear map."""
        if self.resources is None or self.linear is None or not self.layout.knows("phys_offset"):
            return EMPTY
        resources = self.resources
        bare = resources.containers - resources.claimed - resources.ram
        named = resources.pfns(resources.everything - bare, self.layout.page_size)
        return self.linear.pfns(self.linear.pages_mapped) - named.widen(self.layout.pages_per_subsection)

    def _possible(self, memory: Ranges) -> Ranges:
        """Everything that can have struct pages: memory by section, claimed ranges by subsection."""
        if self.resources is None:
            # Device memory is invisible without iomem: nothing can be excluded.
            return Ranges.one(0, 1 << (52 - self.layout.page_shift))
        touched = self.resources.pfns(self.resources.claimed, self.layout.page_size).widen(
            self.layout.pages_per_subsection
        )
        return memory.widen(self.section) | touched

"""The facts that rules decide on, by type, and for each one that is missing, why and how to collect it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from parsers.cmdline import CommandLine
from parsers.dmesg import Dmesg
from parsers.hugepages import HugePages
from parsers.iomem import Iomem
from parsers.kconfig import Kconfig
from parsers.layout import KernelLayout
from parsers.mapping import Mapping
from parsers.meminfo import Meminfo
from parsers.memmap_on_memory import MemmapOnMemory
from parsers.memory_blocks import MemoryBlocks
from parsers.uname import KernelRelease
from parsers.vmcore.rows import BlockRows, HugetlbRows, SectionRows, StructPageRows, ZoneRows
from parsers.zoneinfo import Zoneinfo
from rules.model.memory.regions import LinearMap, Vmemmap
from rules.model.memory.resources import Resources
from rules.model.memory.sections import SectionTable
from rules.model.memory.snapshots import Earlier
from rules.model.memory.walk import PageWalk
from rules.model.oops import Oopses
from rules.model.replay.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Mapping as Dict

__all__ = ["HOW_TO_COLLECT", "Facts", "how_to_collect"]

F = TypeVar("F")

_DUMP = "as root: cat /sys/kernel/debug/kernel_page_tables (CONFIG_PTDUMP_DEBUGFS=y; mount -t debugfs if needed)"
_IOMEM = "as root: cat /proc/iomem"
_BLOCKS = "grep -H . /sys/devices/system/memory/block_size_bytes /sys/devices/system/memory/memory*/{state,valid_zones}"
_DMESG = "dmesg from the start of the boot (journalctl -k -b)"
_VMCORE = "a crash dump (/proc/vmcore, or dump-guest-memory from the hypervisor)"

HOW_TO_COLLECT: dict[type | str, tuple[str, ...]] = {
    Mapping: (_DUMP,),
    LinearMap: (_DUMP,),
    Vmemmap: (_DUMP,),
    KernelLayout: ("a crash dump's VMCOREINFO, or --layout phys_offset=0x…; " + _IOMEM,),
    Iomem: (_IOMEM,),
    Resources: (_IOMEM,),
    MemoryBlocks: (_BLOCKS,),
    SectionTable: (_IOMEM, _BLOCKS),
    Earlier: ("a second " + _DUMP,),
    KernelRelease: ("uname -a",),
    Kconfig: ("zcat /proc/config.gz, or /boot/config-$(uname -r)",),
    CommandLine: ("cat /proc/cmdline",),
    Dmesg: (_DMESG,),
    Oopses: (_DMESG,),
    Zoneinfo: ("cat /proc/zoneinfo",),
    Meminfo: ("cat /proc/meminfo",),
    HugePages: ("grep -H . /sys/kernel/mm/hugepages/*/*",),
    MemmapOnMemory: ("cat /sys/module/memory_hotplug/parameters/memmap_on_memory",),
    Timeline: ("a trace of the hotplug operations: ptaudit probes prints the set-up",),
    SectionRows: (_VMCORE,),
    StructPageRows: (_VMCORE,),
    BlockRows: (_VMCORE,),
    ZoneRows: (_VMCORE,),
    HugetlbRows: (_VMCORE,),
    PageWalk: (_VMCORE,),
    "dmesg": (_DMESG,),
    "memory blocks": (_BLOCKS,),
    "iomem": (_IOMEM,),
    "vmcore": (_VMCORE,),
}

_NAMES: dict[type, str] = {
    Mapping: "a page-table dump",
    LinearMap: "the linear map",
    Vmemmap: "the vmemmap area",
    KernelLayout: "the kernel's address layout",
    Iomem: "/proc/iomem",
    Resources: "/proc/iomem",
    SectionTable: "the section table (/proc/iomem, memory blocks)",
    Earlier: "an earlier page-table dump",
    KernelRelease: "the kernel release",
    Kconfig: "the kernel configuration",
    CommandLine: "the kernel command line",
    Timeline: "a trace of hotplug operations",
    Dmesg: "the boot log",
    Oopses: "the kernel log",
    MemmapOnMemory: "the memmap_on_memory parameter",
    MemoryBlocks: "the memory blocks",
    Zoneinfo: "/proc/zoneinfo",
    SectionRows: "mem_section (a crash dump)",
    StructPageRows: "struct pages (a crash dump)",
    BlockRows: "struct memory_block (a crash dump)",
    ZoneRows: "the zones (a crash dump)",
    HugetlbRows: "the huge page pools (a crash dump)",
    PageWalk: "output addresses (a crash dump)",
}


def how_to_collect(kind: type | str) -> tuple[str, ...]:
    """What to do to get a fact; for an unknown kind, the kind itself."""
    return HOW_TO_COLLECT.get(kind, (kind if isinstance(kind, str) else kind.__name__,))


@dataclass(frozen=True, eq=False)
class Facts:
    """Facts by type.  ``missing`` says, for a type that is absent, why."""

    known: Dict[type, Any]
    missing: Dict[type, str] = field(default_factory=dict)

    def get(self, kind: type[F]) -> F | None:
        """The fact of that type, or None."""
        return self.known.get(kind)

    def why_missing(self, kind: type) -> str:
        """Why there is no such fact."""
        return self.missing.get(kind) or f"{_NAMES.get(kind, kind.__name__)} was not collected"

    def collect(self, kind: type) -> tuple[str, ...]:
        """What to do to get it."""
        return how_to_collect(kind)

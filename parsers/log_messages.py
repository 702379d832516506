"""Which messages of the kernel log are kept: by kind, the fixed words that find them and how they begin.

Messages from init/, mm/, arch/arm64/, drivers/ (4.14 to 6.18).
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING

from parsers.expressions import expression
from parsers.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SHAPES", "Kind", "Shape"]

MAX_TEXT = 4096


class Kind(StrEnum):
    """What a message is about."""

    BANNER = "banner"
    MACHINE = "machine"
    HOST_NAME = "host_name"
    COMMAND_LINE = "command_line"
    BOOT_MEMORY = "boot_memory"
    ZONE_RANGE = "zone_range"
    NUMA = "numa"
    RESERVED = "reserved"
    """Memory that the boot set aside: the crash kernel's, no-map, the dead kernel's core."""
    ZONELISTS = "zonelists"
    STEP = "step"
    """What every boot prints on its way, whatever the machine: where it is missing, lines were lost."""
    LOST = "lost"
    """The kernel, or what stores its log, says that messages are missing."""
    CPU_FEATURE = "cpu_feature"
    IMAGE_SIZE = "image_size"
    KASLR = "kaslr"
    KASAN = "kasan"
    PROTECTION = "protection"
    WX_CHECK = "wx_check"
    MEMORY_FAILURE = "memory_failure"
    HARDWARE_ERROR = "hardware_error"
    """Physical addresses that firmware, EDAC or a RAS node report."""
    HUGETLB = "hugetlb"
    HOTPLUG = "hotplug"
    ARM64_MEMORY = "arm64_memory"
    VMEMMAP = "vmemmap"
    VIRTIO_MEM = "virtio_mem"
    DAX = "dax"
    ACPI_MEMORY = "acpi_memory"
    ALLOCATION = "allocation"
    CRASH = "crash"
    BAD_PAGE = "bad_page"
    SPURIOUS = "spurious"
    CALL_TRACE = "call_trace"
    """A frame in the functions that build and tear down page tables."""


# By kind: fixed words, and how the message that holds them begins where it does not begin with them.
_MESSAGES: Mapping[Kind, Mapping[bytes, bytes]] = {
    Kind.BANNER: {b"Linux version ": rb"Linux version \d"},
    Kind.MACHINE: {b"DMI: ": rb"DMI: (?!Memory slots)", b"Machine model: ": b"", b"Hardware name: ": b""},
    Kind.HOST_NAME: {
        b"Set hostname to <": rb"systemd\[1\]: Set hostname to <",
        b"Hostname set to <": rb"systemd\[1\]: Hostname set to <",
    },
    Kind.COMMAND_LINE: {b"Kernel command line: ": b""},
    Kind.BOOT_MEMORY: {b": [mem ": rb" {0,2}node +\d+: \[mem "},
    Kind.ZONE_RANGE: {
        b"  DMA": rb" {0,2}DMA(?:32)? +(?:\[mem |empty)",
        b"  Normal ": rb" {0,2}Normal +(?:\[mem |empty)",
        b"  Movable ": rb" {0,2}Movable +(?:\[mem |empty)",
        b"  Device ": rb" {0,2}Device +(?:\[mem |empty)",
    },
    Kind.NUMA: {
        b"NUMA: ": rb"(?:ACPI: )?NUMA: ",
        b"NODE_DATA(": b"",
        b"SRAT: ": rb"ACPI: (?:NUMA: )?SRAT: ",
        b"Initmem setup node ": b"",
        b"On node ": rb"On node \d+, zone ",
    },
    Kind.RESERVED: {
        b"crashkernel reserved: ": b"",
        b" for elfcorehdr": rb"Reserving \d+[KM]B of memory at ",
        b"reserved mem: ": rb"OF: reserved mem: ",
    },
    Kind.ZONELISTS: {
        b" zonelists, ": rb"Built \d+ zonelists",
        b"Policy zone: ": b"",
        b"Fallback order for Node ": b"",
    },
    Kind.STEP: {
        b"Dentry cache hash table entries: ": b"",
        b"Inode-cache hash table entries: ": b"",
        b"Mount-cache hash table entries: ": b"",
        b"Mountpoint-cache hash table entries: ": b"",
        b"rought up ": rb"(?:smp: )?Brought up \d+ (?:node|CPU)",
        b"SMP: Total of ": b"",
        b"All CPU(s) started at ": rb"CPU: All CPU\(s\) started at ",
        b"Freeing unused kernel memory": b"",
        b" as init process": rb"Run \S{1,200} as init process",
    },
    Kind.LOST: {
        b" printk messages dropped": rb"\*\* \d+ printk messages dropped",
        b" printk messages suppressed": rb"\*\* \d+ printk messages suppressed",
        b" kernel messages": rb"(?:systemd-journald\[\d+\]: )?Missed \d+ kernel messages",
    },
    Kind.CPU_FEATURE: {b"CPU features: ": b""},
    Kind.IMAGE_SIZE: {b"K kernel code, ": rb"Memory: \d+K/\d+K available \("},
    Kind.KASLR: {b"KASLR ": rb"KASLR (?:enabled|disabled)", b"kaslr: ": b""},
    Kind.KASAN: {b"KernelAddressSanitizer initialized": rb"(?:kasan: )?KernelAddressSanitizer initialized"},
    Kind.PROTECTION: {
        b"Kernel memory protection ": b"",
        b"kernel read-only data": rb"Write protect(?:ed|ing) (?:the )?kernel read-only data",
        b"rodata": rb"rodata[: =]",
    },
    Kind.WX_CHECK: {
        b"Checked W+X mappings: ": b"",
        b"arm64/mm: Found ": rb"arm64/mm: Found (?:insecure W\+X|non-UXN) mapping",
    },
    Kind.MEMORY_FAILURE: {b"Memory failure: ": b"", b"Unpoison: ": b"", b"oft offline: ": rb"[Ss]oft offline: "},
    Kind.HARDWARE_ERROR: {
        b"physical fault address: 0x": rb"(?:\{\d+\})?\[Hardware Error\]: +physical fault address: 0x",
        b"physical_address: 0x": rb"(?:\{\d+\})?\[Hardware Error\]: +physical_address: 0x",
        b"ERR0ADDR: 0x": rb"AEST: (?:\{\d+\})?\[Hardware Error\]: +ERR0ADDR: 0x",
        b" page:0x": rb"EDAC MC\d+: \d+ UE [^\n]{0,400}? page:0x(?!0\b)",
    },
    Kind.HUGETLB: {b"HugeTLB": rb"HugeTLB[: ]", b"hugetlb: ": b""},
    Kind.HOTPLUG: {
        b"Offlined Pages ": b"",
        b"Section-unaligned hotplug range: ": b"",
        b"Block size [": b"",
        b"Hotplug memory [": b"",
        b"removing memory fails, because ": b"",
        b"Refuse to remove 0x": b"",
        b"Misaligned ": rb"Misaligned \w+ start: ",
        b"memory add fail, ": b"",
        b"Memory hotplug will waste ": b"",
        b"Altmap not fully unmapped": b"",
        b"failed to free all reserved pages": b"",
        b"Cannot online node ": b"",
        b" was absent from ": rb"node \d+ was absent ",
        b"failed to isolate pfn ": b"",
        b"migrating pfn ": b"",
        b"online_pages [mem ": b"",
        b"memory offlining [mem ": b"",
        b"page dumped because: ": (
            rb"page dumped because: (?:isolation failed|migration failure|unmovable page|\w+ page isolation)"
        ),
        b" is uninitialized and poisoned": rb"page:\S+ is uninitialized and poisoned",
        b"ry_block: Failed to ": rb"try_reonline_memory_block: Failed to ",
        b"remove_memory: Failed to ": rb"offline_and_remove_memory: Failed to ",
        b"memremap attempted on ": b"",
        b": Offline failed.": rb"memory memory\d+: Offline failed\.",
    },
    Kind.ARM64_MEMORY: {
        b"Boot memory [": b"",
        b"BUG: not creating mapping for ": b"",
        b"Memory doesn't fit in the linear mapping": b"",
        b" splits a leaf entry in ": rb"\[[0-9a-fx -]+\] splits a leaf entry in ",
    },
    Kind.VMEMMAP: {
        b"section already deactivated": b"",
        b"usemap allocation failed": rb"sparse\w*: node\[\d+\] usemap allocation failed",
        b"memory map backing failed": rb"sparse\w*: node\[\d+\] memory map backing failed",
        b"vmemmap alloc failure: ": rb"[^\s:]{1,16}+(?::[^\s:]{1,16}+)?: vmemmap alloc failure: ",
        b" potential offnode page_structs": rb"\[[0-9a-f]+-[0-9a-f]+\] potential offnode page_structs",
        b"allocations must be multiple of PAGE_SIZE": rb"(?:altmap|vmemmap)_\w+: allocations must be multiple of ",
    },
    Kind.VIRTIO_MEM: {b"virtio_mem ": b""},
    Kind.DAX: {
        **{b"dax%d" % digit: rb"(?:(?:kmem|dax_kmem|device_dax|dax) )?dax\d+\.\d+: " for digit in range(10)},
        b"mapping": rb"mapping\d+: 0x",
        b": probe with driver ": rb"(?:nd_pmem|dax_pmem\w*|kmem|device_dax) \S{1,64}: probe with driver ",
        b": probe ": rb"(?:device_dax|(?:dax_)?kmem|dax_pmem\w*|nd_pmem): probe ",
        b"could not reserve region": rb"nd_pmem \S{1,64} could not reserve region|\S{1,64} \S{1,64} could not reserve",
    },
    Kind.ACPI_MEMORY: {b"acpi PNP0C80:": b""},
    Kind.ALLOCATION: {b": page allocation failure: order:": rb"[^\n]{1,64}?: page allocation failure: order:"},
    Kind.CRASH: {
        b"Unable to handle kernel ": b"",
        b"Internal error: ": b"",
        b"Kernel panic - not syncing": b"",
        b"kernel BUG at ": b"",
        b"] pgd=": rb"\[[0-9a-fA-F]{16}\] pgd=",
    },
    Kind.BAD_PAGE: {b"BUG: Bad page state in process ": b"", b"page_type: ": b""},
    Kind.SPURIOUS: {b"Ignoring spurious kernel translation fault ": b""},
    Kind.CALL_TRACE: {
        words: rb" {0,2}(?:(?:pc|lr) : )?(?:\[<[0-9a-f]{16}>\] )?%b\w*(?:\.\w{1,16})*\+0x" % start
        for words, start in {
            b"pgd_pgtable_alloc": rb"(?:__)?pgd_pgtable_alloc",
            b"__create_pgd_mapping": rb"__create_pgd_mapping",
            b"free_hotplug_": rb"free_hotplug_",
            b"free_empty_": rb"free_empty_",
            b"unmap_hotplug_": rb"unmap_hotplug_",
            b"arch_add_memory": rb"arch_add_memory",
            b"arch_remove_memory": rb"arch_remove_memory",
        }.items()
    },
}


@dataclass(frozen=True, slots=True)
class Shape:
    """One way in which a message of a kind begins."""

    kind: Kind
    words: bytes
    """Fixed words that every such message holds."""
    begins: re.Pattern[bytes]
    """Matches the whole message from its first byte, or nothing."""


SHAPES: tuple[Shape, ...] = tuple(
    Shape(kind, words, expression(b"(?:%b)[^\\n]{0,%d}" % (begins or re.escape(words), MAX_TEXT)))
    for kind, shapes in _MESSAGES.items()
    for words, begins in shapes.items()
)

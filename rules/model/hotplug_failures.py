"""Operations on memory that the kernel says have failed or were refused: one table.

Messages of mm/memory_hotplug.c, drivers/base/memory.c, drivers/virtio/virtio_mem.c, drivers/dax/kmem.c,
drivers/acpi/acpi_memhotplug.c, drivers/acpi/scan.c, drivers/base/dd.c, drivers/nvdimm, mm/memremap.c,
arch/arm64/mm/mmu.c (4.14 to 6.18).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from parsers.dmesg import Kind
from parsers.expressions import expression
from parsers.ranges import EMPTY, Ranges
from parsers.records import dataclass
from rules.finding import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.dmesg import Boot, Message

__all__ = ["FAILURES", "Failed", "Failure", "failures_of"]

MAX_PA = 1 << 52


@dataclass(frozen=True, slots=True)
class Failure:
    """A kind of operation that failed: how the kernel says so, what it leaves behind and what to do."""

    name: str
    severity: Severity
    kind: Kind
    pattern: str
    """Named groups: ``start`` and ``end`` of the range in bytes, ``size``, ``errno``, ``why``, ``block``."""
    title: str
    leaves: str
    """What the operation leaves behind."""
    advice: str
    inclusive: bool = True
    """Whether ``end`` is the last address."""


_MEM = r"\[(?:mem )?(?:0x)?(?P<start>[0-9a-f]{1,16})[ -]+(?:0x)?(?P<end>[0-9a-f]{1,16})\]"

_DRIVER = r"(?:device_dax|dax_kmem|kmem|dax_pmem\w*|nd_pmem)"

FAILURES: tuple[Failure, ...] = (
    Failure(
        "offline",
        Severity.LOW,
        Kind.HOTPLUG,
        rf"memory offlining {_MEM} failed due to (?P<why>.+)",
        "Memory could not be taken offline",
        "The block stays online and in use; pages that were moved out of it are not moved back.",
        "See which pages could not be moved (the page dumps beside the message), free or unpin what holds them, or "
        "choose another block. Memory in ZONE_MOVABLE can be taken offline.",
    ),
    Failure(
        "unplug",
        Severity.LOW,
        Kind.HOTPLUG,
        r"memory (?P<device>memory\d+): Offline failed",
        "A memory device could not be unplugged",
        "The device stays, and the blocks of it that went offline before are brought online again.",
        "Take all blocks of the device offline first and see what refuses it; then unplug it again.",
    ),
    Failure(
        "online",
        Severity.MEDIUM,
        Kind.HOTPLUG,
        rf"online_pages {_MEM} failed",
        "Memory could not be brought online",
        "The memory is added, has struct pages and stays offline.",
        "Look for what refused it: a notifier (KASAN, a driver), or no memory for what onlining allocates.",
    ),
    Failure(
        "unaligned",
        Severity.LOW,
        Kind.HOTPLUG,
        r"Block size \[(?P<block>0x[0-9a-f]+)\] unaligned hotplug range: start (?P<start>0x[0-9a-f]+), "
        r"size (?P<size>0x[0-9a-f]+)|Section-unaligned hotplug range: start (?P<start_>0x[0-9a-f]+), "
        r"size (?P<size_>0x[0-9a-f]+)",
        "Memory was refused because its range is not aligned to a memory block",
        "Nothing: the kernel refused before it changed anything.",
        "Align start and size to the memory block size (block_size_bytes in /sys/devices/system/memory).",
    ),
    Failure(
        "isolate",
        Severity.INFO,
        Kind.HOTPLUG,
        r"migrating pfn (?P<pfn>[0-9a-f]{1,13}) failed ret:(?P<errno>-?\d+)"
        r"|failed to isolate pfn (?P<pfn_>[0-9a-f]{1,13})"
        r"|page dumped because: (?P<why>isolation failed|migration failure|unmovable page|\w+ page isolation)",
        "A page could not be moved away",
        "The page stays where it is, and its memory block stays online.",
        "The page dump beside the message says what the page is; unpin or free it.",
    ),
    Failure(
        "remove-online",
        Severity.HIGH,
        Kind.HOTPLUG,
        rf"removing memory fails, because memory {_MEM} is onlined",
        "Memory was to be removed that is online",
        "Nothing is removed. Up to 5.13 the kernel then stops with a BUG where the driver asked for it.",
        "Take the memory blocks offline first; look at the driver that did not wait for it (TRC-01).",
    ),
    Failure(
        "reonline",
        Severity.MEDIUM,
        Kind.HOTPLUG,
        r"(?:try_reonline_memory_block|offline_and_remove_memory): Failed to (?P<why>[^:]+): (?P<errno>-?\d+)",
        "Memory was not removed and could not be put back as it was",
        "Blocks stay offline, or stay added although the driver gave them up.",
        "Bring the blocks online again by hand, or take them offline and repeat the removal.",
    ),
    Failure(
        "absent-node",
        Severity.LOW,
        Kind.HOTPLUG,
        r"Cannot online node (?P<node>\d+)|node (?P<node_>\d+) was absent from",
        "Memory was added to a node that the kernel did not expect",
        "The node is used without being in the node_possible_map.",
        "Have the firmware name the node's memory in its SRAT.",
    ),
    Failure(
        "virtio-mem",
        Severity.MEDIUM,
        Kind.VIRTIO_MEM,
        r"virtio_mem (?P<device>virtio\d+): (?:adding memory failed: (?P<errno>-?\d+)"
        r"|unknown error, marking device broken: (?P<errno_>-?\d+)"
        r"|(?P<why>could not reserve device region|unplugging all memory is required"
        r"|device still has system memory added))",
        "A virtio-mem device could not add, keep or remove memory",
        "Memory that was plugged before stays; a device that is marked broken does not serve requests any more, and "
        "its memory cannot be unplugged until the next boot.",
        "With -ENOMEM give the guest memory for page tables and struct pages (memmap_on_memory helps), or smaller "
        "steps. With -EEXIST look for another owner of the range in /proc/iomem. A broken device needs its driver "
        "bound again or a reboot.",
    ),
    Failure(
        "dax",
        Severity.MEDIUM,
        Kind.DAX,
        r"(?:(?:kmem|dax_kmem|device_dax|dax) )?(?P<device>dax\d+\.\d+): "
        r"(?:mapping\d+: (?P<start>0x[0-9a-f]+)-(?P<end>0x[0-9a-f]+) )?"
        r"(?P<why>could not reserve region|memory add failed|cannot be hotremoved until the next reboot"
        r"|too small after alignment|rejecting DAX region)"
        r"|mapping\d+: (?P<start_>0x[0-9a-f]+)-(?P<end_>0x[0-9a-f]+) "
        r"(?P<why_>could not reserve region|memory add failed"
        r"|cannot be hotremoved until the next reboot|too small after alignment)",
        "A DAX device could not be used as memory, or be removed",
        "A range that could not be reserved belongs to somebody else, and no memory is added. A range that cannot be "
        "removed stays online memory without its driver until the next boot.",
        "Look for the owner of the range in /proc/iomem, align the device to the memory block size, or take all of "
        "its blocks offline before it is unbound.",
    ),
    Failure(
        "dax",  # as the device's own message before it: one story
        Severity.MEDIUM,
        Kind.DAX,
        rf"{_DRIVER} (?P<device>\S+): probe with driver \S+ failed with error (?P<errno>-?\d+)"
        rf"|{_DRIVER}: probe (?:of (?P<device_>\S+) failed|with driver \S+ failed) with error (?P<errno_>-?\d+)",
        "A driver could not take a device's memory",
        "The device is there and nothing uses it. Where the add failed half-way (TRC-06, VMM-14), sections that were "
        "added before the error stay valid until the next reboot.",
        "Look at the messages before it for the reason; -17 (EEXIST) after an add that failed means that its sections "
        "are still there.",
    ),
    Failure(
        "pmem",
        Severity.LOW,
        Kind.DAX,
        rf"(?P<why>\S+ \S+ could not reserve region) {_MEM}",
        "A namespace could not be used: its range is taken",
        "Nothing is mapped.",
        "Look for the owner of the range in /proc/iomem.",
    ),
    Failure(
        "mixed-region",
        Severity.MEDIUM,
        Kind.HOTPLUG,
        r"memremap attempted on (?P<why>.+? region) \[mem (?P<start>0x[0-9a-f]+)-(?P<end>0x[0-9a-f]+)",
        "A device's memory overlaps memory of another kind",
        "Nothing is mapped.",
        "The firmware, memmap= or the namespace describes a range twice: compare with /proc/iomem.",
    ),
    Failure(
        "acpi",
        Severity.MEDIUM,
        Kind.ACPI_MEMORY,
        r"acpi (?P<device>PNP0C80:\w+): "
        r"(?P<why>add_memory failed|acpi_memory_enable_device\(\) error|Enumeration failure)",
        "A memory device of the firmware could not be added",
        "The DIMM is present and not used; of a device with several ranges some may have been added (VMM-14).",
        "Look at the messages before it: a range that is not aligned, that overlaps what is there, or no memory for "
        "page tables.",
    ),
    Failure(
        "tables",
        Severity.MEDIUM,
        Kind.ALLOCATION,
        r"(?P<why>page allocation failure: order:0)",
        "No memory for a page table while memory was added",
        "Kernels before 6.19 stop with a BUG (LIN-09); later ones undo the addition.",
        "Keep memory free before adding more: a node without free memory cannot map new memory.",
    ),
)
_COMPILED = tuple((failure, expression(failure.pattern)) for failure in FAILURES)
_TABLE_ALLOCATORS = expression(r"(?:__)?pgd_pgtable_alloc|__create_pgd_mapping|arch_add_memory")


@dataclass(frozen=True, eq=False, slots=True)
class Failed:
    """A message that says that an operation failed, taken apart."""

    failure: Failure
    message: Message
    bytes_range: tuple[int, int] | None
    """Physical ``[start, end)``; None where the message names none."""
    details: str
    """The reason, error number and block size that it names, in words."""
    pfn: int | None = None
    device: str = ""
    """``virtio0``, ``dax0.0``, ``PNP0C80:01``; empty where the message names none."""

    @property
    def key(self) -> str:
        """Identifies a failed operation: the kind and the place, or the reason."""
        if self.failure.name == "isolate":  # the message and the dump of the page after it are one story
            return "isolate"
        place = f"{self.bytes_range[0]:x}-{self.bytes_range[1]:x}" if self.bytes_range else self.details
        return f"{self.failure.name} {self.device or place}"

    @property
    def is_page_dump(self) -> bool:
        """Whether the message is the reason of a page dump, which may follow one that names the page."""
        return self.failure.name == "isolate" and self.pfn is None

    def describe(self) -> str:
        """The operation with its range and reason, as a sentence."""
        place = f" [{self.bytes_range[0]:#x}, {self.bytes_range[1]:#x})" if self.bytes_range else ""
        page = f" PFN {self.pfn:#x}" if self.pfn is not None else ""
        details = f": {', '.join(filter(None, (self.device, self.details)))}" if self.device or self.details else ""
        return f"{self.failure.title}{place}{page}{details}."

    def pfns(self, page_size: int | None) -> Ranges:
        """The page frames; empty where they or the page size are not known."""
        if self.pfn is not None:
            return Ranges.one(self.pfn, self.pfn + 1)
        if self.bytes_range is None or not page_size:
            return EMPTY
        return Ranges.pairs([self.bytes_range]).divide(page_size, outward=True)


def failures_of(boot: Boot) -> Iterator[Failed]:
    """The messages of a boot that report failed operations, in order."""
    frames = {
        (message.path, message.line) for message in boot.of(Kind.CALL_TRACE) if _TABLE_ALLOCATORS.search(message.text)
    }
    for message in boot.messages:
        for failure, pattern in _COMPILED:
            if failure.kind is not message.kind or (found := pattern.search(message.text)) is None:
                continue
            if failure.name == "tables" and not any(
                path == message.path and 0 < line - message.line < _TRACE_LINES for path, line in frames
            ):
                continue
            yield _failed(failure, message, found)
            break


_TRACE_LINES = 60


def _failed(failure: Failure, message: Message, found: re.Match[str]) -> Failed:
    named = {name.rstrip("_"): value for name, value in found.groupdict().items() if value is not None}
    start, end, size = (int(named[name], 16) if name in named else None for name in ("start", "end", "size"))
    place = None
    if start is not None:
        stop = start + size if size is not None else None if end is None else end + (1 if failure.inclusive else 0)
        place = (start, stop) if stop is not None and start < stop <= MAX_PA else None
    details = [named["why"].strip()] if "why" in named else []
    details += [f"error {named['errno']}{_ERRORS.get(int(named['errno']), '')}"] if "errno" in named else []
    details += [f"memory block size {int(named['block'], 16) >> 20} MiB"] if "block" in named else []
    details += [f"node {named['node']}"] if "node" in named else []
    pfn = int(named["pfn"], 16) if "pfn" in named else None
    on_earth = pfn is not None and pfn < MAX_PA >> 12
    return Failed(
        failure, message, place, ", ".join(details), pfn if on_earth else None, named.get("device", "").rstrip(":")
    )


_ERRORS = {
    -12: " (ENOMEM: no memory)",
    -16: " (EBUSY: in use)",
    -17: " (EEXIST: it is there already)",
    -22: " (EINVAL: refused)",
    -4: " (EINTR: interrupted)",
    -11: " (EAGAIN: try again)",
    -2: " (ENOENT)",
    -7: " (E2BIG: beyond what can be mapped)",
    -34: " (ERANGE: beyond what can be mapped)",
    -28: " (ENOSPC: no room)",
}

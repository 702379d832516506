"""ENV-04: a crash kernel whose memory map may be older than the memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.kexec import KexecCrash
from parsers.ranges import EMPTY, Ranges
from parsers.vmcore.rows import CrashKernelMemory, ListedMemory
from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.model.memory.resources import Resources
from rules.model.memory.sections import SectionTable
from rules.rule import UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

_EDGES = 64
"""A list of memory that lacks more than 1 in so many pages of boot memory is not the crash kernel's."""
_LEFT_OUT = "A driver manages them, and kexec-tools leaves such memory out: loading again does not add them."


@rule(
    code="ENV-04",
    name="stale-kdump",
    severity=Severity.INFO,
    impact=Impact.INFORMATIONAL,
    references=(
        "CONFIG_CRASH_HOTPLUG exists for x86 and powerpc only (6.5 to 6.12)",
        "Linux commit 0d124e96051b (v6.4): arm64: kdump: take off the protection on crashkernel memory region",
    ),
)
def stale_kdump(
    resources: Resources,
    sections: SectionTable,
    *,
    kexec_crash: KexecCrash | None,
    crash_image: CrashKernelMemory | None,
    listed: ListedMemory | None,
) -> Iterator[Hit]:
    """Memory was hot-added on a machine with a crash kernel.

    What it means:
    arm64 does not update a loaded crash kernel after hotplug: unless it was loaded again afterwards, its
    list of memory is old, and a crash dump misses memory or runs into memory that is gone.

    How it is detected:
    A "Crash kernel" reservation in /proc/iomem, a crash kernel in it as far as that is known, and memory that was
    added after boot. The list of memory of the loaded crash kernel (its elfcorehdr) is read from /proc/kcore or from
    a hypervisor's dump. A dump that the crash kernel wrote shows what it knew of: its program headers, or the first
    bitmap of a kdump, hold all boot memory and not the crash kernel's own. Memory that the list lacks, or that it
    holds and that is gone, is proven to be stale; where it has all memory, nothing is reported.

    When it is not a problem:
    Distributions reload the crash kernel by a udev rule on memory events. Where none is loaded
    (/sys/kernel/kexec_crash_loaded is 0), none can be stale.

    What to do:
    Check that kdump is reloaded on memory hotplug (systemctl status kdump; 98-kexec.rules). kexec-tools leaves out
    memory that a driver manages ("System RAM (kmem)" and "System RAM (virtio_mem)"): loading again adds it only with
    kexec_file_load (kexec -s). Kernels before 6.4 unmap the loaded crash kernel: its list is then not in /proc/kcore.
    """
    if not resources.crash_kernel or (kexec_crash is not None and not kexec_crash.loaded):
        return
    if crash_image is not None and not crash_image.loaded:
        return
    added = sections.hotadded - sections.device
    known = _known_to_the_crash_kernel(resources, sections, listed)
    knows, where = "did not know", "that this dump was written from"
    if known is None and crash_image is not None and len(crash_image):
        known = Ranges.of(crash_image.start_pfn, crash_image.end_pfn)
        knows, where = "does not know", "of the loaded crash kernel"
    stale = EMPTY if known is None else known - sections.possible
    missing = added if known is None else added - known
    of_drivers = resources.pfns(resources.hotplugged_ram, sections.layout.page_size)
    if known is None and missing:
        why = crash_image.unread if crash_image is not None else ""
        yield _hit(
            resources,
            missing,
            "The crash kernel may not know of hot-added memory",
            f"{added.total} pages were added after boot; whether the crash kernel was loaded again is unknown"
            + (f": {why}." if why else "."),
            Claim.SUSPECTED,
        )
    elif missing:
        yield _hit(
            resources,
            missing,
            f"The crash kernel {knows} of hot-added memory",
            f"{missing.total} of {added.total} pages that were added after boot are not in the list of memory {where}."
            + ("" if missing - of_drivers else f" {_LEFT_OUT}"),
            Claim.PROVEN,
        )
    if stale:
        yield _hit(
            resources,
            stale,
            "The crash kernel takes memory that is gone for memory",
            f"{stale.total} pages in the list of memory {where} are in no section: "
            "a dump is not whole, and the crash kernel may fail when it reads them.",
            sections.claim,
            "gone",
        )
    if not missing and not stale and sections.early_unknown:
        raise UndecidedError("whether memory was added after boot is not known", "dmesg")


def _hit(resources: Resources, pfns: Ranges, title: str, message: str, claim: Claim, key: str = "") -> Hit:
    row = int(resources.iomem.named("Crash kernel")[0])
    start, last = int(resources.iomem.start[row]), int(resources.iomem.last[row])
    quoted = Evidence(resources.iomem.path, f"{start:08x}-{last:08x} : Crash kernel", int(resources.iomem.line[row]))
    return Hit(title=title, message=message, claim=claim, pfns=pfns, evidence=(quoted,), key=key)


def _known_to_the_crash_kernel(
    resources: Resources, sections: SectionTable, listed: ListedMemory | None
) -> Ranges | None:
    """PFNs that the crash kernel had in its list; None unless it wrote the dump, and wrote the whole list.

    A hypervisor's dump holds the memory of the crash kernel, too; a small or filtered core lacks boot memory.
    """
    if listed is None or not len(listed):
        return None
    page = sections.layout.page_size
    known = Ranges.of(listed.start_pfn, listed.end_pfn)
    own = resources.pfns(resources.crash_kernel, page)
    boot = resources.pfns(resources.ram, page) - sections.hotadded - own
    whole = boot and (boot - known).total * _EDGES <= boot.total
    return known if whole and not known & own else None

"""ENV-04: a crash kernel whose memory map may be older than the memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.kexec import KexecCrash
from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.model.memory.resources import Resources
from rules.model.memory.sections import SectionTable
from rules.rule import UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="ENV-04",
    name="stale-kdump",
    severity=Severity.INFO,
    impact=Impact.INFORMATIONAL,
    references=("CONFIG_CRASH_HOTPLUG exists for x86 and powerpc only (6.5 to 6.12)",),
)
def stale_kdump(resources: Resources, sections: SectionTable, *, kexec_crash: KexecCrash | None) -> Iterator[Hit]:
    """Memory was hot-added on a machine with a crash kernel.

    What it means:
    arm64 does not update a loaded crash kernel after hotplug: unless it was loaded again afterwards, its
    list of memory is old, and a crash dump misses memory or runs into memory that is gone.

    How it is detected:
    A "Crash kernel" reservation in /proc/iomem, a crash kernel in it as far as that is known, and memory that was
    added after boot.

    When it is not a problem:
    Distributions reload the crash kernel by a udev rule on memory events. Where none is loaded
    (/sys/kernel/kexec_crash_loaded is 0), none can be stale.

    What to do:
    Check that kdump is reloaded on memory hotplug (systemctl status kdump; 98-kexec.rules).
    """
    if not resources.crash_kernel or (kexec_crash is not None and not kexec_crash.loaded):
        return
    added = sections.hotadded - sections.device
    if added:
        row = int(resources.iomem.named("Crash kernel")[0])
        start, last = int(resources.iomem.start[row]), int(resources.iomem.last[row])
        yield Hit(
            title="The crash kernel may not know of hot-added memory",
            message=f"{added.total} pages were added after boot; whether the crash kernel was loaded again is unknown.",
            claim=Claim.SUSPECTED,
            pfns=added,
            evidence=(
                Evidence(
                    resources.iomem.path, f"{start:08x}-{last:08x} : Crash kernel", int(resources.iomem.line[row])
                ),
            ),
        )
    elif sections.early_unknown:
        raise UndecidedError("whether memory was added after boot is not known", "dmesg")

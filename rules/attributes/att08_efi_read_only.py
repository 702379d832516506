"""ATT-08: EFI runtime code that stays writable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.dmesg import Dmesg
from parsers.kconfig import Kconfig
from parsers.uname import KernelRelease
from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.model.bugs import KnownBug, describe_fixes
from rules.model.log import need_whole_log
from rules.rule import NotApplicableError, UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

WRITABLE_EFI = KnownBug(
    "efi-read-only",
    "EFI mappings that are to be read-only keep PTE_WRITE, which hardware takes for leave to clear the read-only bit",
    (4, 6),
    (7, 2),
    "efi: Clear PTE_WRITE when applying EFI_MEMORY_RO (2026)",
    ("ATT-08",),
    {(6, 12): 117},
)


@rule(
    code="ATT-08",
    name="efi-read-only",
    severity=Severity.INFO,
    impact=Impact.SECURITY,
    references=("stable 6.12.117: efi: Clear PTE_WRITE when applying EFI_MEMORY_RO",),
)
def efi_read_only(release: KernelRelease, *, kconfig: Kconfig | None, dmesg: Dmesg | None) -> Iterator[Hit]:
    """EFI runtime memory that firmware marks read-only may be writable.

    What it means:
    PTE_WRITE is the bit that lets a CPU with hardware dirty-bit management clear the read-only bit on a write:
    what firmware asked to be read-only is not.

    How it is detected:
    The release, a kernel built with EFI, and a CPU with hardware dirty-bit management. EFI mappings have page
    their own tables, which neither a dump of the kernel's tables nor a walk of them shows.

    When it is not a problem:
    Without EFI, or on a CPU that does not manage the dirty bit, the entries are read-only.

    What to do:
    Update.
    """
    if not WRITABLE_EFI.possible_in(release):
        raise NotApplicableError(f"{release.raw} has the fix")
    if kconfig is None:
        raise UndecidedError("whether the kernel is built with EFI is not known", Kconfig)
    if not kconfig.is_enabled("CONFIG_EFI"):
        raise NotApplicableError("the kernel is built without EFI")
    if dmesg is None:
        raise UndecidedError("whether the CPU manages the dirty bit in hardware is not known", Dmesg)
    line = dmesg.boot.feature("dirty bit")
    if line is None:
        need_whole_log(dmesg)
        raise NotApplicableError("the boot log names no hardware dirty-bit management")
    yield Hit(
        title="Read-only EFI memory may be writable",
        message=(
            f"{release.raw} with EFI, on a CPU that clears the read-only bit itself; {describe_fixes(WRITABLE_EFI)}."
        ),
        claim=Claim.SUSPECTED,
        evidence=(
            Evidence(release.path, release.raw, release.line),
            Evidence(kconfig.path, "CONFIG_EFI=y", kconfig.line("CONFIG_EFI")),
            Evidence(dmesg.path, "CPU features: hardware dirty bit management", line),
        ),
    )

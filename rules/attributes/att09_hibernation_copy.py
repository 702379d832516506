"""ATT-09: hibernation that copies a linear map with holes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.arm64 import Attr
from parsers.cmdline import CommandLine
from parsers.dmesg import Dmesg
from parsers.kconfig import Kconfig
from parsers.uname import KernelRelease
from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.model.bugs import KnownBug, describe_fixes
from rules.model.log import messages_like, need_whole_log, quote_messages
from rules.model.memory.regions import LinearMap
from rules.model.memory.sections import SectionTable
from rules.rule import NotApplicableError, UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

COPIED_HOLES = KnownBug(
    "hibernation-copy",
    "hibernation copies linear-map entries of absent memory",
    (4, 7),
    (7, 2),
    "arm64: clone only the linear map that exists at runtime (2026)",
    ("ATT-09",),
    {(6, 12): 112},
)


@rule(
    code="ATT-09",
    name="hibernation-copy",
    severity=Severity.LOW,
    impact=Impact.LATENT,
    references=(
        "arch/arm64/mm/trans_pgd.c; stable 6.12.111, 6.12.112: clone only the linear map that exists at runtime",
    ),
)
def hibernation_copy(
    release: KernelRelease,
    linear: LinearMap,
    sections: SectionTable,
    *,
    kconfig: Kconfig | None,
    command_line: CommandLine | None,
    dmesg: Dmesg | None,
) -> Iterator[Hit]:
    """Hibernation would copy a linear map from which memory was removed.

    What it means:
    To restore an image the kernel copies the tables of its linear map. Before the fix it takes entries that
    are not valid for memory that is only hidden, and stops with a BUG where the page frame does not exist.

    How it is detected:
    A release with the bug and a kernel that can hibernate, whose linear map has invalid entries for page frames
    that do not exist; or whose log says that memory went offline, none of which is there any more.

    When it is not a problem:
    Where hibernation is not used. Virtual machines with virtio-mem refuse it.

    What to do:
    Boot with nohibernate on machines that remove memory, or update.
    """
    if not COPIED_HOLES.possible_in(release):
        raise NotApplicableError(f"{release.raw} has the fix")
    if kconfig is not None and not kconfig.is_enabled("CONFIG_HIBERNATION"):
        raise NotApplicableError("the kernel cannot hibernate")
    if command_line is not None and "nohibernate" in command_line:
        raise NotApplicableError("nohibernate: the kernel was configured not to hibernate")
    invalid = linear.pfns(linear.pages(linear.where(linear.has(Attr.PRESENT) & ~linear.valid))) - sections.possible
    gone = () if _offline(sections) else messages_like(dmesg, r"^Offlined Pages ")
    if not invalid and not gone:
        if dmesg is None:
            raise UndecidedError("whether memory was removed is not known", Dmesg)
        need_whole_log(dmesg)
        return
    if kconfig is None:
        raise UndecidedError("whether the kernel can hibernate is not known", Kconfig)
    offsets = linear.offsets(invalid.shift(-linear.layout.start_pfn))
    yield Hit(
        title="Hibernation copies a linear map from which memory was removed",
        message=(
            (f"The linear map has invalid entries for {invalid.total} pages that do not exist; " if invalid else "")
            + (f"memory went offline {len(gone)} times and is gone; " if gone else "")
            + f"{release.raw} copies what the linear map was made for; {describe_fixes(COPIED_HOLES)}."
        ),
        claim=Claim.SUSPECTED,
        pfns=invalid,
        vas=linear.va_ranges(offsets)[:64],
        evidence=(
            Evidence(release.path, release.raw, release.line),
            Evidence(kconfig.path, "CONFIG_HIBERNATION=y", kconfig.line("CONFIG_HIBERNATION")),
            *linear.quote_at(offsets),
            *quote_messages(dmesg, gone),
        ),
    )


def _offline(sections: SectionTable) -> bool:
    """Whether what went offline may still be there."""
    return not sections.blocks_known or bool((sections.blocks & sections.hotadded) - sections.online)

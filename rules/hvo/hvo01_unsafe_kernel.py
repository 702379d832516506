"""HVO-01: HugeTLB vmemmap optimisation on a kernel that remaps live struct pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.arm64 import Attr
from parsers.cmdline import CommandLine
from parsers.kconfig import Kconfig
from parsers.ranges import EMPTY
from parsers.uname import KernelRelease
from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.hvo.evidence import HvoEvidence
from rules.model.bugs import HVO_RELEASES, bug, describe_fixes
from rules.model.memory.regions import Vmemmap
from rules.rule import NotApplicableError, UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="HVO-01",
    name="hvo-on-unsafe-kernel",
    severity=Severity.HIGH,
    impact=Impact.LATENT,
    references=(
        "Linux commit 060a2c92d1b6 (v6.3; stable 6.1.16, 6.2.3): arm64: mm: hugetlb: Disable "
        "HUGETLB_PAGE_OPTIMIZE_VMEMMAP",
        "Fixes: 1e63ac088f20 (v5.19)",
    ),
)
def hvo_unsafe(
    release: KernelRelease,
    *,
    kconfig: Kconfig | None,
    command_line: CommandLine | None,
    vmemmap: Vmemmap | None,
) -> Iterator[Hit]:
    """Struct pages of huge pages are remapped while in use, without break-before-make.

    What it means:
    The optimisation changes output address and permission of live struct-page mappings. Arm requires
    the entry to be invalid in between; without that a TLB may hold both translations: conflict
    aborts, or stale struct pages.

    How it is detected:
    The option is enabled (configuration, command line or sysctl), or its pattern is seen in the vmemmap area:
    one writable page followed by read-only ones. The release says whether arm64 still has it.

    When it is not a problem:
    A kernel that has the option and does not use it is not affected.

    What to do:
    Boot with hugetlb_free_vmemmap=off, or update to 6.1.16, 6.2.3, 6.3 or later.
    """
    evidence = HvoEvidence.of(kconfig, command_line)
    seen = EMPTY if vmemmap is None else vmemmap.where(vmemmap.valid & vmemmap.has(Attr.RDONLY))
    if evidence.built_in is False:
        raise NotApplicableError("the kernel is built without HugeTLB vmemmap optimisation")
    known_bad = bug("hvo-live-remap").possible_in(release)
    if not known_bad and evidence.built_in is None:
        only = f"arm64 had it from {HVO_RELEASES[0][0]}.{HVO_RELEASES[0][1]} to 6.2 only"
        if not release.is_vendor and release.series < HVO_RELEASES[0][:2]:
            raise NotApplicableError(f"{release.raw}: {only}")
        raise UndecidedError(
            f"{release.raw}: {only}, unless it was selected again; the configuration would say", Kconfig
        )
    if not seen and evidence.enabled is None:
        raise UndecidedError("whether the optimisation is enabled is not known", Kconfig, CommandLine)
    if not seen and not evidence.enabled:
        if vmemmap is None or vmemmap.unobserved:
            raise UndecidedError("a sysctl may have switched the optimisation on: struct pages would show it", Vmemmap)
        return
    where = "" if known_bad else " The kernel's configuration has it although upstream disabled it for arm64."
    yield Hit(
        title="HugeTLB vmemmap optimisation is active on arm64",
        message=(
            f"{'Read-only struct pages are mapped' if seen else 'The optimisation is enabled'}; "
            f"{describe_fixes(bug('hvo-live-remap'))}.{where}"
        ),
        claim=Claim.PROVEN if seen else Claim.PROBABLE,
        vas=() if vmemmap is None else vmemmap.va_ranges(seen)[:16],
        evidence=(
            Evidence(release.path, release.raw, release.line),
            *evidence.evidence,
            *(() if vmemmap is None else vmemmap.quote_at(seen)),
        ),
        key="seen" if seen else "enabled",
    )

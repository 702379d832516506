"""HVO-02: read-only struct pages on a kernel that makes none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.arm64 import Attr
from parsers.cmdline import CommandLine
from parsers.kconfig import Kconfig
from parsers.uname import KernelRelease
from rules.finding import Claim, Hit, Impact, Severity
from rules.hvo.evidence import HvoEvidence
from rules.model.bugs import HVO_RELEASES
from rules.model.memory.regions import Vmemmap
from rules.model.memory.walk import PageWalk
from rules.rule import UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="HVO-02",
    name="readonly-vmemmap",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=("Linux commit 060a2c92d1b6 (v6.3; stable 6.1.16, 6.2.3)",),
)
def readonly_vmemmap(
    vmemmap: Vmemmap,
    *,
    kconfig: Kconfig | None,
    command_line: CommandLine | None,
    kernel_release: KernelRelease | None,
    page_walk: PageWalk | None,
) -> Iterator[Hit]:
    """Struct pages are mapped read-only without HugeTLB vmemmap optimisation.

    What it means:
    Struct pages are written all the time (reference counts). A write to a read-only one oopses with a
    permission fault at level 3. Only HugeTLB vmemmap optimisation makes read-only ones, for tail pages.

    How it is detected:
    Read-only rows in the vmemmap area of a kernel that is built without the optimisation. Where only the
    release says that it is, and the walk of a crash dump shows runs of entries that map one page, as the
    optimisation makes them, the configuration must say so: it may be a backport.

    When it is not a problem:
    Kernels that have the option (5.19 to 6.2 on arm64, or a vendor's backport) map the tail pages of huge
    pages read-only by design; see HVO-01 for what that is worth.

    What to do:
    Compare the vendor's configuration. If it has no such option: take a crash dump, look for modules that
    write page tables.
    """
    rows = vmemmap.valid & vmemmap.has(Attr.RDONLY)
    if not rows.any():
        return
    built_in = HvoEvidence.of(kconfig, command_line).built_in
    if built_in:
        return
    if built_in is None and (
        kernel_release is None
        or HVO_RELEASES[0] <= kernel_release.series < HVO_RELEASES[1]
        or kernel_release.vendor
        or (page_walk is not None and page_walk.repeated[vmemmap.rows][rows].all())
    ):
        raise UndecidedError("whether the kernel has HugeTLB vmemmap optimisation is not known", Kconfig)
    offsets = vmemmap.where(rows)
    yield Hit(
        title="Struct pages are read-only and nothing should make them so",
        message=f"{offsets.total >> 10} KiB of struct pages are read-only, and no optimisation is built in.",
        claim=Claim.PROVEN if built_in is False else Claim.SUSPECTED,
        severity=None if built_in is False else Severity.HIGH,
        vas=vmemmap.va_ranges(offsets)[:64],
        evidence=vmemmap.quote(rows),
    )

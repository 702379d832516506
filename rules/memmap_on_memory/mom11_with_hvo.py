"""MOM-11: memmap_on_memory together with HugeTLB vmemmap optimisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.cmdline import CommandLine
from parsers.kconfig import Kconfig
from parsers.memmap_on_memory import MemmapOnMemory, MemmapOnMemoryMode
from parsers.uname import KernelRelease
from parsers.vmcore.rows import HugetlbRows
from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.hvo.evidence import HvoEvidence
from rules.rule import NotApplicableError, UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="MOM-11",
    name="memmap-on-memory-with-hvo",
    severity=Severity.INFO,
    impact=Impact.INFORMATIONAL,
    references=("Linux commit 66361095129b (v6.0): HVO and memmap_on_memory side by side",),
)
def with_hvo(
    parameter: MemmapOnMemory,
    *,
    kernel_release: KernelRelease | None,
    kconfig: Kconfig | None,
    command_line: CommandLine | None,
    hugetlb_rows: HugetlbRows | None,
) -> Iterator[Hit]:
    """Blocks that hold their own struct pages, and huge pages that give struct pages away, are both switched on.

    What it means:
    A huge page in a self-hosted block keeps all of its struct pages: the allocator cannot take those pages.
    Up to 5.18 the kernel refused memmap_on_memory altogether when the optimisation was on; since 6.0 it looks at each
    page.

    How it is detected:
    The memmap_on_memory parameter, and the optimisation's configuration, command line or, in a crash dump, switch.

    When it is not a problem:
    It is not a problem in itself; it explains why huge pages save less than expected, or why struct pages are not
    self-hosted.

    What to do:
    Choose one of the two for this host.
    """
    if parameter.mode is MemmapOnMemoryMode.OFF:
        raise NotApplicableError("memmap_on_memory is off")
    hvo = HvoEvidence.of(kconfig, command_line)
    enabled = hugetlb_rows.vmemmap_optimized if hugetlb_rows is not None else None
    if enabled is None:
        enabled = hvo.enabled
    if hvo.built_in is False:
        raise NotApplicableError("the kernel is built without HugeTLB vmemmap optimisation")
    if enabled is None:
        raise UndecidedError("whether huge pages give their struct pages away is not known", Kconfig, CommandLine)
    if not enabled:
        return
    since = (
        "" if kernel_release is None or kernel_release.series >= (6, 0) else " This kernel lets one override the other."
    )
    yield Hit(
        title="memmap_on_memory and HugeTLB vmemmap optimisation are both on",
        message=f"Huge pages in blocks that hold their own struct pages are not optimised.{since}",
        claim=Claim.PROBABLE,
        evidence=(Evidence(parameter.path, parameter.raw, parameter.line), *hvo.evidence),
    )

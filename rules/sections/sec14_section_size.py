"""SEC-14: a section size that the release does not lead one to expect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.layout import KernelLayout
from parsers.uname import KernelRelease
from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="SEC-14",
    name="section-size",
    severity=Severity.INFO,
    impact=Impact.INFORMATIONAL,
    references=("Linux commit f0b13ee23241 (v5.12): SECTION_SIZE_BITS 30 became 27, with 64K pages 29",),
)
def section_size(layout: KernelLayout, release: KernelRelease) -> Iterator[Hit]:
    """The section size is not the one that upstream has in this release.

    What it means:
    Vendors carry the smaller sections of 5.12 in older kernels. Tools that take the size from the release
    compute wrong section numbers there; this audit uses the size below.

    How it is detected:
    SECTION_SIZE_BITS from VMCOREINFO, or the memory block size, against the release.

    When it is not a problem:
    It is not a problem in itself.

    What to do:
    Nothing. Mind it when section numbers are compared with other tools'.
    """
    layout.need("section_size_bits")
    expected = 30 if release.series < (5, 12) else (29 if layout.page_size == 65536 else 27)
    found = layout.facts["section_size_bits"]
    if found.value != expected:
        yield Hit(
            title=f"Sections have {1 << (found.value - 20)} MiB",
            message=(
                f"SECTION_SIZE_BITS is {found.value} ({found.source}); "
                f"upstream {release.series[0]}.{release.series[1]} has {expected}."
            ),
            claim=Claim.PROBABLE,
            evidence=(Evidence(release.path, release.raw, release.line),),
        )

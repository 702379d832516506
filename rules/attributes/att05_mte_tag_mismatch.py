"""ATT-05: hot-added RAM mapped untagged on a machine with memory tagging."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import Attr, MemType
from parsers.dmesg import Dmesg
from rules.finding import Hit, Impact, Severity
from rules.model.bugs import bug, describe_fixes
from rules.model.log import need_whole_log
from rules.model.memory.regions import LinearMap
from rules.model.memory.sections import SectionTable
from rules.rule import NotApplicableError, UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="ATT-05",
    name="mte-tag-mismatch",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=("Linux commit d15dfd31384b (v5.12; stable 5.10.24)",),
)
def mte_tag_mismatch(linear: LinearMap, sections: SectionTable, *, dmesg: Dmesg | None) -> Iterator[Hit]:
    """Hot-added RAM is untagged where boot RAM is tagged.

    What it means:
    With the Memory Tagging Extension, RAM must be mapped Normal-Tagged: a page mapped untagged
    cannot hold tags, and user pages or hardware KASAN there fail.

    How it is detected:
    Hot-added System RAM that is plain Normal while the rest of the linear map is Normal-Tagged, on a
    CPU with MTE.

    When it is not a problem:
    The alias of the kernel image and device memory are untagged by design. On a CPU without MTE
    the difference has no effect.

    What to do:
    Update, or boot with arm64.nomte.
    """
    tagged = linear.memtype == MemType.NORMAL_TAGGED
    plain = linear.valid & (linear.memtype == MemType.NORMAL) & ~linear.has(Attr.RDONLY)
    if not (linear.valid & tagged).any():
        raise NotApplicableError("nothing in the linear map is tagged")
    untagged = linear.pfns(linear.pages(linear.where(plain))) & sections.ram
    suspect = untagged - sections.early
    if not suspect:
        sections.need_whole_lists()
        return
    if dmesg is None:
        raise UndecidedError("whether the CPU has MTE is not known", "dmesg")
    if dmesg.boot.feature("Memory Tagging Extension") is None:
        need_whole_log(dmesg)
        if not dmesg.boot.cpu_features:
            raise UndecidedError("the log names no feature of the CPU", "dmesg")
        raise NotApplicableError("the boot log names no Memory Tagging Extension")
    offsets = linear.offsets(suspect.shift(-linear.layout.start_pfn))
    yield Hit(
        title="Hot-added RAM is mapped untagged on a machine with MTE",
        message=f"{suspect.total} pages of hot-added RAM are untagged; {describe_fixes(bug('mte-hotplug'))}.",
        claim=sections.claim,
        pfns=suspect,
        vas=linear.va_ranges(offsets),
        evidence=linear.quote(np.flatnonzero(plain & offsets.touches(linear.start, linear.end))),
    )

"""ENV-02: poisoned memory where its removal or its struct pages are at stake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.dmesg import Dmesg
from parsers.ranges import EMPTY, Ranges
from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.model.memory.regions import Vmemmap
from rules.model.memory.sections import SectionTable
from rules.model.memory.walk import Outputs, PageWalk
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="ENV-02",
    name="memory-failure",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=("mm/memory-failure.c; arm64 has no set_mce_nospec(): a poisoned page stays in the linear map",),
)
def memory_failure(
    dmesg: Dmesg, sections: SectionTable, *, vmemmap: Vmemmap | None, page_walk: PageWalk | None
) -> Iterator[Hit]:
    """Poisoned page frames hold struct pages, or lie in memory that can be removed.

    What it means:
    A page with an uncorrectable error that holds struct pages will raise an abort when they are
    touched. A poisoned page in a removable block makes its removal touch the poison.

    How it is detected:
    "Memory failure" lines of the log name the page frames. They are compared with the output addresses of
    the vmemmap area, where a crash dump gives them, and with the hot-added memory.

    When it is not a problem:
    Poisoned pages stay in the linear map on arm64, which is normal. Elsewhere they are isolated and harmless.

    What to do:
    Do not offline or remove the block. Replace the memory after a shutdown.
    """
    poison = dmesg.boot.poison
    pfn = poison.pfn.astype(np.int64)
    bad = Ranges.of(pfn, pfn + 1)
    lines = tuple(
        Evidence(dmesg.path, f"Memory failure: {number:#x}", line)
        for number, line in zip(poison.pfn.tolist(), poison.line.tolist(), strict=True)
    )
    backing = _backing(vmemmap, page_walk) & bad
    if backing:
        yield Hit(
            title="Poisoned memory holds struct pages",
            message=f"{backing.total} poisoned pages back the vmemmap area.",
            claim=Claim.PROVEN,
            pfns=backing,
            evidence=lines,
            key="backing",
        )
    removable = bad & sections.hotadded
    if removable:
        yield Hit(
            title="Poisoned memory lies in a removable range",
            message=f"{removable.total} poisoned pages lie in hot-added memory: removing it touches them.",
            claim=Claim.PROBABLE,
            severity=Severity.MEDIUM,
            pfns=removable,
            evidence=lines,
            key="removable",
        )


def _backing(vmemmap: Vmemmap | None, walk: PageWalk | None) -> Ranges:
    """PFNs that the vmemmap area is made of, where a crash dump shows it."""
    if vmemmap is None or walk is None:
        return EMPTY
    return Outputs.of(vmemmap, walk).memory.divide(vmemmap.layout.page_size, outward=True)

"""SEC-12: memory above max_pfn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.ranges import Ranges
from parsers.vmcore.rows import ZoneRows
from rules.finding import Evidence, Hit, Impact, Severity
from rules.model.memory.sections import SectionTable
from rules.rule import UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="SEC-12",
    name="max-pfn",
    severity=Severity.MEDIUM,
    impact=Impact.LATENT,
    references=(
        "Linux commit 8fac67ca236b (v5.16): max_pfn follows hot-added memory",
        '"mm/memory hotplug: correct the update of max_pfn" (v6.15, stable 6.12.24): it is not lowered any more',
    ),
)
def memory_above_max_pfn(zones: ZoneRows, sections: SectionTable) -> Iterator[Hit]:
    """Online memory lies at or above max_pfn.

    What it means:
    Whatever goes through all memory up to max_pfn misses it: /proc/kpageflags and /proc/kpagecount, page_owner, the
    filter that a crash dump is made with. Until 5.15 hot-adding never raised it; from 5.16 on, adding memory at a lower
    address lowered it.

    How it is detected:
    max_pfn in the crash dump, rounded up to a section, against the PFNs of online sections.

    When it is not a problem:
    Device memory is not looked at: nothing that goes by max_pfn needs it.

    What to do:
    Update. Until then, do not trust tools that go by /proc/kpage* or page_owner, and take crash dumps unfiltered.
    """
    if zones.max_pfn is None:
        raise UndecidedError("max_pfn is not in the dump", ZoneRows)
    section = sections.pages_per_section
    limit = -(-zones.max_pfn // section) * section
    above = Ranges.of(np.maximum(sections.online.start, limit), sections.online.end)
    if above:
        yield Hit(
            title="Online memory lies above max_pfn",
            message=f"max_pfn is {zones.max_pfn:#x}, and {above.total} online pages are above it.",
            claim=sections.claim,
            pfns=above,
            evidence=(Evidence(sections.source, f"max_pfn = {zones.max_pfn:#x}"),),
        )

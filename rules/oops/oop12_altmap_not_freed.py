"""OOP-12: self-hosted struct pages were not all freed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rules.finding import Claim, Hit, Impact, Severity
from rules.model.oops import Oopses
from rules.oops.hits import need_whole, spoken_hits
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="OOP-12",
    name="warn-altmap",
    severity=Severity.HIGH,
    impact=Impact.CORRUPTION,
    references=(
        "mm/memory_hotplug.c: Altmap not fully unmapped (5.13 to 6.18)",
        "mm/memremap.c: failed to free all reserved pages",
    ),
)
def altmap_not_freed(oopses: Oopses) -> Iterator[Hit]:
    """Struct pages that a device or a block held itself were not all given back.

    What it means:
    Struct pages that lie in the memory that they describe were not all freed when it was removed, or somebody
    else freed them (MOM-05). With 16K and 64K pages: one page of struct pages was shared, and the wrong owner
    freed it (VMM-06). What still uses them will fault.

    How it is detected:
    The WARN "Altmap not fully unmapped", or "failed to free all reserved pages".

    When it is not a problem:
    It is always a problem.

    What to do:
    Remove nothing else before a reboot. A page-table dump and /proc/iomem show what lost its struct pages
    (VMM-02).
    """
    yield from spoken_hits(
        oopses,
        r"Altmap not fully unmapped|failed to free all reserved pages",
        "Self-hosted struct pages were not all freed",
        "struct pages inside of the removed memory were not all freed (MOM-05; with 16K and 64K pages perhaps VMM-06).",
        Claim.PROBABLE,
    )
    need_whole(oopses)

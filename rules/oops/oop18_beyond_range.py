"""OOP-18: memory was to be added beyond what the linear map reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rules.finding import Claim, Hit, Impact, Severity
from rules.model.oops import Oopses
from rules.oops.hits import need_whole, spoken_hits
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="OOP-18",
    name="hotplug-beyond-range",
    severity=Severity.MEDIUM,
    impact=Impact.LATENT,
    references=(
        "mm/memory_hotplug.c mhp_range_allowed() (5.12)",
        "arch/arm64/mm/mmu.c arch_get_mappable_range()",
    ),
)
def beyond_range(oopses: Oopses) -> Iterator[Hit]:
    """Memory was not added: the linear map does not reach its address.

    What it means:
    The physical address lies outside of what the linear map can map from this PHYS_OFFSET (LIN-06). With KASLR
    the reach changes from boot to boot.

    How it is detected:
    The message "Hotplug memory … exceeds maximum addressable range".

    When it is not a problem:
    The refusal protects; only the memory is missing.

    What to do:
    Place the memory at a lower address, boot with nokaslr, or use a kernel with more address bits.
    """
    yield from spoken_hits(
        oopses,
        r"Hotplug memory .* exceeds maximum addressable range",
        "Memory beyond the reach of the linear map was refused",
        "the linear map does not reach the address of the memory (LIN-06).",
        Claim.PROVEN,
    )
    need_whole(oopses)

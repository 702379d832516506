"""OOP-21: a device's memory shares its section with other memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rules.finding import Claim, Hit, Impact, Severity
from rules.model.oops import Oopses
from rules.oops.hits import need_whole, spoken_hits
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="OOP-21",
    name="device-conflict",
    severity=Severity.MEDIUM,
    impact=Impact.LATENT,
    references=("mm/memremap.c: Conflicting mapping in same section; attempted on mixed region",),
)
def conflicting_mapping(oopses: Oopses) -> Iterator[Hit]:
    """A device's memory overlaps a section that other memory is in.

    What it means:
    The kernel refused to map device memory that shares a section with an other mapping or with RAM. Ranges so
    close together are what shared blocks of struct pages come from (VMM-01).

    How it is detected:
    The WARN "Conflicting mapping in same section", or "attempted on mixed region".

    When it is not a problem:
    The refusal protects.

    What to do:
    Align namespaces and DIMMs to the section size (128 MiB; 512 MiB with 64K pages).
    """
    yield from spoken_hits(
        oopses,
        r"Conflicting mapping in same section|attempted on (?:mixed|ram) region",
        "Device memory shares its section with other memory",
        "ranges that are mapped apart lie in one section (VMM-01).",
        Claim.PROBABLE,
    )
    need_whole(oopses)

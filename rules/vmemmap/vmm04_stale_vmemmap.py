"""VMM-04: struct pages mapped for absent memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rules.finding import Hit, Impact, Severity
from rules.model.memory.regions import Vmemmap
from rules.model.memory.sections import SectionTable
from rules.rule import UndecidedError, rule
from rules.vmemmap.devices import everything_possible, unexplained

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_PLACES, MAX_QUOTED = 4, 16


@rule(
    code="VMM-04",
    name="stale-vmemmap",
    severity=Severity.MEDIUM,
    impact=Impact.LATENT,
    references=("Linux commit bbd6ec605c0f (v5.7): first teardown of vmemmap on arm64",),
)
def stale_vmemmap(vmemmap: Vmemmap, sections: SectionTable) -> Iterator[Hit]:
    """Struct pages are still mapped although none of the memory that they describe exists.

    What it means:
    The vmemmap of removed memory was not torn down. Its backing (2 MiB a section with 4K pages) is
    leaked; if the backing lay in the removed memory itself, the mapping points at nothing.

    How it is detected:
    Mapped leaves of the vmemmap area are compared with everything that can have struct pages: sections
    with RAM, no-map memory or a memory block, and every range that a driver claims in /proc/iomem.
    A leaf that describes none of it is stale.

    When it is not a problem:
    Leaves are larger than what they describe, so a leaf is stale only if all of it is. Memory that
    was being removed while the dump was taken looks like this for a moment.

    What to do:
    Kernels before 5.7 never tear vmemmap down: update. Otherwise report it with the trace of the removal.
    """
    if everything_possible(vmemmap, sections):
        raise UndecidedError("device memory may have struct pages anywhere: /proc/iomem is needed", "iomem")
    stale = unexplained(vmemmap, sections)
    if not stale:
        return
    # One finding for all of them: a kernel that tears nothing down leaves one behind with every removal.
    pfns = vmemmap.pfns(vmemmap.pages(stale))
    places = ", ".join(f"{lo:#x}-{hi:#x}" for lo, hi in pfns.tuples()[:MAX_PLACES])
    more = f" and {len(pfns) - MAX_PLACES} more places" if len(pfns) > MAX_PLACES else ""
    yield Hit(
        title="Struct pages of absent memory are mapped",
        message=(
            f"{stale.total >> 10} KiB of vmemmap describe PFNs {places}{more}, where neither RAM, nor a memory block, "
            "nor claimed device memory is."
        ),
        claim=sections.claim,
        pfns=pfns,
        vas=vmemmap.va_ranges(stale)[:MAX_QUOTED],
        evidence=vmemmap.quote_at(stale),
    )

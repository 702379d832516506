"""LIN-06: memory that the linear map cannot reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.dmesg import Dmesg
from parsers.expressions import expression
from parsers.layout import KernelLayout, Precision
from parsers.ranges import EMPTY, Ranges
from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.model.log import messages_like, need_whole_log, quote_messages
from rules.model.memory.sections import SectionTable
from rules.rule import UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.dmesg import Message

_REFUSED = expression(r"Hotplug memory \[(?:0x)?([0-9a-f]{1,13})-(?:0x)?([0-9a-f]{1,13})\] exceeds")


@rule(
    code="LIN-06",
    name="beyond-mappable-range",
    severity=Severity.HIGH,
    impact=Impact.LATENT,
    references=("arch/arm64/mm/mmu.c arch_get_mappable_range() (v5.12), inside_linear_region() (v5.10)",),
)
def beyond_mappable(layout: KernelLayout, *, dmesg: Dmesg | None, section_table: SectionTable | None) -> Iterator[Hit]:
    """Hot-added memory lies, or was to lie, outside of what the linear map can map.

    What it means:
    The linear map has room for a part of the physical address space only. Since 5.10 the kernel refuses
    memory beyond it; before, its linear addresses ran into another area.

    How it is detected:
    The kernel's refusal in the log. Valid memory in the section table that no linear address stands for.

    When it is not a problem:
    The refusal is protective: the memory is not used, and nothing is damaged.

    What to do:
    Place hot-pluggable memory at lower physical addresses, use a kernel with more virtual address bits, or
    boot with nokaslr, which randomises where the linear map begins.
    """
    said = messages_like(dmesg, r"^Hotplug memory \[.*exceeds maximum addressable range")
    if said:
        yield Hit(
            title="Memory was refused because the linear map cannot reach it",
            message=f'The kernel refused {len(said)} times: "{said[0].text}".',
            claim=Claim.PROVEN,
            severity=Severity.LOW,
            pfns=_refused(said, layout),
            evidence=quote_messages(dmesg, said),
            key="refused",
        )
    if section_table is not None:
        _need_phys_offset(layout, section_table)
        reach = (layout.linear_end - layout.page_offset) >> layout.page_shift
        outside = section_table.valid - Ranges.one(layout.start_pfn, layout.start_pfn + reach)
        if outside:
            yield Hit(
                title="Valid memory lies outside of the linear map",
                message=(
                    f"{outside.total} valid pages ({', '.join(f'PFNs {a:#x}-{b:#x}' for a, b in outside.tuples()[:4])})"
                    f" have no linear address: it reaches from PFN {layout.start_pfn:#x} for {reach:#x} pages."
                ),
                claim=section_table.claim,
                pfns=outside,
                evidence=(Evidence(section_table.source, "the section table"),),
                key="valid",
            )
    if dmesg is None:
        raise UndecidedError("whether memory was refused is not known", Dmesg)
    if section_table is None:
        raise UndecidedError("which memory is valid is not known", SectionTable)
    section_table.need_whole_lists()
    need_whole_log(dmesg)


def _need_phys_offset(layout: KernelLayout, sections: SectionTable) -> None:
    """UndecidedError where a derived PHYS_OFFSET is above valid memory: the list that gave it has lost lines."""
    first = layout.start_pfn
    derived = layout.facts["phys_offset"].precision is not Precision.EXACT
    if derived and first > 0 and sections.valid & Ranges.one(0, first):
        raise UndecidedError("PHYS_OFFSET, as it was derived, is above valid memory", "vmcore", "dmesg")


def _refused(said: tuple[Message, ...], layout: KernelLayout) -> Ranges:
    """PFNs that were to be added."""
    if not layout.knows("page_size"):
        return EMPTY
    found = [match for message in said if (match := _REFUSED.search(message.text))]
    return Ranges.pairs((int(match[1], 16), int(match[2], 16)) for match in found).divide(
        layout.page_size, outward=True
    )

"""OOP-22: a pointer to a struct page that was computed from something that has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.esr import Fault
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.oops import Oopses, Region
from rules.model.outside_vmemmap import struct_page_outside
from rules.oops.hits import need_whole, oops_hit
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="OOP-22",
    name="oops-outside-vmemmap",
    severity=Severity.INFO,
    impact=Impact.INFORMATIONAL,
    references=(
        "include/asm-generic/memory_model.h __pfn_to_page(), arch/arm64/include/asm/memory.h virt_to_page()",
        "CONFIG_DEBUG_VIRTUAL warns of virt_to_phys() of addresses that are not linear",
    ),
)
def outside_vmemmap(oopses: Oopses) -> Iterator[Hit]:
    """The kernel died on a struct page that lies beside the vmemmap area.

    What it means:
    virt_to_page() and pfn_to_page() are plain arithmetic. Of an address of the kernel image or of vmalloc they make a
    pointer just past the struct pages, of a page frame number below the start of memory one just before them. A
    driver passed a static, stack or vmalloc address to kfree(), DMA or a copy to user space, or read a page frame
    number from an entry that holds none. No memory hotplug is involved and no struct page is lost.

    How it is detected:
    The faulting address, divided back: (address - VMEMMAP_START) / sizeof(struct page) pages from the start of the
    linear map. It must be an address of the image or of modules and vmalloc that a register holds as well, or that a
    function uses which does such arithmetic; or a page at most 64 GiB below memory with PHYS_OFFSET or
    VMEMMAP_START among the registers.

    When it is not a problem:
    It is a bug wherever it happens, of the caller. Where the registers were not printed, another bad pointer can lie
    there by chance.

    What to do:
    Look at the callers in the call trace for the object that was not allocated from the linear map. Build with
    CONFIG_DEBUG_VIRTUAL, which names the address. Nothing has to be collected about memory.
    """
    for oops in oopses.all:
        if not oops.faulted(Region.OTHER, Fault.TRANSLATION) or (outside := struct_page_outside(oops)) is None:
            continue
        yield oops_hit(
            oops,
            "Struct page of something that is not memory",
            f"{oops.who} touched {outside.text}. The caller is at fault, not memory hotplug. {oops.assumptions()}",
            Claim.PROBABLE if outside.witness else Claim.SUSPECTED,
        )
    oopses.need_regions()
    need_whole(oopses)

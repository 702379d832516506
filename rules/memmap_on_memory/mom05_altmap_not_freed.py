"""MOM-05: pages that were set aside for struct pages did not come back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.dmesg import Dmesg
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.log import messages_like, need_whole_log, quote_messages
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="MOM-05",
    name="altmap-not-freed",
    severity=Severity.HIGH,
    impact=Impact.LATENT,
    references=(
        "mm/memory_hotplug.c try_remove_memory() (v5.13 to 6.12): Altmap not fully unmapped",
        "mm/memremap.c memunmap_pages() (v4.5 to 7.1): failed to free all reserved pages",
    ),
)
def altmap_not_freed(dmesg: Dmesg) -> Iterator[Hit]:
    """A range that held its own struct pages was removed and not all of them were unmapped.

    What it means:
    The kernel counts the pages that a block or device lends for its own struct pages, and at removal some were still
    out: they back struct pages of something else, or were given back to another owner. The memory is gone all the same.

    How it is detected:
    The kernel's own warnings: "Altmap not fully unmapped" of a memory block, "failed to free all reserved pages"
    of device memory.

    When it is not a problem:
    Never. It often follows from VMM-01 or VMM-06: a block or page of struct pages that two ranges share.

    What to do:
    Remove and add nothing more before a reboot; the next removal can take live struct pages along. Align
    the ranges (VMM-06), and update the kernel.
    """
    said = messages_like(dmesg, r"^(?:Altmap not fully unmapped|failed to free all reserved pages)")
    if said:
        yield Hit(
            title="Memory was removed while its own struct pages were still in use",
            message=f'The kernel warns {len(said)} time{"s" if len(said) > 1 else ""}: "{said[0].text}".',
            claim=Claim.PROVEN,
            evidence=quote_messages(dmesg, said),
        )
    need_whole_log(dmesg)

"""SEC-11: a range that is not aligned to what can be added or removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.dmesg import Dmesg
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.log import messages_like, need_whole_log, quote_messages
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator

_REFUSALS = r"^(?:Section-unaligned hotplug range: |Block size \[.*\] unaligned hotplug range: |Misaligned \w+ start: )"


@rule(
    code="SEC-11",
    name="unaligned-request",
    severity=Severity.INFO,
    impact=Impact.INFORMATIONAL,
    references=("mm/memory_hotplug.c check_hotplug_memory_range(), check_pfn_span() (v6.12)",),
)
def unaligned_request(dmesg: Dmesg) -> Iterator[Hit]:
    """An add or remove was refused because its range is not aligned.

    What it means:
    Memory blocks come and go whole, device memory by 2 MiB. A driver, a firmware table or a namespace asked for
    something else and got nothing; if it believes otherwise, its own books are wrong.

    How it is detected:
    The refusals in the kernel's log.

    When it is not a problem:
    It is not a problem in itself: nothing was changed.

    What to do:
    Align the DIMM, namespace or region that the addresses below belong to.
    """
    said = messages_like(dmesg, _REFUSALS)
    if said:
        yield Hit(
            title="A hotplug request was refused: its range is not aligned",
            message=f'{len(said)} such refusals, the first: "{said[0].text}".',
            claim=Claim.PROVEN,
            evidence=quote_messages(dmesg, said),
        )
    need_whole_log(dmesg)

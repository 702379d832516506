"""SEC-10: somebody tried to offline boot memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.dmesg import Dmesg
from parsers.layout import KernelLayout
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.log import address_ranges, messages_like, need_whole_log, quote_messages
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="SEC-10",
    name="boot-offline-attempt",
    severity=Severity.INFO,
    impact=Impact.INFORMATIONAL,
    references=("arch/arm64/mm/mmu.c prevent_bootmem_remove_notifier() (v5.7 to 7.1)",),
)
def boot_offline_attempt(dmesg: Dmesg, *, kernel_layout: KernelLayout | None) -> Iterator[Hit]:
    """Offlining of boot memory was tried and refused.

    What it means:
    Since 5.7 arm64 refuses to offline memory that it booted with. Something on this host tries all the same: an
    administrator, a udev rule, a balloon or a power-saving agent.

    How it is detected:
    "Boot memory [...] offlining attempted" in the kernel's log.

    When it is not a problem:
    It is not a problem in itself: nothing was changed.

    What to do:
    Find out who writes to /sys/devices/system/memory/memory*/state, and keep it to hot-added blocks.
    """
    said = messages_like(dmesg, r"^Boot memory \[[0-9a-f ]+\] offlining attempted")
    if said:
        yield Hit(
            title=f"Offlining of boot memory was refused {_times(len(said))}",
            message="The kernel refuses to offline memory that it booted with.",
            claim=Claim.PROVEN,
            pfns=address_ranges(said, kernel_layout),
            evidence=quote_messages(dmesg, said),
        )
    need_whole_log(dmesg)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"

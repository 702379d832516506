"""OOP-14: a removal was refused because it would split a leaf."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.oops import ReportKind
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.log import messages_like
from rules.model.oops import Oopses
from rules.oops.hits import need_whole, oops_hit, spoken_hits
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="OOP-14",
    name="offline-splits-leaf",
    severity=Severity.MEDIUM,
    impact=Impact.LATENT,
    references=("Linux commit 95a58852b0e5 (v7.1)",),
)
def split_refused(oopses: Oopses) -> Iterator[Hit]:
    """The kernel refused to take memory offline: a page-table leaf reaches beyond it.

    What it means:
    The linear map or the struct pages of the block are mapped by a leaf that holds more than the block (LIN-02,
    LIN-04). The refusal protects; this memory cannot be removed piece by piece, nor, with struct pages in the
    block itself, at all.

    How it is detected:
    The message "splits a leaf entry in", which kernels print since 7.1. virtio-mem expects -ENOMEM and -EBUSY of a
    block that it has emptied, not -EPERM, and warns in virtio_mem_offline_and_remove_memory().

    When it is not a problem:
    The refusal is right where the leaf belongs to other memory, too.

    What to do:
    Add memory in units in which it is to be removed, without memmap_on_memory, or boot with rodata=full so that
    the linear map has page entries.
    """
    yield from spoken_hits(
        oopses,
        r"splits a leaf entry in (?:linear map|vmemmap)",
        "Memory cannot be taken offline: a leaf reaches beyond it",
        "taking it offline would split a leaf of the linear map or of the struct pages (LIN-02, LIN-04): refused.",
        Claim.PROVEN,
    )
    refused = bool(messages_like(oopses.dmesg, r"splits a leaf entry in "))
    for oops in oopses.of_kind(ReportKind.WARNING):
        if oops.report.function == "virtio_mem_offline_and_remove_memory":
            yield oops_hit(
                oops,
                "virtio-mem cannot remove a block that it has emptied",
                f"{oops.who}: taking the block offline failed with an error that virtio-mem does not expect, "
                f"{'-EPERM: a leaf reaches beyond it' if refused else 'which the log does not name'}.",
                Claim.PROBABLE if refused else Claim.SUSPECTED,
            )
    need_whole(oopses)

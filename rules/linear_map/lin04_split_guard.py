"""LIN-04: offlining refused because of a leaf of the linear map, perhaps a neighbour's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.dmesg import Dmesg
from parsers.layout import KernelLayout
from parsers.uname import KernelRelease
from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.model.messages import address_ranges, messages_like, need_whole_log, quote_messages
from rules.rule import NotApplicableError, UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="LIN-04",
    name="leaf-split-guard-unreliable",
    severity=Severity.LOW,
    impact=Impact.LATENT,
    needs=(KernelRelease,),
    uses=(Dmesg, KernelLayout),
    references=(
        "Linux commit 95a58852b0e5 (v7.1): offlining is refused where a leaf would split",
        "Derived from arch/arm64/mm/mmu.c of 7.1: the range is checked after it was walked; no upstream report known",
    ),
)
def split_guard(release: KernelRelease, *, dmesg: Dmesg | None, kernel_layout: KernelLayout | None) -> Iterator[Hit]:
    """The kernel refused to offline memory because a leaf of the linear map would be split.

    What it means:
    Since 7.1 memory goes offline only if its edges are edges of leaves (LIN-02). As first merged, the check
    looks at the range behind the one that was asked for: a refusal can be due to the neighbour, and
    memory whose own edge does split a leaf can pass.

    How it is detected:
    "[...] splits a leaf entry in linear map" in the log. The addresses are those that the kernel looked at.

    When it is not a problem:
    The refusal itself is protective. Whether this kernel checks the right range has to be read from its
    source; the same message about the vmemmap area is MOM-14 or VMM-01.

    What to do:
    Compare the addresses in the message with the memory block that was to go offline. Remove memory in the
    units in which it was added; do not rely on the check.
    """
    said = () if dmesg is None else messages_like(dmesg, r"splits a leaf entry in linear map")
    if dmesg is not None and said:
        yield Hit(
            title="Memory could not go offline because of a leaf of the linear map",
            message=(
                f'The kernel refused {len(said)} times: "{said[0].text}". Since 7.1 it may have looked at the range '
                "behind the one that was asked for."
            ),
            claim=Claim.SUSPECTED,
            pfns=address_ranges(said, kernel_layout),
            evidence=(Evidence(release.path, release.raw, release.line), *quote_messages(dmesg, said)),
        )
        return
    if release.series < (7, 1):
        raise NotApplicableError(f"{release.raw} has no such check")
    if dmesg is None:
        raise UndecidedError("whether the kernel refused to offline memory is not known", Dmesg)
    need_whole_log(dmesg)

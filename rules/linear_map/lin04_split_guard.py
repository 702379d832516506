"""LIN-04: offlining refused because of a leaf of the linear map, perhaps a neighbour's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.dmesg import Dmesg
from parsers.layout import KernelLayout
from parsers.uname import KernelRelease
from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.model.log import address_ranges, messages_like, need_whole_log, quote_messages
from rules.model.replay.offlining import Offlining
from rules.rule import NotApplicableError, UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

_RIGHT_RANGE = (7, 3)


@rule(
    code="LIN-04",
    name="leaf-split-guard-unreliable",
    severity=Severity.LOW,
    impact=Impact.LATENT,
    references=(
        "Linux commit 95a58852b0e5 (v7.1): offlining is refused where a leaf would split",
        "arch/arm64/mm/mmu.c prevent_memory_remove_notifier(): 7.1 passes the PFN after its loop, 7.3.4 the first",
        "Seen on Debian's 7.3.4: no memory block under a 1 GiB leaf goes offline; no upstream report known",
    ),
)
def split_guard(
    release: KernelRelease,
    *,
    dmesg: Dmesg | None,
    kernel_layout: KernelLayout | None,
    offlining: Offlining | None,
) -> Iterator[Hit]:
    """The kernel refuses to offline memory because a leaf of the linear map would be split.

    What it means:
    Since 7.1 memory goes offline only if its edges are edges of leaves (LIN-02). The check is made for each memory
    block, and what would be unmapped is all of what was added: no block under a larger leaf can ever go
    offline, though removing all of them would take the whole leaf. In 7.1 it also looks at the range after the
    one that was asked for; 7.3 looks at the right one.

    How it is detected:
    "[...] splits a leaf entry in linear map" in the log. The addresses are those that the kernel looked at. Before it
    is tried, the check of the kernel is made on the page tables for every hot-added block that is online.

    When it is not a problem:
    The refusal itself is protective. Before 7.3, whether the kernel checks the right range has to be read from
    its source; the same message about the vmemmap area is MOM-14, VMM-01 or VMM-05.

    What to do:
    Plug memory that has to leave again in DIMMs smaller than 1 GiB, or boot with rodata=full on CPUs that then map
    the linear area by pages. Before 7.3, compare the addresses in the message with the block that was to go offline.
    A block that holds its own struct pages offers itself without them, so that its edge lies inside of a leaf however
    small the DIMM is: MOM-14 says what to do.
    """
    said = messages_like(dmesg, r"splits a leaf entry in linear map")
    if said:
        right = release.series >= _RIGHT_RANGE
        doubt = "" if right else " Before 7.3 it may have looked at the range after the one that was asked for."
        yield Hit(
            title="Memory could not go offline because of a leaf of the linear map",
            message=f'The kernel refused {len(said)} times: "{said[0].text}".{doubt}',
            claim=Claim.PROVEN if right else Claim.SUSPECTED,
            pfns=address_ranges(said, kernel_layout),
            evidence=(Evidence(release.path, release.raw, release.line), *quote_messages(dmesg, said)),
        )
        return
    if release.series < (7, 1):
        raise NotApplicableError(f"{release.raw} has no such check")
    if offlining is not None:
        yield from offlining.hits("LIN-04", hosted=False)
    if dmesg is None:
        raise UndecidedError("whether the kernel refused to offline memory is not known", Dmesg)
    need_whole_log(dmesg)

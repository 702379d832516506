"""MOM-14: offlining of a self-hosted block that is refused because of its own struct pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.dmesg import Dmesg
from parsers.ftrace.functions import Kind
from parsers.layout import KernelLayout
from parsers.memmap_on_memory import MemmapOnMemory, MemmapOnMemoryMode
from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.model.log import address_ranges, messages_like, need_whole_log, quote_messages
from rules.model.replay.offlining import Offlining
from rules.model.replay.state import YES
from rules.model.replay.timeline import Timeline
from rules.rule import NotApplicableError, UndecidedError, rule
from rules.trace.anomalies import hit_of_call

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.ranges import Ranges

_EPERM = -1


@rule(
    code="MOM-14",
    name="self-hosted-offline-refused",
    severity=Severity.MEDIUM,
    impact=Impact.LATENT,
    references=(
        "Linux commit 95a58852b0e5 (v7.1)",
        "arch/arm64/mm/mmu.c can_unmap_without_split() (v7.1 to 7.3); seen on Debian's 7.3.4",
    ),
)
def offline_refused(
    dmesg: Dmesg, layout: KernelLayout, *, memmap_on_memory: MemmapOnMemory | None, offlining: Offlining | None
) -> Iterator[Hit]:
    """A memory block cannot be offlined because the range that it offers begins after its own struct pages.

    What it means:
    Since 7.1 the kernel refuses to offline memory at whose edges a leaf of the linear map or the vmemmap area would
    have to be split. A block that holds its own struct pages offers itself without its first pages: its edge always
    lies inside of a vmemmap block, and of a contiguous run of the linear map unless that is mapped with pages.

    How it is detected:
    "[...] splits a leaf entry in vmemmap" in the log of a kernel with memmap_on_memory on, or "in linear map" of a
    range that begins inside of a memory block. It is proven where the range begins there, after the pages that the
    block keeps for itself. Before it is tried, the check of the kernel is made on the page tables for every block that
    is online and holds its own struct pages.

    When it is not a problem:
    Without memmap_on_memory the refusal is right: the edge of the range does share a leaf with live memory (VMM-01).

    What to do:
    Plug memory that has to be unplugged again without memmap_on_memory.
    """
    said = messages_like(dmesg, r"splits a leaf entry in vmemmap")
    off = memmap_on_memory is not None and memmap_on_memory.mode is MemmapOnMemoryMode.OFF
    if not said and memmap_on_memory is not None and not off:
        linear = messages_like(dmesg, r"splits a leaf entry in linear map")
        said = tuple(one for one in linear if _inside_blocks(address_ranges((one,), layout), layout))
    if not said:
        if offlining is not None and not off:  # a crash dump has the blocks, and no parameter of a module
            yield from offlining.hits("MOM-14", "LIN-04", hosted=True)
        need_whole_log(dmesg)
        return
    if memmap_on_memory is None:
        raise UndecidedError("whether blocks hold their own struct pages is not known", MemmapOnMemory)
    if off:
        raise NotApplicableError("memmap_on_memory is off")
    refused = address_ranges(said, layout)
    yield Hit(
        title="Blocks that hold their own struct pages cannot be offlined",
        message=f'The kernel refused {len(said)} times: "{said[0].text}".',
        claim=Claim.PROVEN if _inside_blocks(refused, layout) else Claim.PROBABLE,
        pfns=refused,
        evidence=(
            *quote_messages(dmesg, said),
            Evidence(memmap_on_memory.path, memmap_on_memory.raw, memmap_on_memory.line),
        ),
    )


@offline_refused.fallback
def foreseen(offlining: Offlining) -> Iterator[Hit]:
    """The check of the kernel, made on page tables where no log was collected."""
    yield from offlining.hits("MOM-14", "LIN-04", hosted=True)


@offline_refused.fallback
def predicted_by_trace(timeline: Timeline) -> Iterator[Hit]:
    """Self-hosted memory whose offlining a notifier refused."""
    calls, state = timeline.calls, timeline.state
    mine = calls.of(Kind.OFFLINE_PAGES)
    refused = mine[calls.ret[mine] == _EPERM]
    hosted = [call for call in refused.tolist() if (state.self_hosted[timeline.rows_of(call)] == YES).any()]
    if hosted:
        yield hit_of_call(
            timeline, hosted[0], "Self-hosted memory cannot be offlined",
            f"{len(hosted)} attempts to offline self-hosted memory were refused (-EPERM), first "
            f"{timeline.describe(hosted[0])}: its struct pages begin inside of a vmemmap block.",
            Claim.PROBABLE,
        )  # fmt: skip


def _inside_blocks(refused: Ranges, layout: KernelLayout) -> bool:
    """Whether all of the refused ranges begin after the start of a block."""
    block = layout.get("block_size")
    if not refused or block is None:
        return False
    return bool((refused.start % (block // layout.page_size) != 0).all())

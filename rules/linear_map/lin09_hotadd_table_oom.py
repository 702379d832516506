"""LIN-09: a hot-add that panics for want of a page-table page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.arm64 import PTE
from parsers.dmesg import Dmesg, Kind
from parsers.meminfo import Meminfo
from parsers.uname import KernelRelease
from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.model.bugs import bug, describe_fixes
from rules.model.log import messages_like, quote_messages
from rules.model.memory.regions import LinearMap
from rules.rule import NotApplicableError, UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.dmesg import Message

ENTRY_BYTES = 8
NEAR = 60
"""Lines between the first line of a report and the last frame of its trace."""


@rule(
    code="LIN-09",
    name="hotadd-pgtable-oom",
    severity=Severity.HIGH,
    impact=Impact.LATENT,
    references=("Linux commit bfc184cb1ba7 (v6.19): hot-add returns an error where a table cannot be allocated",),
)
def hotadd_table_oom(
    release: KernelRelease, *, dmesg: Dmesg | None, linear_map: LinearMap | None, meminfo: Meminfo | None
) -> Iterator[Hit]:
    """Adding memory can panic, or did, because there is no memory for its page tables.

    What it means:
    Up to 6.18 the kernel takes for granted that page tables for hot-added memory can be allocated, and
    panics where they cannot: memory is often added when little is free.

    How it is detected:
    "kernel BUG at arch/arm64/mm/mmu.c" under arch_add_memory() and the allocation of a table, in the log. As a
    prediction only: a release with the bug, a linear map of single pages, and less free memory than
    the tables for as much memory again would take.

    When it is not a problem:
    With blocks in the linear map the tables are small. The prediction is a suspicion: most hot-adds are smaller.

    What to do:
    Keep 0.2 % of the size to be added free (8 bytes a page), add memory in smaller steps, or update.
    """
    entry = bug("table-oom-bug")
    said = _panics(dmesg)
    if said:
        yield Hit(
            title="Adding memory panicked while it made page tables",
            message=f'"{said[0].text}" under arch_add_memory(); {describe_fixes(entry)}.',
            claim=Claim.PROVEN if any("pgtable_alloc" in message.text for message in said) else Claim.PROBABLE,
            evidence=(Evidence(release.path, release.raw, release.line), *quote_messages(dmesg, said)),
            key="panic",
        )
        return
    if not entry.possible_in(release):
        raise NotApplicableError(f"{release.raw} has the fix")
    if linear_map is None:
        raise UndecidedError("whether the linear map is made of pages is not known", LinearMap)
    total = linear_map.mapped.total
    pages = linear_map.where(linear_map.valid & (linear_map.level == PTE)).total
    if 2 * pages > total:
        if meminfo is None or (free := meminfo.get("MemFree")) is None:
            raise UndecidedError("how much memory is free is not known", Meminfo)
        needed = total // linear_map.layout.page_size * ENTRY_BYTES
        if free < needed:
            yield Hit(
                title="Too little memory is free for the page tables of a large hot-add",
                message=(
                    f"{free >> 10} KiB are free; page tables for as much memory again ({total >> 20} MiB) take "
                    f"{needed >> 10} KiB, and {release.raw} panics if they cannot be had; {describe_fixes(entry)}."
                ),
                claim=Claim.SUSPECTED,
                severity=Severity.LOW,
                evidence=(
                    Evidence(release.path, release.raw, release.line),
                    Evidence(meminfo.path, f"MemFree: {free >> 10} kB", meminfo.line("MemFree")),
                ),
                key="prediction",
            )
    if dmesg is None:
        raise UndecidedError("whether a hot-add panicked is not known", Dmesg)


def _panics(dmesg: Dmesg | None) -> tuple[Message, ...]:
    """BUGs of mmu.c with the frames of hot-add after them."""
    if dmesg is None:
        return ()
    bugs = messages_like(dmesg, r"kernel BUG at \S*arch/arm64/mm/mmu\.c")
    frames = [
        frame
        for frame in dmesg.boot.of(Kind.CALL_TRACE)
        if any(frame.path == one.path and frame.line - one.line in range(NEAR) for one in bugs)
        and any(name in frame.text for name in ("pgtable_alloc", "__create_pgd_mapping", "arch_add_memory"))
    ]
    return (*bugs, *frames) if any("arch_add_memory" in frame.text for frame in frames) else ()

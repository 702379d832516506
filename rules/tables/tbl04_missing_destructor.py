"""TBL-04: table pages that hot-remove frees without their destructor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.dmesg import Dmesg, Kind
from parsers.meminfo import Meminfo
from parsers.uname import KernelRelease
from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.model.bugs import bug, describe_fixes
from rules.model.log import messages_like, need_whole_log, quote_messages
from rules.rule import NotApplicableError, UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.dmesg import Message

NEAR = 60
"""Lines between the first line of a report and the last frame of its trace."""


@rule(
    code="TBL-04",
    name="pgtable-destructor-missing",
    severity=Severity.MEDIUM,
    impact=Impact.WASTE,
    references=("Linux commit c594b83457cc (v7.1)", "Fixes: 5e8eb9aeeda3 (v6.16)"),
)
def missing_destructor(release: KernelRelease, *, dmesg: Dmesg | None, meminfo: Meminfo | None) -> Iterator[Hit]:
    """Hot-remove frees page-table pages that are still marked and counted as such.

    What it means:
    Every removal leaves the PageTables counter higher than it is, may leak the lock of each table, and on
    6.16 with CONFIG_DEBUG_VM reports a bad page: the page goes back to the allocator with the type of a table.

    How it is detected:
    "Bad page state" of a page of type "table" under the functions of hot-remove, in the log. Without it, memory
    that went offline on a release with the bug: then each removal is one step of the leak.

    When it is not a problem:
    A bad page of type table that something else frees is another bug. The release proves nothing: a vendor's kernel
    may have the fix, so without the message this is a suspicion.

    What to do:
    Update. Compare PageTables in /proc/meminfo before and after a removal to see the leak.
    """
    entry = bug("pgtable-dtor")
    said = _bad_tables(dmesg)
    if said:
        yield Hit(
            title="Hot-remove freed a page table without its destructor",
            message=f'The log reports a bad page of type "table" freed by hot-remove; {describe_fixes(entry)}.',
            claim=Claim.PROVEN,
            evidence=(Evidence(release.path, release.raw, release.line), *quote_messages(dmesg, said)),
            key="bad page",
        )
        return
    if not entry.possible_in(release):
        raise NotApplicableError(f"{release.raw} does not have the bug")
    if dmesg is None:
        raise UndecidedError("whether memory was removed is not known", Dmesg)
    removed = messages_like(dmesg, r"^Offlined Pages ")
    if removed:
        counted = meminfo.get("PageTables") if meminfo is not None else None
        yield Hit(
            title="Removed memory leaves its page tables counted",
            message=(
                f"{len(removed)} times memory went offline on {release.raw}, where freed tables stay counted; "
                f"{describe_fixes(entry)}." + (f" PageTables is {counted >> 10} KiB." if counted is not None else "")
            ),
            claim=Claim.SUSPECTED,
            severity=Severity.LOW,
            evidence=(Evidence(release.path, release.raw, release.line), *quote_messages(dmesg, removed)),
            key="release",
        )
        return
    need_whole_log(dmesg)


def _bad_tables(dmesg: Dmesg | None) -> tuple[Message, ...]:
    """The messages of a bad page of type table whose trace goes through hot-remove."""
    if dmesg is None:
        return ()
    bad = [message for message in dmesg.boot.of(Kind.BAD_PAGE) if "(table)" in message.text]
    frames = [
        message
        for message in dmesg.boot.of(Kind.CALL_TRACE)
        if any(name in message.text for name in ("free_hotplug_", "free_empty_", "arch_remove_memory"))
    ]
    near = [frame for frame in frames if any(frame.line - page.line in range(NEAR) for page in bad)]
    return (*bad, *near) if near else ()

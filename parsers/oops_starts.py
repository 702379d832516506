"""How the kernel's reports begin: fixed words, and what must surround them.

From arch/arm64/mm/fault.c, arch/arm64/kernel/traps.c, kernel/panic.c, lib/bug.c, kernel/rcu/tree_stall.h,
kernel/watchdog.c, kernel/hung_task.c, kernel/locking/lockdep.c, mm/memory.c, mm/page_alloc.c, mm/debug.c,
mm/kasan/report.c and mm/kfence/report.c (4.4 to 6.18).
"""

from __future__ import annotations

import re
from enum import StrEnum

from parsers.expressions import expression
from parsers.records import dataclass

__all__ = ["STARTS", "ReportKind", "Start"]


class ReportKind(StrEnum):
    """What the kernel complains about."""

    ABORT = "abort"
    """An access that faulted."""
    SERROR = "serror"
    BUG = "bug"
    DIED = "died"
    """"Internal error" whose first lines are not in the log."""
    WARNING = "warning"
    BAD_PAGE = "bad_page"
    BAD_PTE = "bad_pte"
    PAGE_DUMP = "page_dump"
    STALL = "stall"
    LOCKUP = "lockup"
    HUNG = "hung_task"
    """A task that waits for minutes (kernel/hung_task.c)."""
    SANITIZER = "sanitizer"
    """KASAN or KFENCE."""
    CHECK = "check"
    """Another check of the kernel's own: "BUG: scheduling while atomic"."""
    PANIC = "panic"
    """A panic that no report in the log leads to."""


_NOT_SOURCE = rb"(?![^\n]{0,100}%(?:[0#l]|\d*[dsuxp]))"
"""Patches hold the kernel's format strings: what would be filled in is not filled in."""


_LOCKS = (
    rb"(?:possible (?:recursive|circular|irq)|suspicious RCU usage|inconsistent lock state|bad (?:unlock|contention) "
    rb"|held lock freed|lock held when|Nested lock was|\S{1,20}-safe -> \S{1,20}-unsafe lock"
    rb"|\S{1,32}/\d{1,10} still has )"
)
"""What lockdep prints (kernel/locking/lockdep.c); before 4.11 in brackets after INFO."""


@dataclass(frozen=True, slots=True)
class Start:
    """How a report begins: fixed words, and what must surround them."""

    kind: ReportKind
    words: bytes
    shape: re.Pattern[bytes]

    @classmethod
    def of(cls, kind: ReportKind, words: bytes, more: bytes = b"", before: bytes = b"") -> Start:
        """``more`` is an expression after the words, ``before`` one of a fixed length before them."""
        return cls(kind, words, expression(before + re.escape(words) + more + _NOT_SOURCE))


STARTS: tuple[Start, ...] = tuple(
    Start.of(*start)
    for start in (
        (ReportKind.ABORT, b"Unable to handle kernel "),
        (ReportKind.ABORT, b"Unhandled fault", rb"(?:: | at 0x)"),
        (ReportKind.ABORT, b"Synchronous External Abort: "),
        (ReportKind.ABORT, b"] pgd=", rb"[0-9a-fA-F]{8}", rb"(?<=\[[0-9a-fA-F]{16})"),
        (ReportKind.ABORT, b"] *pgd=", rb"[0-9a-fA-F]{8}", rb"(?<=\[[0-9a-fA-F]{16})"),
        (ReportKind.SERROR, b"SError Interrupt on CPU"),
        (ReportKind.SERROR, b"Kernel panic - not syncing: Asynchronous SError Interrupt", b"", b"(?<!--\\[ end )"),
        (ReportKind.SERROR, b"Bad mode in ", rb"\w[\w ]{1,40} handler detected"),
        (ReportKind.DIED, b"Internal error: ", rb"(?=[^\n]{0,160}\n?[^\n]{0,60}\[#\d)"),
        (ReportKind.BUG, b"kernel BUG at "),
        (
            ReportKind.WARNING,
            b"WARNING: ",
            rb"(?=CPU: \d+ PID: \d+ at\s|(?:\[[^\n]{0,200}\] )?[\w./-]{1,200}:\d+ at\s)",
        ),
        (ReportKind.BAD_PAGE, b"BUG: Bad page state in process "),
        (ReportKind.BAD_PTE, b"BUG: Bad page map in process "),
        (ReportKind.SANITIZER, b"BUG: KASAN: "),
        (ReportKind.SANITIZER, b"BUG: KFENCE: "),
        (ReportKind.LOCKUP, b"BUG: soft lockup - CPU#"),
        (ReportKind.LOCKUP, b"Watchdog detected hard LOCKUP"),
        (
            ReportKind.CHECK,
            b"BUG: ",
            rb"(?!Bad page |K(?:ASAN|FENCE): |soft lockup|not creating mapping)\w",
            rb"(?<!- )(?<![A-Za-z])",
        ),
        (ReportKind.CHECK, b"WARNING: ", _LOCKS),
        (ReportKind.CHECK, b"INFO: ", _LOCKS, rb"(?<=\[ )"),
        (ReportKind.HUNG, b"INFO: task ", rb"[^\n]{1,32}?:\d{1,10} (?:is )?blocked "),
        (ReportKind.PAGE_DUMP, b"page dumped because: "),
        (ReportKind.STALL, b"self-detected stall on CPU"),
        (ReportKind.STALL, b"detected stalls on CPUs"),
        (ReportKind.STALL, b"detected expedited stalls on CPUs"),
        (ReportKind.PANIC, b"Kernel panic - not syncing", b"", b"(?<!--\\[ end )"),
    )
)

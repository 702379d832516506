"""What a kernel log has lost: messages that every boot prints, parts of reports, numbers that are left out.

A log is a witness of what did not happen only if nothing is missing between the start of the boot and its last line.
The messages come from start_kernel() and arch/arm64/kernel/smp.c, and are the same from 4.14 to 7.3.  An excerpt
that begins with the banner and has none of them has lost messages like any other.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from parsers.expressions import expression
from parsers.log_messages import Kind
from parsers.oops_starts import ReportKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from parsers.log_scan import Message
    from parsers.oops import Reports

__all__ = ["missing_records", "torn_report", "what_is_lost"]

_STEPS = (
    "Dentry cache hash table entries",
    "Inode-cache hash table entries",
    "Mount-cache hash table entries",
    "Mountpoint-cache hash table entries",
    "Brought up ",
    "SMP: Total of ",
    "CPU: All CPU(s) started at ",
)
"""In the order of a boot: whoever prints one prints all before it, and the others before init runs."""
_INIT = (" as init process", "Freeing unused kernel memory")
_RECORD = expression(rb"^\d{1,3},(\d{1,18}),\d{1,20},[^;\n]{1,64};", re.MULTILINE)
_FIRST_BYTES = 4096
_DEADLY = frozenset({ReportKind.ABORT, ReportKind.SERROR, ReportKind.BUG, ReportKind.DIED, ReportKind.PANIC})


def what_is_lost(messages: Sequence[Message], reports: Reports) -> str:
    """What the log of one boot lacks, in words; empty where nothing shows that a line is missing.

    ``messages`` and ``reports`` are those of the boot.
    """
    kinds = {message.kind for message in messages}
    if Kind.BANNER not in kinds:
        return "the log does not go back to the start of the boot"
    if dropped := next((one for one in messages if one.kind is Kind.LOST), None):
        return f"messages were dropped before line {dropped.line}"
    if Kind.COMMAND_LINE not in kinds:
        return "the log has lost messages: the kernel command line is not in it"
    texts = [message.text for message in messages if message.kind is Kind.STEP]
    running = Kind.HOST_NAME in kinds or any(words in text for text in texts for words in _INIT)
    seen = [any(words in text for text in texts) for words in _STEPS]
    expected = len(seen) if running else len(seen) - seen[::-1].index(True) if any(seen) else 0
    if not all(seen[:expected]):
        return f'the log has lost messages: "{_STEPS[seen.index(False)].strip()}" is not in it'
    if not running and not any(report.kind in _DEADLY and report.is_boot for report in reports.reports):
        return "the log has lost messages: the start of init is not in it"
    torn = torn_report(reports)
    return "" if torn is None else f"the report of line {torn} has lost lines"


def torn_report(reports: Reports) -> int | None:
    """Line of the first report that has lost its first lines or some from its middle."""
    lines = (*(report.line for report in reports.reports if report.is_torn), *reports.headless)
    return min(lines, default=None)


def missing_records(data: bytes) -> int:
    """How many records are missing between those of /dev/kmsg or netconsole, which number them; 0 without numbers."""
    if not _RECORD.search(data, 0, _FIRST_BYTES):
        return 0
    numbers = np.unique(np.array([int(match[1]) for match in _RECORD.finditer(data)], dtype=np.int64))
    return int(numbers[-1] - numbers[0] + 1 - numbers.size)

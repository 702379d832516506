"""``memory_notify`` in the meaning of the kernel that was traced.

Its first argument is a bit mask up to 6.1 and on 6.18, a number on 6.12.117 and from 7.2 on; the PFNs are in
words 0 and 1 of ``struct memory_notify`` or, after the PFNs of altmap memory, in words 2 and 3
(include/linux/memory.h).  The release does not decide it, because stable trees differ; the trace does: the first call
within ``online_pages`` announces GOING_ONLINE, the first within ``offline_pages`` GOING_OFFLINE, each with the
range of the outer call.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from parsers.ftrace.events import Events, Phase
from parsers.ftrace.functions import Kind
from parsers.mapping import U8, U64, Bool
from parsers.records import dataclass

__all__ = ["Notifications", "NotifyAction", "decode_notify"]


class NotifyAction(IntEnum):
    """MEM_*; the number is that of the enum, its bit in the mask is ``1 << action``."""

    ONLINE = 0
    GOING_OFFLINE = 1
    OFFLINE = 2
    GOING_ONLINE = 3
    CANCEL_ONLINE = 4
    CANCEL_OFFLINE = 5
    UNKNOWN = 255


_BITS: dict[NotifyAction, int] = {action: 1 << action for action in NotifyAction if action is not NotifyAction.UNKNOWN}
_FIRST = {Kind.ONLINE_PAGES: NotifyAction.GOING_ONLINE, Kind.OFFLINE_PAGES: NotifyAction.GOING_OFFLINE}


@dataclass(frozen=True, eq=False, kw_only=True)
class Notifications:
    """One row an event of the trace; only calls of ``memory_notify`` have an action."""

    action: U8
    """`NotifyAction`, UNKNOWN for other events and where the encoding is not known."""
    start_pfn: U64
    nr_pages: U64
    has_range: Bool
    encoding: str
    """``mask``, ``enum`` or empty: no call of online_pages or offline_pages shows it."""


def decode_notify(events: Events) -> Notifications:
    """Actions and ranges of the notifications of a trace."""
    encoding, word = _detect(events)
    raw, present = events.column("action")
    action = np.full(len(events), NotifyAction.UNKNOWN, dtype=np.uint8)
    if encoding:
        for meaning, bit in _BITS.items():
            code = bit if encoding == "mask" else int(meaning)
            action[present & (events.kind == Kind.MEMORY_NOTIFY) & (raw == code)] = meaning
    start, has_start = events.column(f"w{word}")
    pages, has_pages = events.column(f"w{word + 1}")
    has_range = has_start & has_pages & (events.kind == Kind.MEMORY_NOTIFY) & bool(encoding)
    return Notifications(
        action=action,
        start_pfn=np.where(has_range, start, np.uint64(0)),
        nr_pages=np.where(has_range, pages, np.uint64(0)),
        has_range=has_range,
        encoding=encoding,
    )


def _detect(events: Events) -> tuple[str, int]:
    """(encoding, first word of the range) by the first call within an online or offline."""
    notified = events.where(Kind.MEMORY_NOTIFY, Phase.ENTRY)
    action = events.column("action")[0]
    start, pages = events.column("start_pfn")[0], events.column("nr_pages")[0]
    for kind, first in _FIRST.items():
        for outer in events.where(kind, Phase.ENTRY)[:16].tolist():
            inner = notified[(notified > outer) & (events.pid[notified] == events.pid[outer])][:1]
            if not inner.size:
                continue
            code = int(action[inner[0]])
            encoding = "mask" if code == _BITS[first] else "enum" if code == first else ""
            for word in (0, 2):
                same = events.column(f"w{word}")[0][inner[0]] == start[outer]
                if encoding and same and events.column(f"w{word + 1}")[0][inner[0]] == pages[outer]:
                    return encoding, word
    return "", 0

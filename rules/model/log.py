"""Looking for the kernel's own words in its log."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from parsers.dmesg import Dmesg
from parsers.expressions import expression
from parsers.ranges import EMPTY, Ranges
from rules.finding import Evidence, UndecidedError

if TYPE_CHECKING:
    from parsers.dmesg import Message
    from parsers.layout import KernelLayout

__all__ = ["address_ranges", "messages_like", "need_whole_log", "quote_message", "quote_messages"]

MAX_QUOTED = 6
_BOUNDS = expression(r"\[(?:mem )?(?:0x)?([0-9a-f]{1,16})[ -]+(?:0x)?([0-9a-f]{1,16})\]")
_MAX_PA = 1 << 52


def messages_like(dmesg: Dmesg | None, pattern: str) -> tuple[Message, ...]:
    """The messages of the boot in which the pattern is found; none without a log."""
    if dmesg is None:
        return ()
    wanted = re.compile(pattern)
    return tuple(message for message in dmesg.boot.messages if wanted.search(message.text))


def quote_message(dmesg: Dmesg, message: Message) -> Evidence:
    """A message with the file and the line that it is on."""
    return Evidence(message.path or dmesg.path, message.text, message.line)


def quote_messages(dmesg: Dmesg | None, messages: tuple[Message, ...]) -> tuple[Evidence, ...]:
    """The first few of many; none without a log."""
    if dmesg is None:
        return ()
    quoted = tuple(quote_message(dmesg, message) for message in messages[:MAX_QUOTED])
    more = len(messages) - MAX_QUOTED
    return quoted if more <= 0 else (*quoted, Evidence(dmesg.path, f"and {more} more"))


def address_ranges(messages: tuple[Message, ...], layout: KernelLayout | None) -> Ranges:
    """PFNs of the ``[start end]`` byte addresses in the messages; empty without a page size."""
    if layout is None or not layout.knows("page_size"):
        return EMPTY
    bounds = [
        (int(start, 16), int(end, 16))
        for message in messages
        for start, end in _BOUNDS.findall(message.text)
        if int(start, 16) < int(end, 16) <= _MAX_PA
    ]
    return Ranges.pairs(bounds).divide(layout.page_size, outward=True)


def need_whole_log(dmesg: Dmesg) -> None:
    """UndecidedError where something shows that the log lacks lines of the boot: they may have said it."""
    if dmesg.boot.lost:
        raise UndecidedError(dmesg.boot.lost, Dmesg)

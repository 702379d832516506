"""Operations as a person names them: ``remove:namespace0.1``, ``offline:memory33``, ``add:0x80000000-0x88000000``."""

from __future__ import annotations

import re
from enum import StrEnum

from parsers.errors import UsageError
from parsers.expressions import expression
from parsers.records import dataclass

__all__ = ["Operation", "Verb", "is_operation", "parse_operation"]

_MAX_ADDRESS = 1 << 52
"""Arm has 52 bits of physical addresses."""
_RANGE = expression(r"(0x[0-9a-fA-F]{1,16})-(0x[0-9a-fA-F]{1,16})")
_BLOCK = expression(r"memory\d{1,12}")


class Verb(StrEnum):
    """What is to be done."""

    REMOVE = "remove"
    OFFLINE = "offline"
    ONLINE = "online"
    ADD = "add"


_OPERATION = expression(rf"({'|'.join(Verb)}):(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation; ``span`` are bytes of physical memory, half-open, where a range was named."""

    verb: Verb
    what: str
    span: tuple[int, int] | None = None

    def __str__(self) -> str:
        return f"{self.verb}:{self.what}"


def is_operation(text: str) -> bool:
    """Whether an argument is an operation and not a file (write ``./remove:x`` for a file of that name)."""
    return _OPERATION.fullmatch(text) is not None


def parse_operation(text: str) -> Operation:
    """Read ``remove:UNIT``, ``offline:memoryN``, ``online:memoryN``, ``add:0xSTART-0xEND``.

    Raises UsageError for anything else.

    >>> parse_operation("add:0x80000000-0x88000000").span
    (2147483648, 2281701376)
    """
    match = _OPERATION.fullmatch(text)
    if match is None:
        raise UsageError(f"{text}: an operation is remove:UNIT, offline:memoryN, online:memoryN or add:0xSTART-0xEND")
    verb, what = Verb(match[1]), match[2].strip()
    if not what:
        raise UsageError(f"{text}: what to {verb} is missing")
    span = None
    if (named := _RANGE.fullmatch(what)) is not None:
        span = int(named[1], 16), int(named[2], 16)
        if span[1] <= span[0]:
            raise UsageError(f"{text}: the range is empty (its end is exclusive)")
        if span[1] > _MAX_ADDRESS:
            raise UsageError(f"{text}: physical addresses have 52 bits at most")
    if verb is Verb.ADD and span is None:
        raise UsageError(f"{text}: add takes a range of physical addresses, add:0xSTART-0xEND")
    if verb in {Verb.OFFLINE, Verb.ONLINE} and not _BLOCK.fullmatch(what):
        raise UsageError(f"{text}: memory goes {verb} by blocks: {verb}:memoryN")
    return Operation(verb, what, span)

"""Whose lines a log has: syslog, and what reads several hosts at once, put the host's name before each message.

A host that is renamed while it boots has two names, one after the other.  Where lines of two names alternate within
one boot they are of two machines, as in the file of a central syslog.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from parsers.errors import Diagnostic, WrongFormatError
from parsers.expressions import expression

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["doubts_of_hosts"]

END_BYTES = 1 << 16
"""At each end of a log, where names are looked for."""
PLACES = 64
PLACE_BYTES = 1 << 12
"""And at so many places between them."""
MAX_SHOWN = 4
ENOUGH_BARE = 8
"""Lines of a name that stands alone: a program may print its own before a few."""

_DATE = rb"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d{1,9})?|\d{4}-\d\d-\d\dT[\d:.,+Z-]{8,32}"
_NAME = rb"([A-Za-z][\w.-]{0,63})"
_LEVELS = rb"info|warn(?:ing)?|notice|debug|crit|alert|emerg|error"
_NO_HOST = rb"(?:kern\w*|console|dmesg|log|(?:std)?(?:out|err)|%b|tty\w*|serial\w*): " % _LEVELS
_LOGGED_BY = expression(
    rb"^(?:<\d{1,3}>(?:1 )?)?(?:%b) %b kernel(?:(?:\[\d{1,8}\])?: | - )|^(?!%b)%b: \[ {0,7}\d{1,9}\.\d{6}\]"
    % (_DATE, _NAME, _NO_HOST, _NAME),
    re.MULTILINE,
)
"""Lines of syslog, and of pdsh, which puts the name alone."""
_BANNER = b"Linux version "


def doubts_of_hosts(data: bytes, reports: Sequence[int], path: str) -> Iterator[Diagnostic]:
    """A note where a log has lines of several names; WrongFormatError where it can only be of several machines.

    ``reports`` are offsets at which reports of the kernel begin.
    """
    found = sorted(_places(data, reports))
    bare = Counter(name for _, name, alone in found if alone)
    places = [(at, name) for at, name, alone in found if not alone or bare[name] >= ENOUGH_BARE]
    first: dict[str, int] = {}
    for at, name in places:
        first.setdefault(name, at)
    first.pop("localhost", None)  # until the host has its name
    if len(first) < 2:
        return
    names = list(first)
    shown = ", ".join(names[:MAX_SHOWN]) + (f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else "")
    line = data.count(b"\n", 0, first[names[1]]) + 1
    if _alternate(data, [place for place in places if place[1] in first]):
        said = f"lines of {len(first)} hosts ({shown}) take turns"
        how = f"audit one machine at a time, with the lines that `grep -iw {names[0]}` prints"
        raise WrongFormatError(f"{said}: {how}", path=path, line=line)
    said = f"lines of {len(first)} hosts ({shown}): the audit takes them for one machine; give it those of one"
    yield Diagnostic(said, path, line)


def _places(data: bytes, reports: Sequence[int]) -> Iterator[tuple[int, str, bool]]:
    """Offsets of lines with a host's name, and whether it stands alone.

    They are looked for at the ends, at places in between, and where reports begin.
    """
    size = len(data)
    step = max(size // (PLACES + 1), PLACE_BYTES)
    spans = [(0, END_BYTES), *((at, at + PLACE_BYTES) for at in range(END_BYTES, size, step)), (size - END_BYTES, size)]
    spans += [(at, at + 1) for at in reports]
    done = 0
    for start, end in sorted((max(start, 0), end) for start, end in spans):
        begin = data.rfind(b"\n", 0, start) + 1 if start >= done else done
        for found in _LOGGED_BY.finditer(data, begin, max(end, begin)):
            name = (found[1] or found[2]).decode().partition(".")[0].lower()
            yield found.start(), name, found[1] is None
        done = max(done, end)


def _alternate(data: bytes, places: Sequence[tuple[int, str]]) -> bool:
    """Whether a name comes back after another one within one boot."""
    last: dict[str, int] = {}
    done, banner, previous = 0, -1, ""
    for at, name in places:
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        banner = max(banner, data.rfind(_BANNER, done, end))
        if name != previous and last.get(name, -1) > banner:
            return True
        last[name], previous, done = at, name, at
    return False

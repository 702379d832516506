"""One pass over a kernel log: where the messages that are kept stand, where reports begin, and whose kernel it is."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from parsers.architecture import FOREIGN_WORDS, foreign_architecture
from parsers.errors import Diagnostic, WrongFormatError
from parsers.journal import without_json
from parsers.lines import without_transport
from parsers.log_messages import SHAPES, Kind
from parsers.oops import STARTS
from parsers.printk import STAMP, prefix_at
from parsers.words import Words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Message", "Scan", "looks_like_log", "scan_log"]

MAX_LINE = 8192
MAX_WRAPPED = 12

_STARTS_AT = len(SHAPES)
_FOREIGN_AT = _STARTS_AT + len(STARTS)
_WORDS = Words([*(shape.words for shape in SHAPES), *(start.words for start in STARTS), *FOREIGN_WORDS])
_WRAPPED = (Kind.BANNER, Kind.COMMAND_LINE)
# What begins such messages is said by programs, too, and in the middle of others.
_COMMON = (Kind.HUGETLB, Kind.DAX, Kind.CRASH, Kind.MACHINE, Kind.ZONE_RANGE, Kind.PROTECTION, Kind.CALL_TRACE)


@dataclass(frozen=True, slots=True)
class Message:
    """One message without its prefix."""

    line: int
    """1-based line in the file."""
    time: float | None
    """Seconds since boot; None where the prefix has none (wall-clock time is not kept)."""
    text: str
    """At most 4 KiB of it."""
    kind: Kind


@dataclass(frozen=True, slots=True)
class Scan:
    """What one pass found."""

    messages: list[Message]
    """In the order of the log; of too many the last."""
    dropped: int
    starts: list[tuple[int, int]]
    """Offsets at which reports may begin, with the number of the `parsers.oops.STARTS`."""
    diagnostics: tuple[Diagnostic, ...]


_LINE = re.compile(rb"^(?:<\d{1,3}>)?%b" % STAMP, re.MULTILINE)


def looks_like_log(head: bytes) -> bool:
    """Whether the beginning of a file holds a line of a kernel log, of any architecture, whatever carried it."""
    data = without_transport(without_json(head))
    if _LINE.search(data) or (data is not head and re.search(STAMP, data)):
        return True
    hits = _WORDS.find(data)
    if any(_STARTS_AT <= n < _FOREIGN_AT and STARTS[n - _STARTS_AT].shape.match(data, at) for at, n in hits):
        return True
    if any(message >= 0 and kind not in _COMMON for _, message, _, kind, _ in _found(data, hits)):
        return True
    return foreign_architecture(data, [(at, n - _FOREIGN_AT) for at, n in hits if n >= _FOREIGN_AT]) is not None


def scan_log(data: bytes, path: str, max_messages: int) -> Scan:
    """Look through a log whose transport is undone; WrongFormatError where it is of another architecture's kernel."""
    hits = _WORDS.find(data)
    foreign = foreign_architecture(data, [(at, n - _FOREIGN_AT) for at, n in hits if n >= _FOREIGN_AT])
    if foreign is not None:
        line = data.count(b"\n", 0, foreign[0]) + 1
        raise WrongFormatError(f"the log of a kernel for {foreign[1]}, not for arm64", path=path, line=line)
    kept: deque[tuple[int, int, int, Kind, float | None]] = deque(maxlen=max_messages)
    total, odd, first_odd = 0, 0, 0
    for start, message, end, kind, time in _found(data, hits):
        if message < 0:
            odd += 1
            first_odd = first_odd if odd > 1 else start
            continue
        total += 1
        kept.append((start, message, end, kind, time))
    diagnostics: tuple[Diagnostic, ...] = ()
    if odd:
        said = f"{odd} lines hold kernel messages behind something that is not understood, and are left out"
        diagnostics = (Diagnostic(said, path, data.count(b"\n", 0, first_odd) + 1),)
    starts = [(at, n - _STARTS_AT) for at, n in hits if _STARTS_AT <= n < _FOREIGN_AT]
    return Scan(list(_messages(data, kept)), total - len(kept), starts, diagnostics)


def _found(data: bytes, hits: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, int, Kind, float | None]]:
    """Line start, message start (-1 where the prefix is not understood), end, kind and time of each message."""
    line_end, done, message, time = -1, False, 0, None
    start = 0
    for at, number in hits:
        if number >= _STARTS_AT:
            continue
        if at > line_end:
            start = data.rfind(b"\n", max(line_end, at - MAX_LINE, 0), at) + 1
            if not start:
                start = 0 if at <= MAX_LINE else max(line_end + 1, at - MAX_LINE)
            line_end = data.find(b"\n", at)
            line_end = len(data) if line_end < 0 else line_end
            prefix = prefix_at(data, start)
            message, done = prefix.end(), False
            stamp = prefix["time"]
            time = None if stamp is None else float(stamp)
        if done:
            continue
        shape = SHAPES[number]
        if (found := shape.begins.match(data, message)) is not None:
            done = True
            yield start, message, found.end(), shape.kind, time
        elif shape.kind not in _COMMON and _stands_alone(data, at, message) and shape.begins.match(data, at):
            done = True
            yield start, -1, at, shape.kind, time


def _stands_alone(data: bytes, at: int, message: int) -> bool:
    """Whether a message could begin at ``at``, behind a prefix that is not understood."""
    return message < at <= message + 80 and data[at - 1 : at] in {b" ", b":", b"]", b">", b"\t", b"|"}


def _messages(data: bytes, kept: deque[tuple[int, int, int, Kind, float | None]]) -> Iterator[Message]:
    line, counted = 1, 0
    for start, message, end, kind, time in kept:
        line += data.count(b"\n", counted, start)
        counted = start
        text = data[message:end]
        if kind in _WRAPPED and time is not None:
            text += _continuation(data, end)
        yield Message(line, time, text.decode("utf-8", "replace").rstrip(), kind)


def _continuation(data: bytes, end: int) -> bytes:
    """What mail wrapped to the next lines of a log whose lines all have a time."""
    parts, at = b"", end
    for _ in range(MAX_WRAPPED):
        after = data.find(b"\n", at + 1)
        line = data[at + 1 : after if after >= 0 else at + MAX_LINE]
        if not line.strip() or len(line) > 200 or prefix_at(line, 0)["time"] is not None:
            break
        parts += b" " + line.strip()
        if after < 0:
            break
        at = after
    return parts

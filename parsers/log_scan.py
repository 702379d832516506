"""One pass over a kernel log: where the messages that are kept are, where reports begin, and whose kernel it is."""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from parsers.architecture import FOREIGN_WORDS, foreign_architecture
from parsers.errors import ArchitectureError, Diagnostic
from parsers.expressions import expression
from parsers.journal import without_json
from parsers.lines import without_transport
from parsers.log_messages import SHAPES, Kind
from parsers.oops_starts import STARTS
from parsers.printk import STAMP, prefix_at
from parsers.records import dataclass
from parsers.words import Words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from parsers.mapping import I64

__all__ = ["Message", "Scan", "looks_like_log", "report_starts", "scan_log"]

MAX_LINE = 8192
MAX_WRAPPED = 12
MAX_FOREIGN = 10_000
MAX_STARTS = 100_000
"""Of a flood of reports the first are read."""
SPARE = 4
"""One word in so many may belong to no message: of a flood of words no more are looked at."""

_Found = tuple[int, int, int, Kind, float | None]
"""Line start, message start (-1 where the prefix is not understood), end, kind and time."""

_STARTS_AT = len(SHAPES)
_FOREIGN_AT = _STARTS_AT + len(STARTS)
_WORDS = Words([*(shape.words for shape in SHAPES), *(start.words for start in STARTS), *FOREIGN_WORDS])
_WRAPPED = (Kind.BANNER, Kind.COMMAND_LINE)
_MAY_WRAP = (Kind.MEMORY_FAILURE, Kind.HOTPLUG, Kind.VIRTIO_MEM, Kind.DAX)
MAIL_WIDTH = 50
"""A line shorter than this was not wrapped by mail."""
# What begins such messages is said by programs, too, and in the middle of others.
_COMMON = frozenset(
    (Kind.HUGETLB, Kind.DAX, Kind.CRASH, Kind.MACHINE, Kind.ZONE_RANGE, Kind.PROTECTION, Kind.CALL_TRACE)
)


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
    path: str = ""
    """The file that holds it, where that is another log than the one it was added to."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What one pass found."""

    messages: list[Message]
    """In the order of the log; of too many the last."""
    dropped: int
    starts: list[tuple[int, int]]
    """Offsets at which reports may begin, with the number of the `parsers.oops.STARTS`."""
    diagnostics: tuple[Diagnostic, ...]


_LINE = expression(rb"^(?:<\d{1,3}>)?%b" % STAMP, re.MULTILINE)


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


def report_starts(data: bytes) -> list[int]:
    """Offsets at which the kernel's reports begin, in a text without its transport."""
    hits = _WORDS.find(data)
    return [at for at, n in hits if _STARTS_AT <= n < _FOREIGN_AT and STARTS[n - _STARTS_AT].shape.match(data, at)]


def scan_log(data: bytes, path: str, max_messages: int) -> Scan:
    """Look through a log whose transport is undone; ArchitectureError where it is of another architecture's kernel."""
    at, number = _WORDS.places(data)
    strange = number >= _FOREIGN_AT
    foreign = foreign_architecture(data, _pairs(at[strange], number[strange] - _FOREIGN_AT, MAX_FOREIGN))
    if foreign is not None:
        line = data.count(b"\n", 0, foreign[0]) + 1
        raise ArchitectureError(f"the log of a kernel for {foreign[1]}, not for arm64", path=path, line=line)
    own = np.flatnonzero(number < _STARTS_AT)
    skipped = max(len(own) - max_messages - max_messages // SPARE, 0)  # of a flood the end is looked at
    own = own[skipped:]
    kept: deque[_Found] = deque(maxlen=max_messages)
    total, odd, first_odd = 0, 0, 0
    for found in _found(data, _pairs(at[own], number[own], len(own))):
        if found[1] < 0:
            odd += 1
            first_odd = first_odd if odd > 1 else found[0]
            continue
        total += 1
        kept.append(found)
    diagnostics: tuple[Diagnostic, ...] = ()
    if odd:
        said = f"{odd} lines hold kernel messages after an unknown prefix, and are left out"
        diagnostics = (Diagnostic(said, path, data.count(b"\n", 0, first_odd) + 1),)
    begins = (number >= _STARTS_AT) & ~strange
    starts = _pairs(at[begins], number[begins] - _STARTS_AT, MAX_STARTS)
    return Scan(list(_messages(data, kept)), total - len(kept) + skipped, starts, diagnostics)


def _pairs(at: I64, number: I64, most: int) -> list[tuple[int, int]]:
    return list(zip(at[:most].tolist(), number[:most].tolist(), strict=True))


def _found(data: bytes, places: Sequence[tuple[int, int]]) -> Iterator[_Found]:
    """The messages on the lines of these words: one a line."""
    line_end, start, message, time, done = -1, 0, 0, None, False
    for at, number in places:
        if number >= _STARTS_AT:
            continue
        if at > line_end:
            start = data.rfind(b"\n", max(line_end, at - MAX_LINE, 0), at) + 1
            start = start or (0 if at <= MAX_LINE else max(line_end + 1, at - MAX_LINE))
            line_end = data.find(b"\n", at)
            line_end = len(data) if line_end < 0 else line_end
            prefix = prefix_at(data, start)
            message, done, stamp = prefix.end(), False, prefix["time"]
            time = None if stamp is None else float(stamp)
        elif done:
            continue
        kind, begins = _SHAPES[number]
        found = begins.match(data, message)
        if found is None and at > message and kind not in _COMMON and data[message:at].isspace():
            found = begins.match(data, at)
        if found is not None:
            done = True
            yield start, message, found.end(), kind, time
        elif kind not in _COMMON and _stands_alone(data, at, message) and begins.match(data, at):
            done = True
            yield start, -1, at, kind, time


_SHAPES = tuple((shape.kind, shape.begins) for shape in SHAPES)


def _stands_alone(data: bytes, at: int, message: int) -> bool:
    """Whether a message could begin at ``at``, after an unknown prefix."""
    return message < at <= message + 80 and data[at - 1 : at] in {b" ", b":", b"]", b">", b"\t", b"|"}


def _messages(data: bytes, kept: deque[_Found]) -> Iterator[Message]:
    line, counted = 1, 0
    for start, message, end, kind, time in kept:
        line += data.count(b"\n", counted, start)
        counted = start
        text = data[message:end]
        if kind in _WRAPPED and time is not None:
            text += _continuation(data, end, MAX_WRAPPED)
        elif kind in _MAY_WRAP and time is not None and end - start >= MAIL_WIDTH and data[end + 1 : end + 2].isalnum():
            text += _continuation(data, end, 1)
        yield Message(line, time, text.decode("utf-8", "replace").rstrip(), kind)


def _continuation(data: bytes, end: int, most: int) -> bytes:
    """What mail wrapped to the next lines of a log whose lines all have a time."""
    parts, at = b"", end
    for _ in range(most):
        after = data.find(b"\n", at + 1)
        line = data[at + 1 : after if after >= 0 else at + MAX_LINE]
        if not line.strip() or len(line) > 200 or prefix_at(line, 0)["time"] is not None:
            break
        parts += b" " + line.strip()
        if after < 0:
            break
        at = after
    return parts

"""Lines that say that events were lost (kernel/trace/trace.c, and ``trace-cmd report``), as gaps in time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from parsers.expressions import expression
from parsers.ftrace.dialects import parse_contexts
from parsers.ftrace.events import NO_TIME, Gap
from parsers.ftrace.scan import LOSS_WORDS, Block, Landmarks, line_spans, line_start

__all__ = ["STARTED", "find_losses", "is_loss"]

STARTED = "buffer started"
_NEAR = 64 << 10
_NEIGHBOUR_LINES = 200
_LOSS = expression(
    rb"CPU:\s?(?P<cpu>\d+) \[(?:LOST )?(?:(?P<count>\d+) )?EVENTS(?: DROPPED)?\]"
    rb"|#{3,} CPU (?P<started>\d+) buffer started #{3,}"
)


def is_loss(data: bytes, start: int) -> bool:
    """The line that begins at ``start`` says that events were lost."""
    return _LOSS.match(data, start) is not None


def find_losses(block: Block, at_most: int, marks: Landmarks | None = None) -> list[Gap]:
    """The gaps that ``block`` reports, bounded by the events near them; ``marks`` are its landmarks where known."""
    found: list[Gap] = []
    searches = [marks.losses] if marks else [_positions(block.data, word) for word in LOSS_WORDS]
    for positions in searches:
        lines = (_LOSS.search(block.data, start, end) for start, end in line_spans(block.data, positions))
        matches = (match for match in lines if match)
        found += [_gap(block, match) for match in islice(matches, max(at_most - len(found), 0))]
    return found


def _positions(data: bytes, word: bytes) -> Iterator[int]:
    return (match.start() for match in re.finditer(re.escape(word), data))


def _gap(block: Block, match: re.Match[bytes]) -> Gap:
    start = line_start(block.data, match.start())
    started = match.group("started") is not None
    cpu = int(match.group("started") if started else match.group("cpu")) & 0x7FFFFFFF
    count = match.group("count")
    return Gap(
        cpu=cpu,
        count=int(count[:18]) if count else None,
        start_ns=None if started else _time_near(block.data, start, cpu, after=False),
        end_ns=_time_near(block.data, start, cpu, after=True),
        reason=STARTED if started else "lost events",
        line=block.line + block.data.count(b"\n", 0, start),
        offset=block.offset + start,
    )


def _time_near(data: bytes, position: int, cpu: int, *, after: bool) -> int | None:
    """Time of the next (or last) event of ``cpu`` near ``position``; None if none is near."""
    if after:
        lines = data[position : position + _NEAR].split(b"\n")[1:_NEIGHBOUR_LINES]
    else:
        lines = data[max(0, position - _NEAR) : position].split(b"\n")[-_NEIGHBOUR_LINES:]
    if not lines:
        return None
    context = parse_contexts(lines)
    times = context.time_ns[context.known & (context.cpu == cpu) & (context.time_ns != NO_TIME)]
    if not times.size:
        return None
    return int(times[0] if after else times[-1])

"""The function_graph tracer in ``trace-cmd report``: calls as events, with their ends.

A line has the task and the time of every other event, then ``funcgraph_entry:`` and the call, or ``funcgraph_exit:``
and a brace that names no function (lib/trace-cmd/trace-ftrace.c of trace-cmd 3.1).  The end of a call is the next brace
of the same task at the same indentation; it is written out as the return of a probe is.
"""

from __future__ import annotations

import re
from dataclasses import field
from typing import TYPE_CHECKING

from parsers.expressions import expression
from parsers.ftrace.naming import symbol_kind
from parsers.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["ReportedGraph", "is_reported_graph"]

_LINE = expression(rb": +(?:\(\+\d+\) +)?funcgraph_e(?:ntry|xit): ")
_ENTRY = expression(
    rb"(?P<context>(?P<task>[^\n]{1,40}?-\d{1,10})\s[^\n|]{1,80}?)funcgraph_entry: [^\n|]{0,80}\|(?P<indent> *)"
    rb"(?P<function>[A-Za-z_][\w.]*)\([^\n]*\)(?: \[\w+\])?(?P<end>;| \{)"
)
_RESULT = expression(rb"/\*[^\n]*?= ?(-?\w+)[^\n]*\*/")
_MAX_OPEN = 1024
_SEARCHES = 16
"""How often a trace may be searched for the ends of calls; most are a few lines on."""


def is_reported_graph(head: bytes) -> bool:
    """The function_graph tracer's records are events among others."""
    return _LINE.search(head) is not None


@dataclass(frozen=True, slots=True)
class _Open:
    """A call that has not returned yet."""

    function: bytes
    end: re.Pattern[bytes]


@dataclass
class ReportedGraph:
    """Finds the ends of calls, block by block."""

    _open: list[_Open] = field(default_factory=list)
    _budget: int = 64 << 20
    """Bytes that may still be searched: a trace of calls that never end must not take forever."""

    def returns(self, data: bytes, lines: Iterable[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """(start, line) of the returns in ``data``, of calls on ``lines`` (start, text) and of those still open.

        A call without callees is one line, which is its return too.
        """
        self._budget += _SEARCHES * len(data)
        still_open: list[_Open] = []
        found = [*self._ends(data, ((call, 0) for call in self._open), still_open)]
        opened: list[tuple[_Open, int]] = []
        for start, text in lines:
            entry = _ENTRY.match(text) if b"funcgraph_entry: " in text else None
            if entry is None or not symbol_kind(entry["function"].decode()):
                continue
            if entry["end"] == b";":
                found.append((start, _return(entry["context"], entry["function"], b"")))
            else:
                brace = rb"^(%b\s[^\n|]{1,80}?)funcgraph_exit: [^\n|]{0,80}\|%b\}([^\n]*)"
                end = re.compile(brace % (re.escape(entry["task"]), entry["indent"]), re.MULTILINE)
                opened.append((_Open(entry["function"], end), start + len(text)))
        found += self._ends(data, opened, still_open)
        self._open = still_open[:_MAX_OPEN]
        return found

    def _ends(
        self, data: bytes, calls: Iterable[tuple[_Open, int]], still_open: list[_Open]
    ) -> Iterator[tuple[int, bytes]]:
        gone: set[re.Pattern[bytes]] = set()  # what is not found from one call on is not after a later one
        for call, position in calls:
            match = None
            if call.end not in gone and self._budget > 0:
                match = call.end.search(data, position)
                self._budget -= (match.end() if match else len(data)) - position
            if match:
                yield match.start(), _return(match[1], call.function, match[2])
            else:
                gone.add(call.end)
                still_open.append(call)


def _return(context: bytes, function: bytes, notes: bytes) -> bytes:
    """The end of a call as a return probe prints it."""
    result = _RESULT.search(notes)
    return context + b"funcgraph_exit: (? <- " + function + b")" + (b" ret=" + result[1] if result else b"")

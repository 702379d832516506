"""Calls of hotplug functions as other tracers print them, which are named and refused.

``perf trace`` writes ``NAME(field: value, …)`` (builtin-trace.c), babeltrace ``NAME: { … }, { field = value }``, and
a script for bpftrace whatever its author chose, mostly ``NAME(field=value, …)``.  What the time counts from, the
task or the CPU is missing in each of them.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from parsers.ftrace.dialects import parse_contexts
from parsers.ftrace.naming import NAME_ENDS, SYMBOLS
from parsers.ftrace.scan import alternation

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["REFUSED", "looks_like_other_tracer"]

REFUSED = (
    "calls as bpftrace, perf trace or babeltrace print them: these formats are not read; record the probes that"
    " `ptaudit probes` prints with ftrace, trace-cmd or perf record, and keep the trace, the report or `perf script`"
)
_LINES = 100
_MAX_LINE = 4096


@cache
def _call() -> re.Pattern[bytes]:
    """A line with a function of hotplug, and after it a field and its value."""
    name = rf"{alternation(list(SYMBOLS))}(?:{'|'.join(NAME_ENDS)})?"
    value = r"(?:ip|\w{2,16}) ?[=:] ?(?:-?\d|0x|NULL)"
    return re.compile(rf"[^\n]{{0,128}}?[\s:]{name}(?:\(|: \{{| +)[^\n(<]{{0,80}}?\b{value}".encode())


def looks_like_other_tracer(lines: Sequence[bytes]) -> bool:
    """Most of the first ``lines`` are calls of hotplug functions, and none has a context that is understood."""
    sample = [line[:_MAX_LINE] for line in lines[:_LINES]]
    calls = sum(1 for line in sample if _call().match(line))
    return calls * 2 > len(sample) and not parse_contexts(sample).known.any()

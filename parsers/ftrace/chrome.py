"""Traces in the JSON of Chrome and Perfetto: ftrace text in ``systemTraceEvents``, or events that are refused by name.

The Trace Event Format: an object with ``traceEvents`` and, where the system was traced with atrace or systrace,
``systemTraceEvents``, which holds the text of /sys/kernel/tracing/trace as one string.
"""

from __future__ import annotations

import json
import re

from parsers.expressions import POSSESSIVE, expression

__all__ = ["MAX_BYTES", "REFUSED", "looks_like_chrome", "system_trace"]

MAX_BYTES = 256 << 20
REFUSED = (
    "a trace in Chrome's or Perfetto's JSON without the text of ftrace (systemTraceEvents): it has no arguments of"
    " kernel functions; record the probes that `ptaudit probes` prints with ftrace or trace-cmd, and keep the trace"
)
_BEGINS = expression(
    rb'\A\s{0,64}(?:\{\s{0,64}"(?:traceEvents|systemTraceEvents|displayTimeUnit|otherData|metadata|stackFrames)"\s*:'
    rb'|\[\s{0,64}\{[^{}]{0,400}"ph"\s*:)'
)
_TEXT = expression(rb'"systemTraceEvents"\s*:\s*("(?:[^"\\]|\\.)*' + POSSESSIVE + rb'")', re.DOTALL)


def looks_like_chrome(head: bytes) -> bool:
    """Whether a file begins like such a trace."""
    return _BEGINS.match(head) is not None


def system_trace(data: bytes) -> bytes:
    r"""The text of ftrace in such a file; empty where there is none.

    >>> system_trace(rb'{"traceEvents": [], "systemTraceEvents": "# tracer: nop\n#\n"}')
    b'# tracer: nop\n#\n'
    """
    found = _TEXT.search(data)
    if found is None:
        return b""
    try:
        text = json.loads(found[1])
    except ValueError:
        return b""
    return str(text).encode("utf-8", "replace")

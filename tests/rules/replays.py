"""Traces replayed, and what the replay says."""

from __future__ import annotations

from analyzer.audit import audit
from analyzer.sources.read import Request
from parsers.ranges import Ranges

LOST = Ranges.pairs([(0x80000, 0x82000), (0x84000, 0x88000)])


def events(path):
    """Lines of events of a trace, without headers and stacks."""
    lines = path.read_text().splitlines()
    return [line for line in lines if not line.startswith(("#", " =>")) and "<stack trace>" not in line]


def joined(lines):
    return "# tracer: nop\n#\n" + "".join(f"{line}\n" for line in lines)


def audited(*paths, only=()):
    return audit(Request(paths), only=only)

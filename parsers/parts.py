"""One text that holds several kinds of evidence, taken apart: a mail, a terminal session, a support file.

Rows show their kind (`parsers.kinds.Kind.row`); headings (a shell prompt with a command, ``*** /proc/iomem``,
``------ KERNEL LOG (dmesg) ------``, ``#==[ Command ]==#``) name the kind where rows do not show it, and separate
documents of the same kind.  A part is the whole text with every line that belongs to other parts left empty, so line
numbers stay those of the file.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import field
from functools import cache
from itertools import groupby, pairwise
from typing import NamedTuple

from parsers.expressions import POSSESSIVE, expression
from parsers.kinds import KINDS, SNIFF_BYTES, Kind, kind_of_content, kind_of_path
from parsers.log_scan import report_starts
from parsers.records import dataclass
from parsers.transport import MAX_BYTES

__all__ = ["Part", "parts_of"]

MAX_RUNS = 50_000
"""Of a text in which kinds alternate more often than this, nothing is believed."""

_HEADING = expression(
    rb"\n(?<!\n#\n)(?!# (?:end of |CONFIG_|TASK-PID))(?:"  # titles of a configuration, between lines of "#"
    rb"(?:\[[^\]\n]{1,80}\]|[\w.@:~/-]{0,80}) ?[#$] ?(?:sudo )?(?P<command>/?[A-Za-z][\w./-]*(?: [^\n]{0,400})?)"
    rb"|\*\*\* (?P<starred>/\S{1,200})"
    rb"|-{4,} (?P<dashed>[^\n]{1,200}?) -{4,}"
    rb"|(?:={2,}|:{3,})[>\[ ]{0,2}(?P<framed>[^\n=]{0,200}?)[<\] ]{0,2}(?:={2,}|:{3,})#?"
    rb"|(?P<named>/?(?:[\w.-]{1,40}/){0,8}[\w.-]{1,60}):"
    rb"|[_=*-]{20,}|\*\*\* ls: [^\n]*"
    rb")[^\S\n]*$(?!\n#\n)",
    re.MULTILINE,
)
_LOG = "dmesg"
_WORD = expression(rb"[\w./+~-]+")
_COMMANDS = {b"dmesg": "dmesg", b"journalctl": "dmesg", b"uname": "uname", b"lsmem": "lsmem"}
_LOG_TITLES = expression(rb"\bKERNEL LOG\b|\bLAST KMSG\b|\bdmesg\b|\bconsole-ramoops|\bkern\.log\b|/var/log/messages\b")


@dataclass(frozen=True)
class Part:
    """One document in a text."""

    kind: Kind
    line: int
    """1-based line on which it begins."""
    data: bytes = field(repr=False)
    """The text without the lines of other parts, each of which is left empty."""


class _Run(NamedTuple):
    """Consecutive lines of one kind, by offset; ``rows`` of them are certain."""

    start: int
    end: int
    kind: Kind
    rows: int


class _Section(NamedTuple):
    """What lies between two headings; ``hint`` is the kind that the first of them names."""

    start: int
    end: int
    hint: Kind | None
    opens_log: bool


def parts_of(data: bytes) -> tuple[Part, ...]:
    r"""The documents in a text that holds more than one; none if it holds one, or is too long or not text.

    >>> text = b"# cat /proc/cmdline\nro quiet\n# cat /proc/iomem\n00000000-0fffffff : RAM\n  00210000-01afffff : x\n"
    >>> [(part.kind.name, part.line) for part in parts_of(text)]
    [('cmdline', 2), ('iomem', 4)]
    """
    if len(data) > MAX_BYTES or b"\0" in data[:4096]:
        return ()
    lines = b"\n" + data  # each line after a newline; an offset of it is one past the same of the text
    found = _runs(lines, len(data))
    sections = list(_sections(lines))
    if found is None:
        return ()
    runs = [run for run in found if run.kind.name != _LOG]
    if not runs and all(section.hint is None or section.hint.row for section in sections):
        return ()
    if len(found) == len(runs):
        found += [_Run(at, at, KINDS[_LOG], 1) for at in report_starts(data)[:1]]
    runs = sorted(found, key=lambda run: run.start)
    documents = [*_tables(data, sections, runs), *_logs(data, sections, runs)]
    if len(documents) < 2:
        return ()
    return tuple(sorted((_part(data, kind, spans) for kind, spans in documents), key=lambda part: part.line))


def _runs(lines: bytes, size: int) -> list[_Run] | None:
    """The rows of every kind, few ones only of the kind that the text begins with; None if too many to be true.

    Of two kinds that claim a line the first in the table has it, unless it has too few of them.
    """
    names = tuple(kind.name for kind in KINDS.values() if kind.row is not None and kind.row.may_be_in(lines))
    while names:
        found: list[_Run] = []
        for match in _rows_of(names).finditer(lines):
            start, end = match.start(), match.end()
            kind = KINDS[match.lastgroup or ""]
            found.append(_Run(start, min(end, size), kind, lines.count(b"\n", start, end)))
            if len(found) > MAX_RUNS:
                return None
        rows: Counter[str] = Counter()
        for run in found:
            rows[run.kind.name] += run.rows
        few = {name for name in rows if (row := KINDS[name].row) is not None and rows[name] < row.least}
        if few and (sure := kind_of_content(lines[1 : SNIFF_BYTES + 1])) is not None:
            few.discard(sure.name)
        if not few:
            return found
        names = tuple(name for name in names if name not in few)
    return []


@cache
def _rows_of(names: tuple[str, ...]) -> re.Pattern[bytes]:
    """Consecutive rows of one of these kinds, in one pass over a text: the group that matched names it.

    Possessive: else what is remembered of a million rows, to go back to, takes ten times as much as they.
    """
    rows = ((name, row.line) for name in names if (row := KINDS[name].row) is not None)
    shape = rb"(?P<%b>(?:%b)[^\n]*+(?:\n(?:%b)[^\n]*+)*" + POSSESSIVE + rb")"
    runs = (shape % (name.encode(), line, line) for name, line in rows)
    return re.compile(rb"\n(?:%b)" % b"|".join(runs), re.MULTILINE)


def _sections(lines: bytes) -> Iterator[_Section]:
    start, hint, opens_log = 0, None, False
    for match in _HEADING.finditer(lines):
        found, log = _named(match)
        bare = match.lastgroup is None
        yield _Section(start, match.start(), hint, opens_log)
        # A line under a title, or the line of dots that closes it, does not end what the title named.
        keep = bare and not lines[start : match.start()].strip()
        start, hint, opens_log = min(match.end(), len(lines) - 1), hint if keep else found, opens_log if keep else log
    yield _Section(start, len(lines) - 1, hint, opens_log)


def _named(heading: re.Match[bytes]) -> tuple[Kind | None, bool]:
    """The kind that a heading names, and whether a log begins with it."""
    text = next((group for group in heading.groups() if group), b"")
    words = _WORD.findall(text)
    for word in reversed(words):
        command = _COMMANDS.get(word.rpartition(b"/")[2])
        kind = KINDS[command] if command else kind_of_path(word.decode("ascii", "replace"))
        if kind is not None and kind.is_read:
            return kind, kind.name == _LOG
    return None, _LOG_TITLES.search(text) is not None


def _tables(
    data: bytes, sections: Sequence[_Section], runs: Sequence[_Run]
) -> Iterator[tuple[Kind, list[tuple[int, int]]]]:
    """Documents of every kind but logs: the rows between two headings, with what interrupts them."""
    starts = [section.start for section in sections]
    by_section: dict[int, list[_Run]] = {}
    for run in runs:
        by_section.setdefault(bisect_right(starts, run.start) - 1, []).append(run)
    for number, section in enumerate(sections):
        own = by_section.get(number, [])
        spans: dict[str, list[tuple[int, int]]] = {}
        for name, group in groupby(own, key=lambda run: run.kind.name):
            together = list(group)
            spans.setdefault(name, []).append((together[0].start, together[-1].end))
        hint = section.hint
        if hint is not None and hint.row is None and not spans and data[section.start : section.end].strip():
            yield hint, [(section.start, section.end)]
        for name, found in spans.items():
            if name != _LOG:
                yield KINDS[name], found


def _logs(
    data: bytes, sections: Sequence[_Section], runs: Sequence[_Run]
) -> Iterator[tuple[Kind, list[tuple[int, int]]]]:
    """Kernel logs: everything that is not a row of another kind, one log from each heading of one to the next."""
    log = KINDS[_LOG]
    if not any(run.kind is log for run in runs):
        return
    others = [(run.start, run.end) for run in runs if run.kind is not log]
    first = next(number for number, section in enumerate(sections) if section.start <= 0 or section.opens_log)
    bounds = [sections[first].start, *(section.start for section in sections if section.opens_log and section.start)]
    for start, end in zip(bounds, [*bounds[1:], len(data)], strict=True):
        if any(run.kind is log and start <= run.start < end for run in runs):
            headings = [(one.end, two.start) for one, two in pairwise(sections)]
            yield log, list(_without(start, end, sorted([*others, *headings])))


def _without(start: int, end: int, holes: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """``start`` to ``end`` without the holes, which are sorted."""
    at = start
    for lo, hi in holes:
        if hi <= at:
            continue
        if lo >= end:
            break
        if lo > at:
            yield at, lo
        at = max(at, hi)
    if at < end:
        yield at, end


def _part(data: bytes, kind: Kind, spans: Sequence[tuple[int, int]]) -> Part:
    pieces, at = [], 0
    for start, end in spans:
        pieces += [b"\n" * data.count(b"\n", at, start), data[start:end]]
        at = end
    body = b"".join(pieces)
    first = len(body) - len(body.lstrip())
    return Part(kind, body.count(b"\n", 0, first) + 1, body)
